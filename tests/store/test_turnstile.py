"""The queue in front of the writers: one at a time, nobody for ever, and nothing left of those who die or give up."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drydock.errors import Refused, StoreBusy
from drydock.store.turnstile import Turnstile
from drydock.testing.children import SECONDS, Child, run_together

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
def lock(tmp_path: Path) -> Path:
    return tmp_path / "drydock.db.lock"


@pytest.fixture
def turnstile(lock: Path) -> Iterator[Turnstile]:
    turnstile = Turnstile(str(lock))
    yield turnstile
    turnstile.close()


def wait_until_queueing(pid: int, number: int = 1) -> None:
    """Return when so many threads of process `pid` stand in a kernel queue for a file lock."""
    deadline = time.monotonic() + SECONDS
    while True:
        waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        if sum(line.split()[5] == str(pid) for line in waiting) >= number:
            return
        assert time.monotonic() < deadline, waiting
        time.sleep(0.001)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def threads() -> set[Path]:
    """The threads of this process, whoever made them."""
    return set(Path("/proc/self/task").iterdir())


def descriptors(lock: Path) -> int:
    """How many descriptors of the lock file this process has."""
    return sum(os.path.realpath(fd) == str(lock) for fd in Path("/proc/self/fd").iterdir())


def test_processes_pass_one_at_a_time(lock: Path, tmp_path: Path) -> None:
    """Each reads a file and writes it back with a letter more; with two inside at once a letter would be lost."""
    letters = tmp_path / "letters"
    letters.write_text("")
    children = [Child(COUNT, lock, letters, 100, letter) for letter in "abcd"]
    assert run_together(children) == [[], [], [], []]
    assert sorted(letters.read_text()) == sorted("abcd" * 100)


def test_everybody_who_queues_has_a_turn_as_soon_as_the_holder_leaves(lock: Path) -> None:
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        waiting = [Child(HOLD, lock) for _ in range(3)]
        try:
            for child in waiting:
                wait_until_queueing(child.pid)
            holder.tell()
            for child in waiting:  # each lets in the next, in whichever order the kernel likes
                child.tell()
            for child in waiting:
                child.expect("in", "out")
        finally:
            for child in waiting:
                child.kill()


def test_who_loses_patience_holds_nothing_and_can_go_on(turnstile: Turnstile, lock: Path) -> None:
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        for _ in range(2):
            with pytest.raises(StoreBusy) as busy:
                turnstile.enter(0.01)
        assert busy.value.waited_seconds >= 0.01
        assert str(lock).removesuffix(".lock") in str(busy.value)
        holder.tell()
        holder.expect("out")
        turnstile.enter(60.0)
        with pytest.raises(StoreBusy):
            Turnstile(str(lock)).enter(0.01)
        turnstile.leave()


def test_a_turn_that_comes_too_late_is_given_away(turnstile: Turnstile, lock: Path) -> None:
    """The threads that were left standing in the kernel's queue close their descriptors when they come to its head."""
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        for _ in range(3):
            with pytest.raises(StoreBusy):
                turnstile.enter(0.001)
        wait_until_queueing(os.getpid(), 3)
        assert descriptors(lock) == 4
        holder.tell()
        holder.expect("out")
    with Child(HOLD, lock) as next_one:
        next_one.expect("in")
        deadline = time.monotonic() + SECONDS
        while descriptors(lock) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def pass_after_another(turnstile: Turnstile, lock: Path) -> None:
    """Enter and leave, having had to queue."""
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        passing = threading.Thread(target=lambda: (wait_until_queueing(os.getpid()), holder.tell()))
        passing.start()
        turnstile.enter(60.0)
        passing.join()
        turnstile.leave()


def test_who_queues_again_is_stood_for_by_the_same_thread(
    turnstile: Turnstile, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drydock.store.turnstile.STAYS_SECONDS", 60.0)
    before, stood = threads(), set()
    for _ in range(3):
        pass_after_another(turnstile, lock)
        wait_for(lambda: len(threads() - before) == 1)
        stood |= threads() - before
    assert len(stood) == 1


def test_a_thread_that_stood_in_the_queue_leaves_and_another_comes_when_one_is_needed(
    turnstile: Turnstile, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drydock.store.turnstile.STAYS_SECONDS", 0.001)
    before = threads()
    for _ in range(3):
        pass_after_another(turnstile, lock)
        wait_for(lambda: threads() <= before)


def test_interrupted_while_queueing_it_can_be_entered_again(lock: Path) -> None:
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        with Child(INTERRUPTED, lock) as child:
            child.expect("ready")
            wait_until_queueing(child.pid)
            child.process.send_signal(2)
            child.expect("interrupted")
            holder.tell()
            holder.expect("out")
            child.tell()
            child.expect("in")


def test_a_holder_that_is_killed_lets_the_next_in(lock: Path) -> None:
    with Child(HOLD, lock) as holder:
        holder.expect("in")
        with Child(HOLD, lock) as waiting:
            wait_until_queueing(waiting.pid)
            holder.kill()
            waiting.expect("in")


def test_a_command_that_the_holder_started_does_not_hold_on(lock: Path) -> None:
    code = HOLD.replace(
        'say("in")', 'import subprocess\nsleeper = subprocess.Popen(["sleep", "600"])\nsay(sleeper.pid)'
    )
    with Child(code, lock) as holder:
        sleeper = int(holder.hear())
        holder.kill()
        turnstile = Turnstile(str(lock))
        turnstile.enter(60.0)
        turnstile.close()
        os.kill(sleeper, 9)


def test_two_of_one_process_shut_each_other_out(turnstile: Turnstile, lock: Path) -> None:
    """Two connections of one process, in two threads, queue like two processes."""
    other = Turnstile(str(lock))
    turnstile.enter(0.0)
    with pytest.raises(StoreBusy):
        other.enter(0.01)
    turnstile.leave()
    other.enter(0.0)
    other.close()
    turnstile.enter(0.0)


def test_the_lock_file_is_made_for_its_owner_alone_and_no_link_is_followed(lock: Path, tmp_path: Path) -> None:
    Turnstile(str(lock)).close()
    assert lock.stat().st_mode & 0o7777 == 0o600
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="cannot open") as error:
        Turnstile(str(lock))
    assert not isinstance(error.value, Refused)
    assert not (tmp_path / "victim").exists()
