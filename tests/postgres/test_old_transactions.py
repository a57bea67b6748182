"""While a transaction is open that began before, an index keeps what is dead. Nobody walks through it again and again."""

import re
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.model import Demand, Lease, Terms
from drydock.store import open_store, resources
from drydock.store.postgres import GENERATION, GENERATION_PER_WAITER, PostgresStore

HOSTS, LEASES = 3, 40
POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": [f"h{n}" for n in range(HOSTS)]}}}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """In a database of its own: what the server has learned of a table in earlier tests may have it ask another index."""
    with closing(Engine(open_store(postgres_url))) as engine:
        engine.apply(parse_pool(POOL, "pool"))
        with engine.store.write():  # and so may what it learns in this one
            engine.store.run("ALTER TABLE lease SET (autovacuum_enabled = false)")
        yield engine


@pytest.fixture
def old(engine: Engine) -> Iterator[psycopg.Connection]:
    """A transaction that may look at all that was there when it began."""
    with psycopg.connect(engine.store.url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM drydock.lease")
        yield old


def lease(engine: Engine, wait_seconds: float | None = 0.0) -> Lease:
    [lease] = engine.lease(Demand("host"), owner="me", wait_seconds=wait_seconds)
    return lease


def churn(engine: Engine) -> None:
    for _ in range(LEASES):
        engine.release(lease(engine).id)


def move_on(engine: Engine) -> None:
    """Let the next transaction be the one that has those who wait move on."""
    with engine.store.write():
        engine.store.run("UPDATE store SET next_generation_at = 0")
    with engine.store.write():
        engine.store.rows("SELECT 1")


def walked(engine: Engine, statement: str) -> int:
    """How many rows were looked at for this statement that are not there any more, or are not what it wants."""
    plan = "\n".join(line for (line,) in engine.store.rows(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}"))
    return sum(map(int, re.findall(r"Heap Fetches: (\d+)", plan)))


@pytest.mark.usefixtures("old")
def test_what_has_left_the_queue_is_walked_through_until_those_who_wait_move_on(engine: Engine) -> None:
    anybody = "SELECT 1 WHERE EXISTS (SELECT FROM waiting)"
    move_on(engine)
    churn(engine)
    assert walked(engine, anybody) >= LEASES
    move_on(engine)
    assert walked(engine, anybody) == 0


def test_who_waits_keeps_his_place_when_all_move_on(engine: Engine) -> None:
    held = [lease(engine) for _ in range(HOSTS)]
    with engine.store.write():
        waiting = [
            engine.store.leases.add(Demand("host"), terms, "me", engine.store.process).id
            for terms in (Terms(priority=0), Terms(priority=0), Terms(priority=1))
        ]
    order = [waiting[2], waiting[0], waiting[1]]
    assert [waiter.id for waiter in engine.store.leases.queue("host")] == order
    move_on(engine)
    assert [waiter.id for waiter in engine.store.leases.queue("host")] == order
    engine.release(held[0].id)
    assert engine.store.leases.status(order[0]) == "active"
    assert [waiter.id for waiter in engine.store.leases.queue("host")] == order[1:]


def test_they_move_on_only_now_and_then_and_less_often_when_there_are_many(engine: Engine) -> None:
    store = engine.store
    assert isinstance(store, PostgresStore)
    for _ in range(HOSTS):
        lease(engine)
    with store.write():
        for _ in range(5):
            store.leases.add(Demand("host"), Terms(priority=0), "me", store.process)
    move_on(engine)
    [(first, next_at)] = store.rows("SELECT generation, next_generation_at FROM store")
    assert next_at == store.version() + GENERATION + 5 * GENERATION_PER_WAITER
    with store.write():
        store.rows("SELECT 1")
    assert store.rows("SELECT generation FROM store") == [(first,)]


def test_nobody_moves_on_in_a_transaction_that_is_undone(engine: Engine) -> None:
    """Or the queue would be where nobody looks."""
    held = [lease(engine) for _ in range(HOSTS)]
    with engine.store.write():
        waiting = engine.store.leases.add(Demand("host"), Terms(priority=0), "me", engine.store.process).id
        engine.store.run("UPDATE store SET next_generation_at = 0")
    with pytest.raises(ZeroDivisionError), engine.store.write():
        1 / engine.store.rows("SELECT 0")[0][0]
    assert [waiter.id for waiter in engine.store.leases.queue("host")] == [waiting]
    engine.release(held[0].id)
    assert engine.store.leases.status(waiting) == "active"


def test_a_host_that_comes_back_is_passed_over_for_seconds_but_not_when_it_is_the_only_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(resources, "monotonic", lambda: now[0])

    def next_host() -> str:
        held = lease(engine)
        engine.release(held.id)
        assert held.resource is not None
        return held.resource.name

    def rests(name: str, until: float | None) -> None:
        with engine.store.write():
            engine.store.run("UPDATE resource SET rests_until = :until WHERE name = :name", until=until, name=name)

    for held in [lease(engine) for _ in range(HOSTS)]:
        engine.release(held.id)
    first = [next_host() for _ in range(HOSTS)]
    assert [next_host() for _ in range(HOSTS)] == first  # least recently used first
    rests(first[0], 1e12)
    assert next_host() == first[1]
    rests(first[0], None)
    assert next_host() == first[2]
    with_all_others = [lease(engine) for _ in range(HOSTS)]
    assert {held.resource.name for held in with_all_others if held.resource} == set(first)
    for held in with_all_others:
        engine.release(held.id)
    rests(first[0], 1e12)
    assert {next_host() for _ in range(4)} == set(first[1:])
    rests(first[0], None)
    assert next_host() != first[0]
    now[0] += resources.LATELY_SECONDS
    assert next_host() == first[0]
