"""drydock worker, as a real process: what nobody else comes by to do is done on time."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import LAB, Cli, until

import drydock
from drydock.engine import Engine
from drydock.forgetting import ROWS_A_STEP
from drydock.store import open_store
from drydock.testing.children import Child

HOLD = """
import drydock
dock = drydock.connect(sys.argv[1])
lease = dock.lease("host")
say(lease.id)
hear()
"""

#: tearing it down waits for a word in a file
SLOW = """
import os, time
from drydock.blueprint import Builder, Plan, slot_lock

class Slow(Builder):
    type = "slow"

    def plans(self, wanted):
        yield Plan("it", (slot_lock("slow", "it"),))

    def destroy(self, resource):
        open(os.environ["STARTED"], "a").write("x")
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.005)
"""


class Working:
    """A worker that has begun, and what it says on stderr."""

    def __init__(self, cli: Cli, *arguments: str, **environment: str) -> None:
        self.process = cli.start("worker", *arguments, **environment)
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        self.stderr, self.stdout = self.process.stderr, self.process.stdout
        assert self.stderr.readline().startswith("drydock: at work on ")

    def until(self, word: str) -> str:
        """Read what it says until a line has this word."""
        while line := self.stderr.readline():
            if word in line:
                return line
        raise AssertionError(f"it ended without {word}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=60)[1]
        return self.process.returncode, rest


@pytest.fixture
def start(cli: Cli) -> Iterator[Callable[..., Working]]:
    begun: list[Working] = []

    def start(*arguments: str, **environment: str) -> Working:
        begun.append(Working(cli, *arguments, **environment))
        return begun[-1]

    yield start
    for one in begun:
        one.process.kill()
        one.process.communicate()


@pytest.fixture
def operator(store_address: str) -> Iterator[Engine]:
    """Somebody else, on the real clock, who does nothing of it himself."""
    with drydock.connect(store_address) as dock:
        dock.apply(LAB)
    store = open_store(store_address)
    yield Engine(store)
    store.close()


def status(operator: Engine, id: int = 1) -> str:
    return str(operator.store.rows("SELECT status FROM lease WHERE id = :id", id=id)[0][0])


def test_it_ends_what_is_over_and_says_so(operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    worker = start()
    cli("lease", "-t", "host", "--ttl", "0.3s")
    line = worker.until("lease.expired")
    assert "lease:1" in line
    assert "it was not renewed in time" in line
    assert status(operator) == "destroyed"


def test_it_ends_what_belonged_to_a_process_that_died(
    operator: Engine, store_address: str, start: Callable[..., Working]
) -> None:
    worker = start()
    with Child(HOLD, store_address) as holder:
        holder.expect("1")
        holder.kill()
    assert "its process died" in worker.until("lease.released")


def test_what_it_ends_is_handed_to_whoever_waits(operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    """The waiter is stopped, so it is not he who looks after it."""
    cli("lease", "-t", "host", "--until", "+1h")
    waiting = cli.start("lease", "-t", "host", "--json")
    assert waiting.stderr is not None
    waiting.stderr.readline()
    os.kill(waiting.pid, signal.SIGSTOP)
    try:
        worker = start()
        with operator.store.write():
            operator.store.run("UPDATE lease SET until = 1000000 WHERE id = 1")
        worker.until("lease:2")
        assert status(operator, 2) == "active"
    finally:
        os.kill(waiting.pid, signal.SIGCONT)
    out, _ = waiting.communicate(timeout=60)
    assert json.loads(out)["id"] == 2


def test_json_is_events_on_stdout(operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    """Exactly those that it recorded, as the log has them."""
    worker = start("--json")
    cli("lease", "-t", "host", "--ttl", "0.3s")
    event = json.loads(worker.stdout.readline())
    while event["event"] != "lease.expired":
        event = json.loads(worker.stdout.readline())
    assert event in cli("log", "--json").objects
    code, told = worker.end()
    assert (code, told) == (0, "")


def test_only_what_it_did_itself_is_told(operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    worker = start()
    cli("lease", "-t", "host")
    cli("release", "1")
    cli("lease", "-t", "host", "--ttl", "0.3s")
    told = worker.until("lease.expired") + worker.end()[1]
    assert "lease:1" not in told
    assert "lease.released" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(number: int, operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    assert start().end(number) == (0, "")
    assert cli("doctor").returncode == 0


@pytest.mark.parametrize("again", [False, True])
def test_a_hook_that_runs_comes_to_its_end_first_unless_told_twice(
    again: bool, path: Path, tmp_path: Path, cli: Cli, start: Callable[..., Working]
) -> None:
    """What was interrupted is left for the next, and told to nobody as done."""
    kinds = tmp_path / "kinds"
    kinds.mkdir()
    (kinds / "slow.py").write_text(SLOW)
    started, go = tmp_path / "started", tmp_path / "go"
    pool = tmp_path / "pool.toml"
    pool.write_text('[blueprint.slow]\nkind = "slow"\nttl = "0.2s"\n')
    cli.environment |= {"DRYDOCK_BLUEPRINTS": str(kinds), "STARTED": str(started), "GO": str(go)}
    assert cli("apply", str(pool)).returncode == 0
    assert cli("lease", "-t", "slow").returncode == 0
    worker = start()
    cli("release", "1")
    until(started.exists)
    worker.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(0.5)
    if again:
        assert worker.end()[0] == 128 + signal.SIGTERM
        assert [one["status"] for one in cli("resources", "--json").objects] == ["released"]
    go.touch()
    if not again:
        worker.until("resource.destroyed")
        assert worker.process.wait(60) == 0
        assert cli("resources", "--json").objects == []


def test_many_workers_do_each_thing_once(operator: Engine, cli: Cli, start: Callable[..., Working]) -> None:
    workers = [start() for _ in range(3)]
    ids = []
    for _ in range(3):
        [lease] = cli("lease", "-t", "host", "--ttl", "0.2s", "--json").objects
        ids.append(lease["id"])
    cli("lease", "-t", "host", "--wait", "30s")
    events = cli("log", "--event", "lease.expired", "--json").objects
    assert [event["lease"] for event in events] == ids
    told = [line for worker in workers for line in worker.end()[1].splitlines() if "lease.expired" in line]
    assert len(told) <= len(ids), "the waiter may have been faster, but nothing is told twice"


def test_once_does_all_that_is_due_and_ends(operator: Engine, cli: Cli) -> None:
    cli("lease", "-t", "host", "--until", "+1h")
    with operator.store.write():
        operator.store.run("UPDATE lease SET until = 1000000 WHERE id = 1")
    done = cli("worker", "--once", "--json")
    assert done.returncode == 0
    assert [event["event"] for event in done.objects] == ["lease.expired"]
    assert cli("worker", "--once", "--json").objects == []


def test_once_forgets_all_that_is_old(operator: Engine, cli: Cli) -> None:
    """More than one step; a command that is no worker makes one step alone."""
    with operator.store.write():
        for _ in range(5 * ROWS_A_STEP):
            operator.store.events.add("old")
        operator.store.run("UPDATE event SET at = 1000")
    old = "SELECT count(*) FROM event WHERE at = 1000"
    [(before,)] = operator.store.rows(old)
    assert cli("lease", "-t", "host", "--no-wait").returncode == 0
    [(left,)] = operator.store.rows(old)
    assert left == before - ROWS_A_STEP
    assert cli("worker", "--once", DRYDOCK_KEEP="forever").returncode == 0
    assert operator.store.rows(old) == [(left,)]
    assert cli("worker", "--once").returncode == 0
    assert [event["event"] for event in cli("log", "--json").objects] == ["resource.activated", "lease.activated"]
    assert cli("doctor").returncode == 0


def test_a_keep_that_cannot_be_meant_is_refused(operator: Engine, cli: Cli) -> None:
    done = cli("worker", "--once", DRYDOCK_KEEP="soon")
    assert done.returncode == 2
    assert done.stderr.startswith('drydock: DRYDOCK_KEEP: not a duration: "soon"')


def test_a_store_that_is_gone_ends_it(path: Path, operator: Engine, start: Callable[..., Working]) -> None:
    """Going on would look after nothing."""
    with drydock.connect(str(path)) as dock:
        dock.lease("host", until=time.time() + 1, detach=True)
    worker = start()
    path.unlink()
    rest = worker.process.communicate(timeout=60)[1]
    assert worker.process.returncode == 8
    assert "was deleted or replaced while in use" in rest
