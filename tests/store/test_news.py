"""Waking the one who waits: no wake-up is lost, nobody else is disturbed, and no socket outlives its process for long."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drydock.store.sqlite import SqliteStore
from drydock.store.wakeups import LONGEST_FOLDER_BYTES
from drydock.testing.children import Child
from drydock.testing.store_contract import OBEY, Obedient, StoreContract, wake


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open(str(path))
    yield store
    store.close()


class Listener(Obedient):
    """A process that listens; `name` is how it is woken."""

    def __init__(self, path: Path) -> None:
        super().__init__(StoreContract.OPEN + OBEY, str(path))


@pytest.fixture
def listener(path: Path) -> Iterator[Listener]:
    with Listener(path) as listener:
        yield listener


def sockets(path: Path) -> list[str]:
    """The names of all that listen, or did and left their socket behind."""
    folder = Path(f"{path}.wake")
    return sorted({file.name for file in folder.iterdir()} - {"turn"}) if folder.is_dir() else []


# ---- what wakes, and whom


def test_several_wake_ups_end_one_wait(store: SqliteStore, listener: Listener) -> None:
    """They say "look", and one look sees all: what is left unread would end waits that nothing happened in."""
    for _ in range(5):
        wake(store, listener.name)
    listener.tell("wait")
    listener.expect("waiting", "woken True")
    listener.tell("wait a moment")
    listener.expect("woken False")


def test_a_stranger_s_datagram_is_a_wake_up_like_any(path: Path, listener: Listener) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for message in (b"", b"x" * 1000, b"!" + b"9" * 5000):  # a number too long to be one
            stranger.sendto(message, f"{path}.wake/{listener.name}")
    listener.tell("wait")
    listener.expect("waiting", "woken True")


# ---- who does not listen, and what the dead leave behind


@pytest.mark.parametrize("name", ["00000000002a", "", "../drydock.db", "x" * 5000, "nul\0"])
def test_waking_nobody_is_no_error_and_leaves_nothing(
    store: SqliteStore, path: Path, listener: Listener, name: str
) -> None:
    """Also not under a name that is none: a damaged row."""
    wake(store, name)
    assert store.events.latest(1)[0].event == "happened"
    assert path.exists()
    assert sockets(path) == [listener.name]


def test_a_process_that_never_waits_has_no_socket(store: SqliteStore, path: Path) -> None:
    wake(store, store.process)
    assert sockets(path) == []


def test_one_who_is_stopped_keeps_nobody_from_going_on(store: SqliteStore, listener: Listener) -> None:
    """He takes no datagram, and a full box must not block the transactions of others. (A thousand would fill any.)"""
    for _ in range(1000):
        store._wake(listener.name)
    wake(store, listener.name)
    listener.tell("wait")
    listener.expect("waiting", "woken True")


def test_the_socket_goes_when_the_store_is_closed(path: Path, listener: Listener) -> None:
    assert sockets(path) == [listener.name]
    listener.tell("close")
    assert listener.process.stdin is not None
    listener.process.stdin.close()
    assert listener.rest() == ["closed"]
    assert sockets(path) == []


def test_what_a_killed_process_leaves_is_removed_by_whoever_wakes_it_next(
    store: SqliteStore, path: Path, listener: Listener
) -> None:
    with Listener(path) as other:
        listener.kill()
        assert sockets(path) == sorted([listener.name, other.name])
        wake(store, listener.name, other.name)
        assert sockets(path) == [other.name]
        other.tell("wait")
        other.expect("waiting", "woken True")


def test_only_the_owner_may_wake(path: Path, listener: Listener) -> None:
    assert Path(f"{path}.wake").stat().st_mode & 0o777 == 0o700


# ---- where sockets are hard to have


def test_the_path_of_the_store_may_be_longer_than_that_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 100] * 3)
    folder.mkdir(parents=True)
    path = folder / "drydock.db"
    assert len(os.fsencode(path)) > 3 * LONGEST_FOLDER_BYTES
    store = SqliteStore.open(str(path))
    with Listener(path) as listener, Listener(path) as killed:
        listener.tell("wait")
        listener.expect("waiting")
        killed.kill()
        wake(store, listener.name, killed.name)
        listener.expect("woken True")
        # Where no descriptor names a folder, it has no socket, and looks.
        assert sockets(path) == ([listener.name] if Path("/proc/self/fd").is_dir() else [])
    store.close()


@pytest.fixture
def socketless(path: Path) -> Iterator[Listener]:
    """A process that listens where no socket can be made: a file has the name of the folder."""
    folder = Path(f"{path}.wake")
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()
    with Listener(path) as child:
        yield child


def test_without_a_socket_whatever_is_committed_ends_the_wait(store: SqliteStore, socketless: Listener) -> None:
    socketless.tell("wait")
    socketless.expect("waiting")
    wake(store, socketless.name)
    socketless.expect("woken True")
    socketless.tell("wait")
    socketless.expect("waiting")
    wake(store)
    socketless.expect("woken True")


def test_without_a_socket_nothing_between_the_look_and_the_wait_is_lost(
    store: SqliteStore, socketless: Listener
) -> None:
    for number in range(3):
        socketless.tell("look")
        socketless.expect(str(number))
        wake(store)
        socketless.tell("wait")
        socketless.expect("waiting", "woken True")


def test_without_a_socket_a_wait_in_which_nothing_happens_ends_when_its_time_is_up(socketless: Listener) -> None:
    socketless.tell("write")
    socketless.expect("written")
    socketless.tell("wait a moment")
    socketless.expect("woken False")


CROWDED = """
import resource
from drydock.store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1])
store.process
if sys.argv[2] == "many":
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    kept = []
    while True:
        try:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
with store.write():
    store.events.add("asked")
    store.listen()
    store.wake("00000000002a")
say(store.process)
say(store.news_fileno() is None)
say("woken", store.wait_for_news(3600.0))
"""


@pytest.mark.parametrize(("files", "silent"), [("all", "True"), ("many", "False")])
def test_a_process_with_too_many_open_files_still_waits_and_wakes(
    store: SqliteStore, path: Path, files: str, silent: str
) -> None:
    """All that it may open, or so many that select() would take no more."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3000:
        pytest.fail("this machine allows too few open files for the test")
    with Child(CROWDED, path, files) as child:
        name = child.hear()
        child.expect(silent)
        wake(store, name)
        assert child.rest() == ["woken True"]


# ---- fork and exec

FORKS = """
import subprocess
from drydock.store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1])
store.listen()
say(store.process)
child = os.fork()
if not child:
    store.close()
    own = SqliteStore.open(sys.argv[1])
    own.listen()
    say(own.process)
    say("child woken", own.wait_for_news(3600.0))
    own.close()
    os._exit(0)
os.waitpid(child, 0)
say("woken", store.wait_for_news(3600.0))
"""


def test_a_forked_child_neither_ends_its_parent_s_listening_nor_hears_for_it(store: SqliteStore, path: Path) -> None:
    with Child(FORKS, path) as child:
        parent, own = child.hear(), child.hear()
        assert sockets(path) == sorted([parent, own])
        wake(store, parent)
        wake(store, own)
        child.expect("child woken True", "woken True")


def test_a_started_command_inherits_no_socket(path: Path) -> None:
    store = SqliteStore.open(str(path))
    store.listen()
    wake(store, "00000000002a")  # now it has one to send with, too
    count = "import os; print([os.path.realpath(f'/dev/fd/{n}') for n in os.listdir('/dev/fd')])"
    told = subprocess.run(
        [sys.executable, "-c", count], close_fds=False, capture_output=True, text=True, check=True
    ).stdout
    store.close()
    assert "socket" not in told
    assert str(path) not in told
