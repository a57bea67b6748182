"""A seat that is passed on, and one that is freed and taken again, come to the same: in every row, after every step."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import LAB, Clock, apply, open_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drydock.engine import Engine
from drydock.handover import Handover
from drydock.model import Demand, Terms
from drydock.shapes import MOST_SHAPES
from drydock.store.base import Store

NOBODY = "0" * 12  # the name of a process that has died
TABLES = ("blueprint", "binding", "resource", "lease", "slot_lock", "event")


def pool(seats: int) -> dict[str, Any]:
    """Two hosts, one that cools down, and a desk with so many seats."""
    hosts = [{"name": name, "attributes": {"arch": arch}} for name, arch in (("h1", "x86"), ("h2", "arm"))]
    return {
        "blueprint": {
            "lab": {"kind": "host-pool", "hosts": hosts},
            "spare": {"kind": "host-pool", "hosts": ["s1"], "cooldown": "5s"},
            "desk": {"kind": "host-pool", "hosts": ["d1"], "seats": seats},
        }
    }


DEMANDS = [
    Demand("host"), Demand("host"), Demand("host", (), {"arch": "arm"}), Demand("host", ("lab",)),
    Demand("host", ("spare",)), Demand("host", ("desk",)),
]  # fmt: skip


class Ask(NamedTuple):
    """Somebody asks, and if he must wait, stays in the queue."""

    demand: Demand
    count: int
    priority: int
    until: float | None
    ttl: float | None
    dead: bool


class Release(NamedTuple):
    """A lease is given back, or a request withdrawn."""

    which: int
    reason: str | None


class Die(NamedTuple):
    """The process that a lease is bound to dies."""

    which: int
    seen: bool  #: by somebody, at once


class Later(NamedTuple):
    seconds: float
    looks: bool  #: somebody sees what is over


class Switch(NamedTuple):
    binding: str
    on: bool


class Offer(NamedTuple):
    seats: int


Step = Ask | Release | Die | Later | Switch | Offer
ASKS = st.builds(
    Ask, st.sampled_from(DEMANDS), st.sampled_from([1, 1, 1, 2]), st.sampled_from([0, 0, 1]),
    st.sampled_from([None, None, None, 3.0]), st.sampled_from([None, None, 6.0]), st.sampled_from([False, False, False, True]),
)  # fmt: skip
STEPS = st.one_of(
    ASKS,
    ASKS,
    st.builds(Release, st.integers(0, 4), st.sampled_from([None, "enough"])),
    st.builds(Release, st.integers(0, 4), st.none()),
    st.builds(Release, st.integers(5, 9), st.none()),
    st.builds(Die, st.integers(0, 9), st.booleans()),
    st.builds(Later, st.sampled_from([1.0, 4.0, 10.0]), st.booleans()),
    st.builds(Switch, st.sampled_from(["h1", "s1", "d1"]), st.booleans()),
    st.builds(Offer, st.integers(1, 3)),
)


class World:
    """A store, and what was done to it."""

    def __init__(self, path: Path, *, passes_on: bool) -> None:
        self.clock = Clock()
        self.store: Store = open_at(str(path), self.clock, self.clock)
        self.engine = Engine(self.store, environment={}, sleep=self.clock.forward)
        if not passes_on:
            self.store.pass_on = lambda *_: False
        self.seats, self.shrunk = 2, False
        for _ in range(5):  # all there is
            self.take(Ask(Demand("host"), 1, 0, None, None, dead=False))

    def take(self, step: Step) -> None:
        store = self.store
        if isinstance(step, Ask):
            until = None if step.until is None else self.clock() + step.until
            with store.write():
                process = NOBODY if step.dead else store.process
                terms = Terms(step.priority, step.ttl, until)
                ids = [store.leases.add(step.demand, terms, "t", process).id for _ in range(step.count)]
                if len(ids) > 1:
                    store.leases.join(ids)
                store.freed(step.demand.type)
        elif isinstance(step, Release):
            live = store.leases.live()
            if step.which < len(live):
                self.engine.release(live[step.which].id, step.reason)
        elif isinstance(step, Die):
            live = store.leases.live()
            if step.which < len(live):
                with store.write():
                    store.run(
                        "UPDATE lease SET process = :nobody WHERE id = :id", nobody=NOBODY, id=live[step.which].id
                    )
                if step.seen:
                    self.engine.reap()
        elif isinstance(step, Later):
            self.clock.forward(step.seconds)
            if step.looks:
                self.engine.reap()
        elif isinstance(step, Switch):
            self.engine.switch(f"binding:{step.binding}", enabled=step.on)
        else:
            self.shrunk |= step.seats < self.seats
            self.seats = step.seats
            apply(self.engine, pool(step.seats))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        found = {table: self.store.rows(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}
        return {table: [tuple(map(self.read, row)) for row in rows] for table, rows in found.items()}

    def read(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # Where a desk has lost a seat while it was taken, the next one may have any number that is free.
        value = re.sub(r"\.slot\(\d+\)", ".slot(?)", value) if self.shrunk else value
        return value.replace(self.store.process, "me")

    def close(self) -> None:
        with self.store.write():  # or the process would keep its name until the tests end
            self.store.run("DELETE FROM lease")
        self.store.close()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[[], tuple[World, World]]]:
    """Gives two new worlds that differ in nothing but the way in which seats change hands."""
    opened: list[tuple[Path, World]] = []
    offer = tmp_path / "drydock.db"
    with contextlib.closing(open_at(str(offer))) as store:
        apply(Engine(store, environment={}), pool(2))

    def build() -> tuple[World, World]:
        while opened:
            close(*opened.pop())
        for passes_on in (True, False):
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            shutil.copy(offer, folder)
            opened.append((folder, World(folder / "drydock.db", passes_on=passes_on)))
        return opened[0][1], opened[1][1]

    def close(folder: Path, world: World) -> None:
        world.close()
        shutil.rmtree(folder)

    yield build
    while opened:
        close(*opened.pop())


def test_both_ways_come_to_the_same(worlds: Callable[[], tuple[World, World]], monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0
    pass_on = Handover.pass_on

    def noted(self: Handover, *ending: Any) -> bool:
        nonlocal passed
        done = pass_on(self, *ending)
        passed += done
        return done

    monkeypatch.setattr(Handover, "pass_on", noted)

    @settings(max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(ASKS, min_size=3, max_size=6), st.lists(STEPS, min_size=10, max_size=20))
    def both(asks: list[Step], steps: list[Step]) -> None:
        one, other = worlds()
        for step in asks + steps:
            one.take(step)
            other.take(step)
            assert one.rows() == other.rows(), step

    both()
    assert passed > 20  # or nothing was compared


def test_only_a_seat_is_passed_on(engine: Engine) -> None:
    """What else a lease holds may be what somebody waits for, anywhere: it is freed."""
    apply(engine, LAB)
    store = engine.store
    [mine] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
    with store.write():
        store.run("UPDATE slot_lock SET key = 'licence' WHERE holder = :mine", mine=f"lease:{mine.id}")
        store.run("""UPDATE lease SET slot_locks = '["licence"]' WHERE id = :mine""", mine=mine.id)
        heir = store.leases.add(Demand("host"), Terms(), "t", store.process).id
    engine.release(mine.id)
    locks = {lock.key: lock.holder for lock in store.slot_locks.all()}
    assert locks.pop("seat(resource:1).slot(0)") == f"lease:{heir}"
    assert "licence" not in locks


def test_what_is_given_back_too_late_was_lost_before(engine: Engine, clock: Clock) -> None:
    apply(engine, LAB)
    [mine] = engine.lease(Demand("host"), owner="t", wait_seconds=0, until=clock() + 5)
    with engine.store.write():
        engine.store.leases.add(Demand("host"), Terms(), "t", engine.store.process)
    clock.forward(6)
    assert not engine.release(mine.id)
    told = [event.event for event in engine.store.events.of_lease(mine.id, 10)]
    assert told[-1] == "lease.expired"


def test_who_has_it_now_and_who_had_it_are_both_told(connect: Callable[..., Engine]) -> None:
    had, has, other = connect(), connect(), connect()
    apply(other, LAB)
    [lease] = had.lease(Demand("host"), owner="t", wait_seconds=0)
    for engine in (had, has):
        engine.store.listen()
    with has.store.write():
        has.store.leases.add(Demand("host"), Terms(), "t", has.store.process)
    assert other.release(lease.id)
    assert has.store.wait_for_news(20)
    assert had.store.wait_for_news(20)


def test_a_heir_who_has_died_is_passed_over(engine: Engine) -> None:
    apply(engine, LAB)
    store = engine.store
    [mine] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
    with store.write():
        dead, living = (
            store.leases.add(Demand("host"), Terms(), "t", process).id for process in (NOBODY, store.process)
        )
    engine.release(mine.id)
    assert store.leases.status(dead) == "destroyed"
    assert store.leases.status(living) == "active"


def test_whatever_is_wrong_with_what_could_be_passed_on_keeps_nobody_from_giving_it_back(engine: Engine) -> None:
    hosts = [{"name": f"h{n}", "attributes": {"serial": n}} for n in range(MOST_SHAPES + 1)]  # too many to make a shape
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": hosts}}})
    store = engine.store
    [mine] = engine.lease(Demand("host", (), {"serial": 1}), owner="t", wait_seconds=0)
    with store.write():
        store.leases.add(Demand("host", (), {"serial": 1}), Terms(), "t", store.process)
        store.run("UPDATE resource SET attributes = 'damaged'")
    assert engine.release(mine.id)
    assert store.leases.status(mine.id) == "destroyed"
