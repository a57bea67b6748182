"""The queue in front of the writers: one at a time, nobody for ever, and nothing left of those who die or give up."""

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until

from drydock.errors import Refused, StoreBusy
from drydock.store import turnstile as module
from drydock.store.turnstile import Bell, Turnstile
from drydock.testing.children import SECONDS, Child, run_together

#: who is not woken does not look by himself either, or only after a test has failed
ONLY_WOKEN = """
from drydock.store import turnstile as module
module.LOOK_EVERY_SECONDS = 600.0
"""

HOLD = """
from drydock.store.turnstile import Turnstile
turnstile = Turnstile(sys.argv[1])
turnstile.enter(60.0)
say("in")
hear()
turnstile.leave()
say("out")
hear()
"""

COUNT = """
from drydock.store.turnstile import Turnstile
turnstile = Turnstile(sys.argv[1])
say("ready")
hear()
for _ in range(int(sys.argv[3])):
    turnstile.enter(60.0)
    with open(sys.argv[2]) as file:
        lines = file.read()
    with open(sys.argv[2], "w") as file:
        file.write(lines + sys.argv[4])
    turnstile.leave()
"""

INTERRUPTED = """
from drydock.store.turnstile import Turnstile
turnstile = Turnstile(sys.argv[1])
say("ready")
try:
    turnstile.enter(60.0)
except KeyboardInterrupt:
    say("interrupted")
hear()
turnstile.enter(60.0)
say("in")
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "drydock.db"


@pytest.fixture
def turnstile(store: Path) -> Iterator[Turnstile]:
    turnstile = Turnstile(str(store))
    yield turnstile
    turnstile.close()


def wait_until_queueing(pid: int) -> None:
    """Return when process `pid` listens for the bell."""
    until(lambda: any("tfd:" in told for told in descriptors_of(pid)))


def descriptors_of(pid: int) -> Iterator[str]:
    """What the kernel tells of each descriptor of a process."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield path.read_text()


def test_processes_pass_one_at_a_time(store: Path, tmp_path: Path) -> None:
    """Each reads a file and writes it back with a letter more; with two inside at once a letter would be lost."""
    letters = tmp_path / "letters"
    letters.write_text("")
    children = [Child(COUNT, store, letters, 100, letter) for letter in "abcd"]
    assert run_together(children) == [[], [], [], []]
    assert sorted(letters.read_text()) == sorted("abcd" * 100)


@pytest.mark.parametrize("how", ["leave", "close"])
def test_everybody_who_queues_has_a_turn_as_soon_as_the_holder_leaves(store: Path, how: str) -> None:
    code = ONLY_WOKEN + HOLD.replace("leave", how)
    with Child(code, store) as holder:
        holder.expect("in")
        waiting = [Child(code, store) for _ in range(3)]
        try:
            for child in waiting:
                wait_until_queueing(child.pid)
            holder.tell()
            for child in waiting:  # each lets in the next, in whichever order they came
                child.tell()
            for child in waiting:
                child.expect("in", "out")
        finally:
            for child in waiting:
                child.kill()


def test_who_loses_patience_holds_nothing_and_can_go_on(turnstile: Turnstile, store: Path) -> None:
    with Child(HOLD, store) as holder:
        holder.expect("in")
        for _ in range(2):
            with pytest.raises(StoreBusy) as busy:
                turnstile.enter(0.01)
        assert busy.value.waited_seconds >= 0.01
        assert str(store) in str(busy.value)
        holder.tell()
        holder.expect("out")
        turnstile.enter(60.0)
        with pytest.raises(StoreBusy):
            Turnstile(str(store)).enter(0.01)
        turnstile.leave()


def test_interrupted_while_queueing_it_can_be_entered_again(store: Path) -> None:
    with Child(HOLD, store) as holder:
        holder.expect("in")
        with Child(INTERRUPTED, store) as child:
            child.expect("ready")
            wait_until_queueing(child.pid)
            child.process.send_signal(2)
            child.expect("interrupted")
            holder.tell()
            holder.expect("out")
            child.tell()
            child.expect("in")


def test_a_holder_that_is_killed_lets_the_next_in(store: Path) -> None:
    with Child(HOLD, store) as holder:
        holder.expect("in")
        with Child(HOLD, store) as waiting:
            wait_until_queueing(waiting.pid)
            holder.kill()
            waiting.expect("in")


def test_a_command_that_the_holder_started_does_not_hold_on(store: Path) -> None:
    code = HOLD.replace(
        'say("in")', 'import subprocess\nsleeper = subprocess.Popen(["sleep", "600"])\nsay(sleeper.pid)'
    )
    with Child(code, store) as holder:
        sleeper = int(holder.hear())
        holder.kill()
        turnstile = Turnstile(str(store))
        turnstile.enter(60.0)
        turnstile.close()
        os.kill(sleeper, 9)


def test_two_of_one_process_shut_each_other_out(turnstile: Turnstile, store: Path) -> None:
    """Two connections of one process, in two threads, queue like two processes."""
    other = Turnstile(str(store))
    turnstile.enter(0.0)
    with pytest.raises(StoreBusy):
        other.enter(0.01)
    turnstile.leave()
    other.enter(0.0)
    other.close()
    turnstile.enter(0.0)


def test_the_lock_file_is_made_for_its_owner_alone_and_no_link_is_followed(store: Path, tmp_path: Path) -> None:
    Turnstile(str(store)).close()
    lock = Path(f"{store}.lock")
    assert lock.stat().st_mode & 0o7777 == 0o600
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="cannot open") as error:
        Turnstile(str(store))
    assert not isinstance(error.value, Refused)
    assert not (tmp_path / "victim").exists()


# ---- the bell


class Listener(threading.Thread):
    """Listens once, and says so."""

    def __init__(self, bell: Bell, heard: list["Listener"]) -> None:
        super().__init__(daemon=True)
        self.bell, self.heard = bell, heard
        self.listens, self.woken = threading.Event(), threading.Event()
        self.start()
        assert self.listens.wait(SECONDS)
        # Who listens and does not sleep yet is passed over. Where the kernel does not tell, he has a second for it.
        patience = time.monotonic() + 1
        while not self.sleeps() and time.monotonic() < patience:
            time.sleep(0.005)

    def sleeps(self) -> bool:
        with contextlib.suppress(OSError):
            return "poll" in Path(f"/proc/self/task/{self.native_id}/wchan").read_text()
        return False

    def run(self) -> None:
        self.bell.listen()
        self.listens.set()
        self.bell.wait(SECONDS)
        self.heard.append(self)
        self.woken.set()


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    bell = Bell(str(tmp_path / "wake"))
    yield bell
    bell.close()


def test_it_wakes_one_of_those_who_listen_and_first_the_one_who_has_listened_longest(
    bell: Bell, tmp_path: Path
) -> None:
    heard: list[Listener] = []
    listeners = [Listener(Bell(str(tmp_path / "wake")), heard) for _ in range(4)]
    for number, listener in enumerate(listeners, 1):
        bell.ring()
        assert listener.woken.wait(SECONDS)
        assert heard == listeners[:number]
    for listener in listeners:
        listener.bell.close()


def test_who_was_woken_and_listens_again_comes_after_all_who_listen(bell: Bell, tmp_path: Path) -> None:
    heard: list[Listener] = []
    first, second = (Listener(Bell(str(tmp_path / "wake")), heard) for _ in range(2))
    bell.ring()
    assert first.woken.wait(SECONDS)
    again = Listener(first.bell, heard)
    for listener in (second, again):
        bell.ring()
        assert listener.woken.wait(SECONDS)
    assert heard == [first, second, again]
    for listener in (first, second):
        listener.bell.close()


def test_a_ring_that_nobody_heard_is_heard_by_the_next_who_listens(bell: Bell) -> None:
    for _ in range(70_000):  # more than the pipe holds
        bell.ring()
    begun = time.monotonic()
    bell.listen()
    bell.wait(SECONDS)
    assert time.monotonic() - begun < SECONDS
    bell.listen()
    bell.wait(0.01)  # all of them at once
    assert time.monotonic() - begun >= 0.01


def no_pipe(store: Path, _: pytest.MonkeyPatch) -> None:
    Path(f"{store}.wake").mkdir()
    Path(f"{store}.wake", "turn").write_text("no pipe")


def no_folder(store: Path, _: pytest.MonkeyPatch) -> None:
    Path(f"{store}.wake").write_text("no folder")


def no_epoll(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")


def no_descriptor(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(select, "epoll", refuse)


@pytest.mark.parametrize("spoil", [no_pipe, no_folder, no_epoll, no_descriptor])
def test_where_there_is_no_such_bell_they_pass_all_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    assert callable(spoil)
    spoil(store, monkeypatch)
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", SECONDS)
    with Child(HOLD, store) as holder:
        holder.expect("in")
        turnstile = Turnstile(str(store))
        with pytest.raises(StoreBusy):
            turnstile.enter(0.01)
        passing = threading.Timer(0.01, holder.tell)
        passing.start()
        turnstile.enter(60.0)
        passing.join()
        turnstile.close()
