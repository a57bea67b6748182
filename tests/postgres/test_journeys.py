"""How often a transaction goes to the server and back while others stand in line behind it."""

import threading
from collections.abc import Iterator

import pytest
from conftest import LAB, until
from wire import Wire

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.errors import NothingFree, StoreDamaged
from drydock.model import Demand, Lease, Terms
from drydock.store import open_store
from drydock.store.postgres import PostgresStore


class Counted:
    """An engine behind a wire; `journeys`: of each transaction that it has committed."""

    def __init__(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wire = wire
        store = open_store(wire.url)
        assert isinstance(store, PostgresStore)
        self.engine, self.store = Engine(store), store
        self.journeys: list[int] = []
        begin, commit = store._begin, store._commit

        def begun(*, asks: bool = False) -> None:
            begin(asks=asks)
            self._since = wire.journeys

        def committed() -> None:
            commit()
            self.journeys.append(wire.journeys - self._since)

        monkeypatch.setattr(store, "_begin", begun)
        monkeypatch.setattr(store, "_commit", committed)
        with store.write():
            store.rows("SELECT 1")
        assert store._heart is not None
        store._heart.stop()  # it goes the same way


@pytest.fixture
def counted(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    with Wire(postgres_url) as wire:
        counted = Counted(wire, monkeypatch)
        counted.engine.apply(parse_pool(LAB, "pool"))
        yield counted
        counted.engine.close()
        if counted.store._connection:  # what is held keeps it open
            counted.store._connection.close()


def lease(engine: Engine, wait_seconds: float | None = 0.0) -> Lease:
    [lease] = engine.lease(Demand("host"), owner="me", wait_seconds=wait_seconds)
    return lease


def in_a_crowd(counted: Counted, postgres_url: str) -> tuple[int, int]:
    """How many journeys asking and handing over take while somebody waits."""
    held = lease(counted.engine)
    waits = Engine(open_store(postgres_url))
    granted: list[Lease] = []
    waiting = threading.Thread(target=lambda: granted.append(lease(waits, None)))
    waiting.start()
    until(lambda: bool(counted.store.leases.waited_for()))
    counted.journeys.clear()
    with pytest.raises(NothingFree):
        lease(counted.engine)
    asking = counted.journeys[0]
    counted.journeys.clear()
    counted.engine.release(held.id)
    handing_over = counted.journeys[0]
    waiting.join()
    waits.release(granted[0].id)
    waits.close()
    return asking, handing_over


def test_in_a_crowd_asking_is_two_journeys_and_handing_over_three(counted: Counted, postgres_url: str) -> None:
    # An answer that comes in two pieces on a busy machine counts twice; never is one counted too few.
    asking, handing_over = zip(*(in_a_crowd(counted, postgres_url) for _ in range(3)), strict=True)
    assert (min(asking), min(handing_over)) == (2, 3)


def test_a_transaction_without_a_statement_is_no_journey(counted: Counted) -> None:
    before = counted.wire.journeys
    with counted.store.write():
        pass
    with counted.store.read():
        pass
    assert counted.store.committed
    assert counted.wire.journeys == before


def test_what_travels_with_the_beginning_has_its_moment(counted: Counted) -> None:
    with counted.store.write():
        added = counted.store.leases.add(Demand("host"), Terms(), "me", None)
        moment = counted.store.clock()
    asked = counted.store.leases.get(added.id)
    assert asked is not None
    assert asked.created_at == moment


def test_a_first_statement_that_another_version_refuses_is_told_as_that(counted: Counted, postgres_url: str) -> None:
    held = lease(counted.engine)
    other = open_store(postgres_url)
    with other.write():
        other.run("UPDATE store SET version = 99")
        other.run("ALTER TABLE lease RENAME COLUMN carries TO bears")
    other.close()
    with pytest.raises(StoreDamaged, match="upgrade drydock"):
        counted.engine.release(held.id)
