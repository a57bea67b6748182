"""Real processes that are killed, interrupted or told to end: S45 S66 S78 S80 S103."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drydock.engine import Engine
from drydock.model import LeaseStatus, ResourceStatus
from drydock.store import presence

from .stage import Gate, Stage, on

TESTS = Path(__file__).parents[1]


@contextmanager
def standing_in(pipe: Path) -> Iterator[None]:
    """While this lasts a hook stands at the pipe; afterwards nobody stops there any more."""
    with pipe.open("w"):  # returns when the hook has opened it
        yield
        pipe.unlink()
        pipe.touch()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize(
    "verb",
    ["lease", "lease and reclaim", "release", "release-resource", "reclaim", "expiry", "death", "lifetime"],
)
def test_a_crash_at_any_commit_is_put_right_by_the_next_command(store_address: str, verb: str) -> None:
    """S45, S103: before a commit nothing of it is there, after it somebody goes on; no slot lock is left behind."""
    told = subprocess.run(
        [sys.executable, "-m", "behaviours.crash_points", store_address, verb],
        cwd=TESTS, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    crashes = [json.loads(line) for line in told.stdout.splitlines()]
    assert [crash for crash in crashes if crash["broken"]] == []
    assert [crash["crashed"] for crash in crashes].count(False) == 2  # both sides were tried to the end
    assert len(crashes) >= 8
    for crash in crashes:
        if not crash["crashed"]:
            assert crash["held"] == (["active"] if verb.startswith("lease") else [])


def test_killed_between_the_resource_and_its_activation(open_air: Stage, pipe: Path) -> None:
    """S103 (a): the request is dropped, and what was being built for it is torn down."""
    open_air.offer(hoax={"limit": 1, "pipes": {"activate": str(pipe)}})
    victim = open_air.cli.start("lease", "--type", "hoax")
    with standing_in(pipe):
        assert open_air.resource(1).status is ResourceStatus.PENDING
        victim.kill()
        victim.communicate()
    [held] = open_air.cli("lease", "--type", "hoax", "--no-wait", "--json").objects
    assert (held["id"], held["resource"]["id"]) == (2, 2)
    assert open_air.lease_status(1) is LeaseStatus.DESTROYED
    assert open_air.resource(1).status is ResourceStatus.DESTROYED


def test_killed_between_the_grant_and_the_activation_of_the_lease(open_air: Stage, pipe: Path) -> None:
    """S103 (b): the lease ends with its requester, is cleaned up after, and its resource serves the next."""
    open_air.offer(hoax={"limit": 1, "pipes": {"activate_lease": str(pipe)}})
    victim = open_air.cli.start("lease", "--type", "hoax")
    with standing_in(pipe):
        assert open_air.lease_status(1) is LeaseStatus.ACQUIRED
        victim.kill()
        victim.communicate()
    [held] = open_air.cli("lease", "--type", "hoax", "--no-wait", "--json").objects
    assert (held["id"], held["resource"]["id"]) == (2, 1)
    assert open_air.lease_status(1) is LeaseStatus.DESTROYED


@pytest.mark.parametrize("hook", ["destroy_lease", "destroy"])
def test_killed_between_released_and_destroyed(open_air: Stage, pipe: Path, hook: str) -> None:
    """S103 (c): the next command, whatever it is, runs the hook again and finishes it."""
    open_air.offer(hoax={"limit": 1, "pipes": {hook: str(pipe)}})
    open_air.lease()
    victim = open_air.cli.start("release-resource", "1")
    with standing_in(pipe):
        assert open_air.resource(1).status is ResourceStatus.RELEASED
        assert "hoax(hoax.plain.0)" in open_air.locks()
        victim.kill()
        victim.communicate()
    [held] = open_air.cli("lease", "--type", "hoax", "--no-wait", "--json").objects
    assert held["resource"]["id"] == 2
    assert open_air.resource(1).status is ResourceStatus.DESTROYED


def test_a_living_process_in_a_hook_is_left_alone(open_air: Stage, pipe: Path, tmp_path: Path) -> None:
    """S66, S103: even one that was stopped; only death gives its work to another."""
    log = tmp_path / "log"
    open_air.offer(hoax={"limit": 1, "pipes": {"destroy_lease": str(pipe)}, "log": str(log)})
    open_air.lease()
    worker = open_air.cli.start("release", "1")
    with standing_in(pipe):
        worker.send_signal(signal.SIGSTOP)
        others = [open_air.cli.start("release", "1") for _ in range(4)]
        assert [other.wait(60) for other in others] == [0] * 4
        for other in others:
            assert "released already" in other.communicate()[1]
        assert open_air.lease_status(1) is LeaseStatus.RELEASED
        worker.send_signal(signal.SIGCONT)
    assert worker.wait(60) == 0
    worker.communicate()
    assert open_air.lease_status(1) is LeaseStatus.DESTROYED
    assert log.read_text().count("enter destroy_lease lease:1") == 1


def test_of_many_commands_that_release_one_lease_one_does_it(open_air: Stage, tmp_path: Path) -> None:
    """S66 with real processes."""
    log = tmp_path / "log"
    open_air.offer(hoax={"log": str(log)})
    open_air.lease()
    commands = [open_air.cli.start("release", "1") for _ in range(6)]
    told = [command.communicate(timeout=60)[0] for command in commands]
    assert [command.returncode for command in commands] == [0] * 6
    assert sorted(told) == [""] * 5 + ["lease 1: released hoax.plain.0\n"]
    assert log.read_text().count("enter destroy_lease lease:1") == 1
    assert len(open_air.events("lease.released")) == len(open_air.events("lease.destroyed")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_waiting_request_that_is_interrupted_leaves_nothing(open_air: Stage, number: signal.Signals) -> None:
    """S78: and says so with 128 plus the signal."""
    open_air.offer(hoax={"limit": 1})
    open_air.lease()
    waiting = open_air.cli.start("lease", "--type", "hoax", "--count", "1")
    open_air.pending()
    waiting.send_signal(number)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (128 + number, "")
    assert "Traceback" not in err
    assert open_air.lease_status(2) is LeaseStatus.DESTROYED
    assert [held.id for held in open_air.store.leases.live()] == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_that_is_interrupted_while_it_builds_leaves_nothing(
    open_air: Stage, pipe: Path, number: signal.Signals
) -> None:
    """S78: the half-built resource is torn down by the very command that was interrupted."""
    open_air.offer(hoax={"pipes": {"activate": str(pipe)}})
    waiting = open_air.cli.start("lease", "--type", "hoax")
    with standing_in(pipe):
        waiting.send_signal(number)
    # Not while it stands there: a signal that comes just before it reads is handled just after it.
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (128 + number, "")
    assert open_air.store.leases.live() == []
    assert open_air.resource(1).status is ResourceStatus.DESTROYED


def test_what_was_granted_lasts_and_its_release_is_told(open_air: Stage) -> None:
    """S78: the very command to type."""
    open_air.offer(hoax={})
    granted = open_air.cli("lease", "--type", "hoax")
    [line] = [line for line in granted.stderr.splitlines() if line.startswith("give it back with: ")]
    assert line == "give it back with: drydock release 1"
    open_air.engine.tend()
    assert open_air.lease_status(1) is LeaseStatus.ACTIVE
    assert open_air.cli(*line.removeprefix("give it back with: drydock ").split()).returncode == 0
    assert open_air.lease_status(1) is LeaseStatus.DESTROYED


def test_a_waiting_request_that_is_killed_is_dropped_by_the_next_command(open_air: Stage) -> None:
    """S80: no handler runs, and still nobody waits behind it."""
    open_air.offer(lab={"kind": "host-pool", "hosts": ["h1"]})
    held = open_air.lease("host")
    waiting = open_air.cli.start("lease", "--type", "host")
    open_air.pending()
    waiting.kill()
    waiting.communicate()
    assert open_air.cli("release", str(held.id)).returncode == 0
    assert open_air.lease_status(2) is LeaseStatus.DESTROYED
    assert open_air.store.leases.live() == []


def test_what_the_dead_hold_is_free_for_one_who_does_not_wait(open_air: Stage) -> None:
    """S80: a program that has been connected all along sees it too, also with wait=0."""
    open_air.offer(lab={"kind": "host-pool", "hosts": ["h1"]})
    program = (
        "import drydock, sys\n"
        "held = drydock.connect().lease('host', wait=0)\n"
        "print(held.id, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=open_air.cli.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        holder.kill()
    held = open_air.lease("host", wait=0.0)
    assert on(held).name == "h1"
    assert (held.fence or 0) > 1


def test_two_threads_that_are_the_first_of_their_process_are_both_alive(
    open_air: Stage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S80: or the first command to look would end the leases of one of them."""
    both, opened = threading.Barrier(2, timeout=30), os.open
    presence_file = f"{path}.live"

    def open_together(name: str, *arguments: int, **options: int) -> int:
        file = opened(name, *arguments, **options)
        if name == presence_file:
            both.wait()
        return file

    monkeypatch.setattr("drydock.store.presence._registry", presence._Registry())
    monkeypatch.setattr(os, "open", open_together)
    done = Gate()

    def announce(engine: Engine) -> str:
        name = engine.store.process
        names.append(name)
        done()
        return name

    names: list[str] = []
    actors = [open_air.actor(announce) for _ in range(2)]
    done.reached()
    done.reached()
    assert [open_air.store.is_alive(name) for name in names] == [True, True]
    assert [open_air.store.is_alive(name) for name in names] == [True, True]
    done.open()
    for actor in actors:
        actor.result()
    assert [open_air.store.is_alive(name) for name in names] == [False, False]
