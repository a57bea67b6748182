"""The cost of a lease does not grow: whatever a lease, a wait, a release or a reclaim asks of SQLite goes by an index.

Each test records the statements that are really executed, with their parameters (a literal may use a partial index
where a parameter may not), and asks EXPLAIN QUERY PLAN about each.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock, apply

from drydock.engine import Engine
from drydock.errors import NothingFree
from drydock.model import Demand, Terms
from drydock.store import presence
from drydock.store.audit import Audit
from drydock.store.base import STATE
from drydock.store.sqlite import SqliteStore

pytestmark = pytest.mark.usefixtures("path")

#: read whole: what a person writes into a pool file, and shapes, of which a blueprint has few
TINY = {"store", "blueprint", "shape", "source"}
#: what the statements call them; `slot` are the numbers of a slot lock until one is free, `counted` a subquery with a
#: limit of its own, `CONSTANT` is a SELECT without a table
TINY_ALIASES = {"p", "s", "slot", "counted", "CONSTANT"}
#: read whole: these indexes hold nothing but what is on its way, or bound to a process that lives
SHORT = {"lease_moving", "lease_process", "resource_moving", "resource_closed"}
#: what reads all of the queue: whether anybody waits takes its first entry, what they wait for is asked when an offer changes
QUEUE = re.compile(rf"{re.escape(STATE)}|SELECT DISTINCT type FROM waiting")

HOSTS = [
    {"name": f"h{n}", "address": f"10.0.0.{n}", "attributes": {"arch": "arm64" if n % 2 else "x86_64"}}
    for n in range(70)  # more addresses than may make shapes, so that an address is a trait
]
POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS}}}
SHARED = {"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS, "seats": 3}}}
NOTHING: dict[str, str] = {}
NARROW = {"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS, "limit": 1}}}


class Asked:
    """Everything that one connection executes while it is recorded."""

    def __init__(self, engine: Engine) -> None:
        self.store: Any = engine.store
        self.statements: dict[str, object] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        execute = self.store._execute

        def record(statement: str, parameters: object = ()) -> Any:
            self.statements[statement] = parameters
            return execute(statement, parameters)

        self.store._execute = record
        try:
            yield
        finally:
            self.store._execute = execute

    def scans(self) -> set[tuple[str, str]]:
        """What is read whole and may grow: the step of the plan, and the statement."""
        return {
            (step, statement)
            for statement, parameters in self.statements.items()
            if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
            for step in self._plan(statement, parameters)
            if _grows(step, statement)
        }

    def _plan(self, statement: str, parameters: object) -> list[str]:
        rows = self.store.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        return [step for *_, step in rows]


def _grows(step: str, statement: str) -> bool:
    found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
    if found is None or found[1] in TINY | TINY_ALIASES or found[2] in SHORT:
        return False
    return not (found[2] == "lease_queue" and QUEUE.match(statement))


@pytest.fixture
def asked(engine: Engine) -> Asked:
    return Asked(engine)


def lease(
    engine: Engine, wanted: dict[str, str] = NOTHING, type: str = "host", count: int = 1, seconds: float = 0
) -> list[int]:
    found = engine.lease(Demand(type, (), wanted), owner="t", count=count, wait_seconds=seconds, keep=True)
    return [one.id for one in found]


def give_back(engine: Engine, leases: list[int]) -> None:
    for id in leases:
        engine.release(id)


@pytest.mark.parametrize("pool", [POOL, SHARED, NARROW], ids=["one seat", "seats", "limit"])
@pytest.mark.parametrize("wanted", [{}, {"arch": "arm64"}, {"address": "10.0.0.7"}], ids=["any", "shape", "trait"])
def test_a_lease_and_its_release(engine: Engine, asked: Asked, pool: dict[str, Any], wanted: dict[str, str]) -> None:
    """The first builds on a binding, the second uses what the first left."""
    apply(engine, pool)
    with asked.recorded():
        for _ in range(2):
            give_back(engine, lease(engine, wanted))
    assert any(statement.startswith("INSERT INTO resource") for statement in asked.statements)
    assert asked.scans() == set()


def test_several_leases_at_once(engine: Engine, asked: Asked) -> None:
    apply(engine, POOL)
    with asked.recorded():
        give_back(engine, lease(engine, count=5))
    assert asked.scans() == set()


@pytest.mark.parametrize("wanted", [{}, {"arch": "arm64"}, {"address": "10.0.0.7"}], ids=["any", "shape", "trait"])
def test_a_wait(engine: Engine, asked: Asked, wanted: dict[str, str]) -> None:
    """It looks for the dead, says who stands in the way, looks again, and gives up."""
    apply(engine, POOL)
    lease(engine, count=len(HOSTS))
    with asked.recorded(), pytest.raises(NothingFree):
        lease(engine, wanted, seconds=0.05)
    assert any("r.used > 0" in statement for statement in asked.statements)
    assert asked.scans() == set()


def test_a_reclaim_for_a_lease(engine: Engine, asked: Asked) -> None:
    """The blueprint is full of a host that does not fit."""
    apply(engine, NARROW)
    give_back(engine, lease(engine, {"arch": "x86_64"}))
    with asked.recorded():
        lease(engine, {"arch": "arm64"})
    assert [event.event for event in engine.store.events.latest(100)].count("resource.reclaimed") == 1
    assert asked.scans() == set()


def test_a_build_and_its_end(engine: Engine, asked: Asked, tmp_path: Path) -> None:
    """A kind with hooks: the thing is built, leased, given back, and torn down by an operator."""
    (tmp_path / ".drydock-root").touch()
    apply(engine, {"blueprint": {"tmp": {"kind": "scratch-dir", "root": str(tmp_path), "limit": 1}}})
    with asked.recorded():
        give_back(engine, lease(engine, type="scratch-dir"))
        engine.release_resource(1)
    assert any(statement.startswith("DELETE FROM slot_lock") for statement in asked.statements)
    assert asked.scans() == set()


def wait(engine: Engine, wanted: dict[str, str] = NOTHING, count: int = 1) -> list[int]:
    """Requests in the queue, of a process that lives."""
    store = engine.store
    with store.write():
        ids = [store.leases.add(Demand("host", (), wanted), Terms(), "t", store.process).id for _ in range(count)]
        if count > 1:
            store.leases.join(ids)
    return ids


@pytest.mark.parametrize("pool", [POOL, SHARED, NARROW], ids=["one seat", "seats", "limit"])
@pytest.mark.parametrize("wanted", [{}, {"arch": "arm64"}, {"address": "10.0.0.7"}], ids=["any", "shape", "trait"])
def test_a_hand_off(
    engine: Engine, connect: Callable[..., Engine], asked: Asked, pool: dict[str, Any], wanted: dict[str, str]
) -> None:
    """What is given back goes through the queue: past the dead, past those who want something else, past those who
    want more than there is, to the first who can use it."""
    apply(engine, pool)
    held = lease(engine, {"address": "10.0.0.7"})
    dead, other = connect(), connect()
    wait(dead, wanted)
    wait(other, {"address": "10.0.0.99"})
    wait(other, {"arch": "x86_64"}, count=2)
    [first] = wait(other, wanted)
    wait(other, wanted)
    presence.withdraw(f"{dead.store.address}.live", dead.store.process)  # as the kernel does when the process dies
    with asked.recorded():
        give_back(engine, held)
    assert any(s.startswith("UPDATE lease SET status") and "resource" in s for s in asked.statements) or pool is SHARED
    assert engine.store.leases.get(first).status == "active"  # type: ignore[union-attr]
    assert asked.scans() == set()


def test_a_request_that_joins_a_queue(engine: Engine, connect: Callable[..., Engine], asked: Asked) -> None:
    apply(engine, SHARED)
    other = connect()
    lease(engine, count=3 * len(HOSTS) - 1)
    wait(other, count=2)
    with asked.recorded(), pytest.raises(NothingFree):
        lease(engine, seconds=0.05)
    assert any("ORDER BY turn, id" in statement for statement in asked.statements)
    assert asked.scans() == set()


def test_looking_for_what_is_over_and_ending_it(path: Path, clock: Clock) -> None:
    """Leases that end by the wall clock, by uptime and by the end of their resource; and resources that rest."""
    with closing(SqliteStore.open(str(path), clock=clock, uptime=clock)) as store:
        engine = Engine(store)
        asked = Asked(engine)
        settings = {"cooldown": "10s", "lifetime": "1000s", "ttl": "50s"}
        apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS, **settings}}})
        engine.lease(Demand("host"), owner="t", wait_seconds=0, keep=True, ttl=100.0)
        engine.lease(Demand("host"), owner="t", wait_seconds=0, keep=True, until=clock.now + 100.0)
        lease(engine)
        give_back(engine, lease(engine))
        with asked.recorded():
            for _ in range(28):
                clock.forward(40.0)
                engine.tender._round_at = engine.tender._watched_at = 0.0  # as if as much real time had passed
                engine.tender.watch()
        assert store.leases.live() == []
        told = {event.event for event in store.events.latest(100)}
        assert told >= {"lease.expired", "lease.ending", "resource.cooling-down", "resource.released"}
        assert "UPDATE resource SET rests_until = NULL" in {s.split(" WHERE")[0] for s in asked.statements}
        assert any("SELECT min(deadline)" in statement for statement in asked.statements)
        assert asked.scans() == set()


def test_renewing_and_verifying(engine: Engine, asked: Asked, clock: Clock) -> None:
    apply(engine, POOL)
    [held] = engine.lease(Demand("host"), owner="t", wait_seconds=0, ttl=60.0)
    with asked.recorded():
        engine.renew(held.id, fence=held.fence, ttl=90.0, until=clock.now + 60.0)
        engine.verify(held.id, fence=held.fence)
        assert engine.seconds_left(held.id) is not None
    assert asked.scans() == set()


def test_tidying_after_the_dead(engine: Engine, connect: Callable[..., Engine], asked: Asked) -> None:
    apply(engine, POOL)
    other = connect()
    other.lease(Demand("host"), owner="t", wait_seconds=0)
    presence.withdraw(f"{other.store.address}.live", other.store.process)  # as the kernel does when the process dies
    with asked.recorded():
        assert engine.tend()
    assert asked.scans() == set()


def test_doctor_asks_no_question_once_for_each_row(engine: Engine, asked: Asked) -> None:
    """It reads tables whole, but none for each row of another, or it would not end on a store with a long history."""
    audit = Audit(engine.store)
    with asked.recorded():
        audit.locks_of_the_dead()
    for statement, parameters in asked.statements.items():
        assert not [step for step in asked._plan(statement, parameters) if step.startswith("CORRELATED")]
