"""A smaller fence is refused, whatever dies or is stopped in between."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from conftest import LAB, Cli

import drydock
from drydock import fencing
from drydock.errors import ConfigError, Conflict, LeaseLost, StoreBusy, StoreError, WrongFence
from drydock.testing.children import Child, run_together

ROOT = Path(__file__).parent.parent
[RECIPE] = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "content"


def shell(target: Path, content: str, fence: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", RECIPE, "fenced-write", str(target)],
        input=content, env={**os.environ, "DRYDOCK_FENCE": str(fence)}, capture_output=True, text=True,
    )  # fmt: skip


def in_shell(target: Path, content: str, fence: int) -> None:
    done = shell(target, content, fence)
    if done.returncode == 4:
        raise WrongFence(str(target), fence, 0)
    assert done.returncode == 0, done.stderr


def in_python(target: Path, content: str, fence: int) -> None:
    fencing.write(target, content, fence=fence)


Write = Callable[[Path, str, int], None]


# ---- what is refused


@pytest.mark.parametrize("first", [in_python, in_shell])
@pytest.mark.parametrize("second", [in_python, in_shell])
def test_a_smaller_fence_is_refused_and_an_equal_one_goes_on(target: Path, first: Write, second: Write) -> None:
    """The recipe of the README and the module know of each other."""
    first(target, "one", 9)
    second(target, "two", 10)
    with pytest.raises(WrongFence):
        first(target, "late", 9)
    assert target.read_text() == "two"
    second(target, "three", 10)
    assert target.read_text() == "three"
    assert Path(f"{target}.fence").read_text() == "10\n"


def test_the_refusal_says_what_was_seen(target: Path) -> None:
    fencing.write(target, b"\x00\xff", fence=5)
    assert target.read_bytes() == b"\x00\xff"
    with pytest.raises(WrongFence) as refused:
        fencing.write(target, "late", fence=3)
    error = refused.value
    assert (error.target, error.fence, error.seen) == (str(target), 3, 5)
    assert str(error) == f'fence 3 is too old for "{target}", which has seen 5; the lease is lost'
    assert isinstance(error, Conflict)


def test_what_is_no_file_is_guarded_by_name(tmp_path: Path) -> None:
    """`check` remembers the fence although nothing is written; a block runs not at all, or alone."""
    name = tmp_path / "power-switch"
    fencing.check(name, 2)
    ran = []
    with pytest.raises(WrongFence), fencing.guard(name, 1):
        ran.append(1)
    with fencing.guard(name, 3):
        ran.append(3)
    with pytest.raises(WrongFence):
        fencing.check(name, 2)
    assert ran == [3]
    assert not name.exists()


def test_links_to_a_file_share_its_fence(target: Path, tmp_path: Path) -> None:
    fencing.write(target, "new", fence=2)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(WrongFence):
        fencing.write(tmp_path / "link", "late", fence=1)
    fencing.write(tmp_path / "link", "newer", fence=3)
    assert target.read_text() == "newer"
    assert (tmp_path / "link").is_symlink()


def test_a_relative_path_is_the_same_target(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fencing.write(target, "new", fence=2)
    monkeypatch.chdir(target.parent)
    with pytest.raises(WrongFence):
        fencing.write(target.name, "late", fence=1)


@pytest.mark.parametrize("write", [in_python, in_shell])
def test_side_files_are_for_their_owner_and_the_content_keeps_its_mode(target: Path, write: Write) -> None:
    umask = os.umask(0o022)
    try:
        write(target, "one", 1)
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.parent.iterdir()}
    assert modes == {"content": 0o644, "content.fence": 0o600, "content.fence.lock": 0o600}
    if write is in_python:
        target.chmod(0o640)
        write(target, "two", 2)
        assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("fence", [0, -1, True, None, "3", 1.0, 2**63])
def test_what_is_no_fence_is_refused(target: Path, fence: object) -> None:
    with pytest.raises(ConfigError):
        fencing.write(target, "x", fence=fence)  # type: ignore[arg-type]
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"soon\n", b"-5\n", b"1" * 25, b"\xff"])
def test_a_damaged_fence_lets_nobody_through(target: Path, content: bytes) -> None:
    """Guessing would let an old holder in."""
    Path(f"{target}.fence").write_bytes(content)
    with pytest.raises(StoreError, match="holds no fence"):
        fencing.write(target, "x", fence=7)
    assert not target.exists()


def test_what_cannot_be_written_is_told_and_can_be_tried_again(target: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        fencing.write(tmp_path / "no" / "where", "x", fence=1)
    target.mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        fencing.write(target, "x", fence=1)
    target.rmdir()
    fencing.write(target, "x", fence=1)
    assert target.read_text() == "x"


# ---- many at once, and death in between

WRITER = """
from drydock import fencing
from drydock.errors import WrongFence

say("ready")
hear()
for fence in range(int(sys.argv[2]), 60, 6):
    try:
        fencing.write(sys.argv[1], f"{fence}" * 1000, fence=fence)
        say("wrote", fence)
    except WrongFence as refused:
        assert refused.seen > fence
        say("refused", fence)
"""


def test_of_many_at_once_the_largest_fence_has_the_last_word(target: Path) -> None:
    """59 is among them; whoever had a larger one before him is told, and what is there is never a mixture."""
    said = run_together([Child(WRITER, target, start) for start in range(1, 7)])
    assert sum(map(len, said)) == 59
    assert target.read_text() == "59" * 1000
    assert Path(f"{target}.fence").read_text() == "59\n"
    assert not Path(f"{target}.fence.new").exists()


def test_while_one_is_in_its_block_the_others_wait(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are told, before they wait for ever for one that was stopped there."""
    monkeypatch.setattr(fencing, "PATIENCE_SECONDS", 0.05)
    held = "from drydock import fencing\nwith fencing.guard(sys.argv[1], 1):\n    say('in')\n    hear()\n"
    with Child(held, target) as child:
        child.expect("in")
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(StoreBusy):
            fencing.write(target, "x", fence=2)
        assert not target.exists()
        os.kill(child.pid, signal.SIGCONT)
    fencing.write(target, "x", fence=2)  # his lock died with him
    assert target.read_text() == "x"


def test_a_child_of_the_block_does_not_keep_the_others_out(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "PATIENCE_SECONDS", 0.05)
    stay, go = os.pipe()
    with fencing.guard(target, 1):
        child = os.fork()
        if not child:
            os.close(go)
            os.read(stay, 1)
            os._exit(0)
    try:
        fencing.write(target, "x", fence=1)
    finally:
        os.close(go)
        os.waitpid(child, 0)
    assert target.read_text() == "x"


def _die_at(number: int, *, after: bool) -> None:
    """Kill this process at its so-manieth rename."""
    replace, calls = os.replace, count(1)

    def dying(*paths: str) -> None:
        here = next(calls) == number
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying  # type: ignore[assignment]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_rename_never_lets_an_old_holder_in(target: Path, number: int, after: bool) -> None:
    """What is there with the new content is there with the new fence; and the write can be done again."""
    fencing.write(target, "old", fence=5)
    child = os.fork()
    if not child:
        try:
            _die_at(number, after=after)
            fencing.write(target, "new", fence=6)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    content, fence = target.read_text(), Path(f"{target}.fence").read_text()
    assert (content, fence) == [("old", "5\n"), ("old", "6\n"), ("old", "6\n"), ("new", "6\n")][2 * number - 2 + after]
    if content == "new":
        with pytest.raises(WrongFence):
            fencing.write(target, "late", fence=5)
    fencing.write(target, "new", fence=6)
    assert target.read_text() == "new"
    assert sorted(path.name for path in target.parent.iterdir()) == ["content", "content.fence", "content.fence.lock"]


# ---- the whole story


def test_the_late_write_of_a_holder_that_was_stopped_is_refused_each_time() -> None:
    """With real processes that are stopped past their ttl; `scripts/late_writers.py 1000` does it a thousand times."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "late_writers.py"), "20"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = json.loads(ran.stdout)
    assert (told["refused"], told["lost"], told["kept"]) == (20, 20, 20) == (told["rounds"],) * 3


HOLDER = """
import drydock
from drydock.errors import LeaseLost

dock = drydock.connect(sys.argv[1])
lease = dock.lease("host", ttl=0.1)
say(lease.id, lease.fence)
hear()
try:
    lease.verify()
    say("held")
except LeaseLost:
    say("lost")
"""


def test_a_command_that_comes_late_exits_with_4(store_address: str, target: Path, cli: Cli) -> None:
    """Renewing, verifying and releasing with the old fence, and writing by the recipe of the README."""
    with drydock.connect(store_address) as dock:
        dock.apply(LAB)
        with Child(HOLDER, store_address) as holder:
            id, fence = holder.hear().split()
            os.kill(holder.pid, signal.SIGSTOP)
            next_one = dock.lease("host")
            in_shell(target, "mine", next_one.fence)
            os.kill(holder.pid, signal.SIGCONT)
            for verb in ("renew", "verify", "release"):
                done = cli(verb, id, "--fence", fence)
                assert (done.returncode, done.stdout) == (4, "")
                assert f"lease {id} is lost" in done.stderr
            late = shell(target, "late", int(fence))
            assert (late.returncode, late.stderr) == (
                4,
                f"fence {fence} is too old, {target} has seen {next_one.fence}\n",
            )
            holder.tell()
            holder.expect("lost")
        assert target.read_text() == "mine"
        with pytest.raises(LeaseLost):
            dock.renew(int(id), fence=int(fence))
        next_one.verify()
