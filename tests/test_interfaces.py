"""Commands and files on a thing, here and over a real ssh server: they arrive as they are, and nothing else happens."""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import until

from drydock.errors import CommandFailed, ConfigError, StoreError, Unreachable
from drydock.interfaces import (
    PUT,
    Interface,
    Local,
    Ssh,
    check_interface,
    command_line,
    get_file,
    put_file,
    run,
    run_on,
)
from drydock.testing.sshd import Sshd

HOSTILE = [
    "", " ", "a b", "'", '"', "'\"'\"'", "\\", "\\n", "a\\", "$(touch boo)", "`touch boo`", "$HOME", "~", "*", "?", "!x", "%s", "%",
    "\n", "a\nb\n", "\t", ";touch boo", "&", "|", "<", ">", "#", "-e", "--", "-rf", "é", "\udcff", "\udcc3(x\udcff\n", "\x01\x7f",
    "x=y", "{a,b}", "\r",
]  # fmt: skip
NAMES = [
    "plain", "-rf", "a b", "line\nbreak", "\n", "qu'o\"te", "$(touch boo)", "`touch boo`", "*", "~", "é", "\udcff\udcfe", "\\", "%s",
    ";touch boo", "--help",
]  # fmt: skip
TELL_WORDS = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
#: is there for good, which others can see; `argv[1:]` are the signals that do not impress it
STAY = """
import fcntl, pathlib, signal, sys, time
for number in sys.argv[1:]:
    signal.signal(int(number), signal.SIG_IGN)
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
pathlib.Path("ready").touch()
time.sleep(1000)
"""


@pytest.fixture(params=["local", "ssh"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Interface:
    """A folder, on this machine and on a host, which is this machine as well."""
    folder = tmp_path / "there"
    folder.mkdir()
    if request.param == "local":
        return Local(str(folder))
    sshd: Sshd = request.getfixturevalue("sshd")
    return sshd.interface(str(folder))


@pytest.fixture
def own_sshd() -> Iterator[Sshd]:
    """A server that only this test has."""
    with Sshd() as server:
        yield server


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def names(folder: str | Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in Path(folder).iterdir())


def came(there: Interface) -> bool:
    """Whether `STAY` is there, or was."""
    return Path(there.folder, "ready").exists()


def is_gone(there: Interface) -> bool:
    """Whether `STAY` is not there any more."""
    with Path(there.folder, "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# ---- commands


def test_every_word_arrives_as_it_is_and_nothing_else_happens(there: Interface) -> None:
    told = run_on(there, python(TELL_WORDS, *HOSTILE))
    assert told.split(b"\0") == [os.fsencode(word) for word in HOSTILE]
    assert names(there.folder) == []


@pytest.mark.parametrize("word", ["plain", "a b", "-x y", "$(touch boo)", "new\nline", "'", "\udcff", "x=y"])
def test_also_a_programs_own_name_is_a_word(there: Interface, word: str) -> None:
    program = Path(there.folder, word)
    program.write_text("#!/bin/sh\necho it ran")
    program.chmod(0o700)
    assert run_on(there, [f"./{word}"]) == b"it ran\n"
    assert names(there.folder) == [word]


def test_a_shells_own_commands_are_programs_like_any_other(there: Interface) -> None:
    """`echo` of dash would make a line break of it."""
    assert run_on(there, ["echo", r"a\tb"]) == b"a\\tb\n"


@pytest.mark.parametrize("code", [0, 1, 2, 5, 100, 124, 126, 127, 128, 130, 137, 254, 255])
def test_the_exit_code_is_the_commands(there: Interface, code: int) -> None:
    assert run(there, ["sh", "-c", f"exit {code}"]).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_a_signal_ended_has_the_code_that_a_shell_gives_it(there: Interface, number: int) -> None:
    assert run(there, ["sh", "-c", f"kill -{int(number)} $$"], stderr=subprocess.DEVNULL).code == 128 + number


def test_ten_megabytes_go_there_and_back_and_are_the_same(there: Interface) -> None:
    data = bytes(range(256)) * 40_000 + b"%s%%\r\n~."
    assert run_on(there, ["cat"], input=data) == data


def test_both_outputs_stay_apart_and_stdin_is_empty(there: Interface) -> None:
    code = "import sys; print(len(sys.stdin.read())); print('%d\\r\\n~.', file=sys.stderr)"
    done = run(
        there, python(code), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    assert done == (0, b"0\n", b"%d\r\n~.\n")
    assert run_on(there, ["cat"]) == b""


def test_a_command_begins_in_the_folder_of_the_interface(there: Interface) -> None:
    assert run_on(there, ["/bin/pwd"]).decode() == os.path.realpath(there.folder) + "\n"
    away = there._replace(folder=f"{there.folder}/not\n$(touch boo)")
    with pytest.raises(CommandFailed) as told:
        run_on(away, ["touch", "boo"])
    assert told.value.code == 126
    assert names(there.folder) == []


def test_what_failed_is_told_with_the_end_of_what_it_said_and_not_with_its_arguments(there: Interface) -> None:
    with pytest.raises(CommandFailed) as told:
        run_on(there, ["sh", "-c", "echo secret >/dev/null; seq 100 >&2; echo out of luck >&2; exit 9"])
    assert (told.value.code, told.value.command) == (9, "sh")
    sentence = str(told.value)
    assert "(exit code 9)" in sentence
    assert sentence.endswith("out of luck")
    assert "secret" not in sentence
    assert len(sentence) < 700


def test_there_is_no_such_command(there: Interface) -> None:
    with pytest.raises(CommandFailed) as told:
        run_on(there, ["no-such-command-at-all"])
    assert told.value.code == 127


@pytest.mark.parametrize(
    "argv", [[], ["-c"], ["-oProxyCommand=touch boo"], "ls -l", b"ls", ["a\0b"], ["ls", "\0"], ["ls", "\ud800"]]
)
def test_what_is_no_command_is_refused(there: Interface, argv: Any) -> None:
    with pytest.raises(ConfigError):
        run_on(there, argv)


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(there: Interface) -> None:
    with pytest.raises(CommandFailed, match="took longer than 1s"):
        run_on(there, ["sh", "-c", '"$@" & wait', "sh", *python(STAY)], seconds=1)
    until(lambda: is_gone(there))


def test_what_is_raised_meanwhile_ends_the_command(there: Interface) -> None:
    class Enough(Exception):
        pass

    def meanwhile() -> None:
        if came(there):
            raise Enough

    with pytest.raises(Enough):
        run(there, python(STAY), stdin=subprocess.DEVNULL, meanwhile=meanwhile)
    until(lambda: is_gone(there))


@pytest.mark.parametrize("deaf_to", [[], [signal.SIGHUP, signal.SIGTERM]], ids=["hears", "deaf"])
def test_a_command_on_a_host_ends_when_its_ssh_was_killed(sshd: Sshd, tmp_path: Path, deaf_to: list[int]) -> None:
    """sshd itself would let it go on for ever."""
    there = sshd.interface(str(tmp_path))
    ssh = subprocess.Popen(
        command_line(there, python(STAY, *(str(int(number)) for number in deaf_to))), stdin=subprocess.PIPE
    )
    until(lambda: came(there))
    ssh.kill()
    ssh.communicate()
    until(lambda: is_gone(there))


def group_of(pid: int) -> set[int]:
    """The living processes of the group that `pid` leads or led."""
    rows = []
    if Path("/proc/self/stat").exists():  # where there may be no ps
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                status, _, group = file.read_text().rpartition(")")[2].split()[:3]
                rows.append((int(file.parent.name), int(group), status))
    else:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
        rows = [(int(one), int(group), status) for one, group, status in map(str.split, listed.stdout.splitlines())]
    return {one for one, group, status in rows if group == pid and not status.startswith("Z")}


def test_what_a_command_leaves_running_on_a_host_goes_on_and_nothing_of_ours_does(sshd: Sshd, tmp_path: Path) -> None:
    """As ssh has it."""
    there = sshd.interface(str(tmp_path))
    code = '"$@" < /dev/null > /dev/null 2>&1 & echo $!'
    left = int(run_on(there, ["sh", "-c", code, "sh", *python(STAY)]))
    group = os.getpgid(left)
    try:
        until(lambda: group_of(group) <= {left})
        until(lambda: came(there))
        assert not is_gone(there)
    finally:
        os.kill(left, signal.SIGKILL)


# ---- hosts


def test_a_host_whose_key_is_not_known_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    nobody = tmp_path / "known hosts"
    nobody.touch()
    with pytest.raises(Unreachable, match=r"host key is known .* Host key verification failed"):
        run_on(sshd.interface()._replace(known_hosts=str(nobody)), ["touch", str(tmp_path / "boo")])
    assert nobody.read_bytes() == b"", "nor is it known from now on"
    assert not (tmp_path / "boo").exists()


def test_a_host_whose_key_has_changed_is_refused(own_sshd: Sshd, tmp_path: Path) -> None:
    there = own_sshd.interface()
    assert run_on(there, ["echo", "before"]) == b"before\n"
    own_sshd.change_host_key()
    with pytest.raises(Unreachable, match=r"has changed .* Host key verification failed"):
        run_on(there, ["touch", str(tmp_path / "boo")])
    assert not (tmp_path / "boo").exists()
    own_sshd.trust()
    assert run_on(there, ["echo", "after"]) == b"after\n"


def test_a_file_of_known_hosts_may_have_a_space_in_its_name(sshd: Sshd, tmp_path: Path) -> None:
    known, key = tmp_path / "known hosts", tmp_path / "our key"
    shutil.copy(sshd.known_hosts, known)
    shutil.copy(sshd.identity_file, key)
    assert run_on(sshd.interface()._replace(known_hosts=str(known), identity_file=str(key)), ["echo", "hi"]) == b"hi\n"


@pytest.mark.parametrize(
    ("elsewhere", "sentence"),
    [
        ({"port": 1}, "Connection refused"),
        ({"identity_file": "/nowhere/key"}, "Permission denied"),
        ({"user": "nobody-of-that-name"}, "Permission denied"),
    ],
)
def test_that_there_is_no_way_is_told_from_a_command_that_failed(
    sshd: Sshd, elsewhere: dict[str, Any], sentence: str
) -> None:
    there = sshd.interface()._replace(**elsewhere)
    with pytest.raises(Unreachable, match=sentence) as told:
        run_on(there, ["true"])
    assert told.value.address == sshd.address
    assert "\n" not in str(told.value)


def test_who_has_no_ssh_client_is_told_so(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="there is no ssh client"):
        run_on(sshd.interface(), ["true"])
    with pytest.raises(StoreError, match="install the package openssh-client"):
        Sshd()


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, asker = tmp_path / "key", tmp_path / "asker"
    shutil.copy(sshd.identity_file, key)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", key], check=True, capture_output=True
    )
    asker.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho a passphrase\n")
    asker.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(asker))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(Unreachable, match="Permission denied"):
        run_on(sshd.interface()._replace(identity_file=str(key)), ["true"])
    assert not (tmp_path / "asked").exists()


WRONG: Any = 7
NOT_MEANT: list[Any] = [
    None, "h1", ("h1", 22), Local("there"), Local("a\0b"), Local("/a\0b"), Local()._replace(folder=WRONG),
    Ssh(""), Ssh("-oProxyCommand=touch boo"), Ssh("-h"), Ssh("a b"), Ssh("a\nb"), Ssh("u@h"), Ssh("ssh://h"), Ssh("h\0"),
    Ssh("höst"), Ssh("x" * 254), Ssh("")._replace(address=WRONG), Ssh("h", 0), Ssh("h", 65_536), Ssh("h", True),
    Ssh("h")._replace(port=WRONG / 2), Ssh("h", user="-oProxyCommand=touch boo"), Ssh("h", user="a b"), Ssh("h", user="a;b"),
    Ssh("h")._replace(user=WRONG), Ssh("h", folder="there"), Ssh("h", folder="-"), Ssh("h", folder="/a\0"),
    Ssh("h", identity_file="key"), Ssh("h", identity_file="/a\nProxyCommand touch boo"), Ssh("h", identity_file='/a"'),
    Ssh("h", known_hosts="/%h"), Ssh("h", known_hosts="/${HOME}"), Ssh("h", known_hosts="~/x"), Ssh("h", known_hosts="/a\\b"),
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_MEANT, ids=repr)
def test_an_interface_that_cannot_be_meant_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        check_interface(value)
    if isinstance(value, Local | Ssh):
        with pytest.raises(ConfigError):
            run_on(value, ["true"])


@pytest.mark.parametrize("address", ["10.0.0.1", "::1", "fe80::1", "a-b.example.org", "under_score", "H1"])
def test_common_addresses_are_accepted_and_stand_where_no_option_is_read(address: str) -> None:
    line = command_line(Ssh(address, 2222, "ci", "/srv"), ["ls"])
    assert line[line.index("--") + 1] == address
    assert line.index("--") == len(line) - 3


# ---- files


@pytest.mark.parametrize("name", NAMES)
def test_a_file_goes_there_and_back_whatever_its_name(there: Interface, tmp_path: Path, name: str) -> None:
    data = os.urandom(1000) + b"%s\r\n\0~.\n"
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(data)
    source.chmod(0o640)
    put_file(there, source, name)
    assert names(there.folder) == [name]
    assert Path(there.folder, name).read_bytes() == data
    assert stat.S_IMODE(Path(there.folder, name).stat().st_mode) == 0o640
    get_file(there, name, back)
    assert back.read_bytes() == data
    assert stat.S_IMODE(back.stat().st_mode) == 0o640
    assert names(tmp_path) == ["back", "source", "there"]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
@pytest.mark.parametrize("mode", [0o600, 0o755, 0o4711])
def test_a_file_keeps_its_size_and_its_permissions_but_makes_nobody_somebody_else(
    there: Interface, tmp_path: Path, size: int, mode: int
) -> None:
    source, back, far = tmp_path / "source", tmp_path / "back", Path(there.folder, "far")
    source.write_bytes(os.urandom(size))
    source.chmod(mode)
    put_file(there, source, str(far))
    assert stat.S_IMODE(far.stat().st_mode) == mode & 0o777
    far.chmod(mode)
    get_file(there, far, back)
    assert stat.S_IMODE(back.stat().st_mode) == mode & 0o777
    assert back.read_bytes() == source.read_bytes()


def test_what_is_there_is_replaced_and_not_written_into(there: Interface, tmp_path: Path) -> None:
    """Who reads the old one goes on reading it, and where a link was, its target stays what it is."""
    source, target, old, link = tmp_path / "source", Path(there.folder, "x"), tmp_path / "old", Path(there.folder, "l")
    source.write_text("new")
    target.write_text("old")
    old.write_text("untouched")
    link.symlink_to(old)
    with target.open() as reader:
        put_file(there, source, "x")
        assert reader.read() == "old"
    put_file(there, source, "l")
    assert (target.read_text(), link.read_text(), old.read_text()) == ("new", "new", "untouched")
    with source.open() as reader:
        Path(there.folder, "x").write_text("newer")
        get_file(there, "x", source)
        assert (reader.read(), source.read_text()) == ("new", "newer")


def test_a_file_that_was_cut_off_is_never_put_into_its_place(there: Interface) -> None:
    """The other end sees the end of its input, as it would at the end of a file."""
    target = Path(there.folder, "x")
    target.write_text("old")
    done = run(
        there, ["/bin/sh", "-c", PUT, "sh", "./new", "./x", "600", "10"], input=b"only nine", stderr=subprocess.PIPE
    )
    assert done.code != 0
    assert b"cut off" in done.err
    assert names(there.folder) == ["x"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("name", ["", "folder", "folder/", "no/such/folder", "a\0b"])
def test_a_file_that_cannot_be_put_there_leaves_nothing_behind(there: Interface, tmp_path: Path, name: str) -> None:
    (Path(there.folder) / "folder").mkdir()
    source = tmp_path / "source"
    source.write_text("data")
    with pytest.raises((CommandFailed, ConfigError)):
        put_file(there, source, name)
    assert [sub.name for sub in Path(there.folder).rglob("*")] == ["folder"]


@pytest.mark.parametrize("name", ["", "folder", "pipe", "missing", "link"])
def test_what_is_no_file_there_is_not_fetched_and_what_is_here_stays(
    there: Interface, tmp_path: Path, name: str
) -> None:
    folder, back = Path(there.folder), tmp_path / "back"
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("missing")
    back.write_text("old")
    with pytest.raises((CommandFailed, ConfigError)):
        get_file(there, name, back)
    assert back.read_text() == "old"
    assert names(tmp_path) == ["back", "there"]


def test_what_is_no_file_here_is_not_sent(there: Interface, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        put_file(there, tmp_path / "pipe", "x")
    with pytest.raises(FileNotFoundError):
        put_file(there, tmp_path / "missing", "x")
    with pytest.raises(IsADirectoryError):
        get_file(there, "x", tmp_path)
    assert names(there.folder) == []
