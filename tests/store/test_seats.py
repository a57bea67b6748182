"""Which endings are simple enough for a seat to be passed on: each thing that speaks against it does so alone."""

from typing import Any, NamedTuple

import pytest
from conftest import apply

from drydock.engine import Engine
from drydock.errors import StatusChanged
from drydock.model import Demand, Terms
from drydock.store.seats import Seat

POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}}


class Scene(NamedTuple):
    """Both hosts are leased, and somebody waits."""

    engine: Engine
    lease: int
    resource: int
    other: int  #: the other host
    heir: int

    def change(self, statement: str) -> None:
        ids = {"lease": self.lease, "resource": self.resource, "other": self.other, "heir": self.heir}
        with self.engine.store.write():
            self.engine.store.run(statement, **{name: id for name, id in ids.items() if f":{name}" in statement})

    def seat(self) -> Seat | None:
        with self.engine.store.write():
            return self.engine.store.seats.held_by(self.lease)


def wait(engine: Engine, type: str = "host", **terms: Any) -> int:
    store = engine.store
    with store.write():
        return store.leases.add(Demand(type), Terms(**terms), "t", store.process).id


@pytest.fixture
def scene(engine: Engine) -> Scene:
    apply(engine, POOL)
    mine, other = engine.lease(Demand("host"), owner="t", count=2, wait_seconds=0)
    assert mine.resource is not None
    assert other.resource is not None
    return Scene(engine, mine.id, mine.resource.id, other.resource.id, wait(engine))


def test_the_seat_of_a_lease_that_holds_nothing_else_can_go_to_the_first_in_the_queue(scene: Scene) -> None:
    wait(scene.engine)
    seat = scene.seat()
    assert seat is not None
    assert (seat.lease, seat.resource, seat.fence, seat.heir) == (scene.lease, scene.resource, 1, scene.heir)
    assert (seat.key, seat.slot_locks) == ("seat(resource:1).slot(0)", '["seat(resource:1).slot(0)"]')
    assert (seat.type, seat.blueprints, seat.attributes, seat.offered) == ("host", "[]", "{}", "{}")
    assert seat.process == seat.heirs_process == scene.engine.store.process


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lease SET status = 'acquired' WHERE id = :lease",
        "UPDATE lease SET carries = :other WHERE id = :lease",
        "UPDATE lease SET slot_locks = '[]' WHERE id = :lease",
        """UPDATE lease SET slot_locks = '["seat(resource:1).slot(0)", "term"]' WHERE id = :lease""",
        "UPDATE slot_lock SET holder = 'lease:999' WHERE key = 'seat(resource:1).slot(0)'",
        "DELETE FROM slot_lock WHERE key = 'seat(resource:1).slot(0)'",
        "UPDATE blueprint SET hooks = 'activate_lease'",
        "UPDATE blueprint SET hooks = 'destroy destroy_lease'",
        "UPDATE resource SET status = 'released' WHERE id = :resource",
        "UPDATE resource SET open = 0 WHERE id = :resource",
        "UPDATE resource SET seats = 2 WHERE id = :resource",
        "UPDATE resource SET rests_until = 4000000000 WHERE id = :resource",
        "UPDATE resource SET until = 1 WHERE id = :resource",
        "UPDATE lease SET status = 'destroyed' WHERE id = :heir",
        "UPDATE lease SET type = 'board' WHERE id = :heir",
        "UPDATE lease SET request = :heir WHERE id = :heir",
        "UPDATE lease SET until = 4000000000 WHERE id = :heir",
        "UPDATE lease SET owed = 1 WHERE id = :heir",
        "UPDATE lease SET process = NULL WHERE id = :heir",
        "UPDATE resource SET status = 'pending', built_for = :heir WHERE id = :other",
        "UPDATE resource SET status = 'released', reclaimed_for = :heir WHERE id = :other",
    ],
)
def test_anything_else_to_be_done_speaks_against_it(scene: Scene, statement: str) -> None:
    scene.change(statement)
    assert scene.seat() is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE blueprint SET hooks = 'activate destroy'",
        "UPDATE resource SET until = 4000000000 WHERE id = :resource",
        "UPDATE resource SET seats = 2, used = 2 WHERE id = :resource",
        "UPDATE resource SET status = 'released', reclaimed_for = :heir, failures = 1 WHERE id = :other",
        "UPDATE resource SET status = 'active', built_for = :heir WHERE id = :other",
    ],
)
def test_what_changes_nothing_for_it_does_not(scene: Scene, statement: str) -> None:
    scene.change(statement)
    assert scene.seat() is not None


def test_the_first_in_the_queue_is_who_comes_first_of_those_who_want_this_type(scene: Scene) -> None:
    wait(scene.engine, "board", priority=2)
    first = wait(scene.engine, priority=1)
    seat = scene.seat()
    assert seat is not None
    assert seat.heir == first


def test_who_has_no_seat_has_none_to_pass_on(scene: Scene) -> None:
    with scene.engine.store.write():
        assert scene.engine.store.seats.held_by(scene.heir) is None
        assert scene.engine.store.seats.held_by(999) is None


@pytest.mark.parametrize("change", [{"fence": 7}, {"key": "seat(resource:2).slot(0)"}, {"lease": 3}, {"heir": 999}])
def test_what_is_not_so_any_more_is_not_passed_on(scene: Scene, change: dict[str, Any]) -> None:
    store = scene.engine.store
    seat = scene.seat()
    assert seat is not None
    before = rows(scene)
    with pytest.raises(StatusChanged), store.write():
        store.seats.pass_on(seat._replace(**change), "lease.released", None)
    assert rows(scene) == before


def rows(scene: Scene) -> list[list[tuple[Any, ...]]]:
    tables = ("lease", "resource", "slot_lock", "event")
    return [scene.engine.store.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
