"""The tables of `drydock.lifecycle`: they are whole, they are drawn in drydock/README.md, and nothing goes round them."""

import ast
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import LAB, apply

import drydock
from drydock.engine import Engine
from drydock.errors import BlueprintError, NothingFree, StatusChanged, StoreBusy, Yield
from drydock.lifecycle import (
    LEASE_ARROWS,
    LEASE_MOVING,
    RESOURCE_ARROWS,
    RESOURCE_MOVING,
)
from drydock.model import Demand, LeaseStatus, ResourceStatus
from drydock.store.base import Store
from drydock.store.sqlite import SqliteStore

PACKAGE = Path(drydock.__file__).parent

#: table: its statuses, its arrows, and the statuses in which a row may begin, with the reason
TABLES: dict[str, tuple[Any, Mapping[tuple[Any, Any], str], dict[Any, str]]] = {
    "lease": (LeaseStatus, LEASE_ARROWS, {LeaseStatus.PENDING: "asked for"}),
    "resource": (
        ResourceStatus,
        RESOURCE_ARROWS,
        {ResourceStatus.PENDING: "chosen, when it must be built", ResourceStatus.ACTIVE: "chosen, when it is there"},
    ),
}

both = pytest.mark.parametrize("table", TABLES)


def diagram(table: str) -> str:
    """The table as a mermaid state diagram, as it stands in drydock/README.md."""
    _, arrows, starts = TABLES[table]
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {status}: {why}" for status, why in starts.items()]
    # Within a label mermaid takes a colon or a semicolon for its own.
    lines += [f"    {old} --> {new}: {who.translate({58: ',', 59: ','})}" for (old, new), who in arrows.items()]
    return "\n".join([*lines, "    destroyed --> [*]", "```"])


@both
def test_every_status_can_be_reached(table: str) -> None:
    statuses, arrows, starts = TABLES[table]
    reached = set(starts)
    while fresh := {new for old, new in arrows if old in reached} - reached:
        reached |= fresh
    assert reached == set(statuses)


@both
def test_every_status_but_destroyed_can_be_left_and_leads_to_destroyed(table: str) -> None:
    statuses, arrows, _ = TABLES[table]
    ends = {statuses("destroyed")}
    while fresh := {old for old, new in arrows if new in ends} - ends:
        ends |= fresh
    assert ends == set(statuses)
    assert not any(old == "destroyed" for old, _ in arrows)


@both
def test_every_arrow_names_who_fires_it(table: str) -> None:
    _, arrows, _ = TABLES[table]
    assert all(len(who.split()) > 1 or who == "release" for who in arrows.values())


def test_the_groups_of_statuses_follow_from_the_tables() -> None:
    at_rest = {LeaseStatus.PENDING, LeaseStatus.ACTIVE, LeaseStatus.DESTROYED}
    assert set(LEASE_MOVING) == set(LeaseStatus) - at_rest
    assert set(RESOURCE_MOVING) == set(ResourceStatus) - {ResourceStatus.ACTIVE, ResourceStatus.DESTROYED}


@both
def test_the_readme_has_the_diagram(table: str) -> None:
    assert diagram(table) in (PACKAGE / "README.md").read_text(encoding="utf-8")


# ---- the one way to change a status


def _row(engine: Engine, table: str) -> int:
    apply(engine, LAB)
    [lease] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
    assert lease.resource is not None
    return lease.id if table == "lease" else lease.resource.id


def _status(store: Store, table: str, id: int) -> str:
    row = store.row(f"SELECT status FROM {table} WHERE id = :id", id=id)
    assert row is not None
    return str(row[0])


@both
def test_move_follows_the_arrows_and_refuses_all_others(table: str, engine: Engine) -> None:
    """All pairs: an arrow is followed, anything else is a bug of ours (ValueError) and changes nothing."""
    statuses, arrows, _ = TABLES[table]
    store, id = engine.store, _row(engine, table)
    for old in statuses:
        for new in statuses:
            with store.write():
                store.run(f"UPDATE {table} SET status = :old WHERE id = :id", old=str(old), id=id)
            if (old, new) in arrows:
                with store.write():
                    store.move(table, id, old, new)
                assert _status(store, table, id) == new
            else:
                with pytest.raises(ValueError, match=f"a {table} cannot go from {old} to {new}"), store.write():
                    store.move(table, id, old, new)
                assert _status(store, table, id) == old


@both
def test_move_raises_status_changed_when_someone_was_faster(
    table: str, engine: Engine, connect: Callable[..., Engine]
) -> None:
    """Compare-and-set: the second of two that saw the same status loses, and nothing of its change is kept."""
    id, other = _row(engine, table), connect()
    active, released = TABLES[table][0]("active"), TABLES[table][0]("released")
    with other.store.write():
        other.store.move(table, id, active, released, worker="the faster")
    with pytest.raises(StatusChanged) as lost, engine.store.write():
        engine.store.move(table, id, active, released, worker="the slower")
    assert (lost.value.kind, lost.value.id, lost.value.expected, lost.value.actual) == (table, id, (active,), released)
    assert engine.store.row(f"SELECT worker FROM {table} WHERE id = :id", id=id) == ("the faster",)


@both
def test_move_of_a_row_that_is_gone_says_so(table: str, engine: Engine) -> None:
    active, released = TABLES[table][0]("active"), TABLES[table][0]("released")
    with pytest.raises(StatusChanged, match=f"{table} 77 is gone, not active"), engine.store.write():
        engine.store.move(table, 77, active, released)


def test_no_other_statement_changes_a_status() -> None:
    """`SET status` stands in one place of the source: the compare-and-set of store/base.py."""
    places = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "SET STATUS" in node.value.upper()
    }
    assert places == {"store/base.py"}


# ---- every arrow is walked

#: a kind with all hooks, each of which does what the test orders
WORKSHOP = """
import workshop_orders
from drydock.blueprint import Builder, Plan, slot_lock


class Workshop(Builder):
    type = "bench"

    def plans(self, wanted):
        yield Plan("bench-0", (slot_lock("bench", 0),))

    def activate(self, resource):
        workshop_orders.obey("activate", resource)

    def destroy(self, resource):
        workshop_orders.obey("destroy", resource)

    def activate_lease(self, resource, lease):
        workshop_orders.obey("activate_lease", resource)

    def destroy_lease(self, resource, lease):
        workshop_orders.obey("destroy_lease", resource)
"""


Orders = dict[str, Callable[[Any], None]]


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orders:
    """What each hook of the workshop is to do when it is called next."""
    orders: Orders = {}
    module = ModuleType("workshop_orders")
    module.obey = lambda hook, resource: orders.pop(hook, lambda _: None)(resource)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "workshop_orders", module)
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "workshop.py").write_text(WORKSHOP)
    return orders


@pytest.fixture
def two(orders: Orders, tmp_path: Path, connect: Callable[..., Engine]) -> tuple[Engine, Engine]:
    """Two engines on a store that offers a host and a bench."""
    engine, other = connect(tmp_path / "kinds"), connect(tmp_path / "kinds")
    apply(engine, {"blueprint": {**LAB["blueprint"], "shop": {"kind": "workshop", "limit": 1}}})
    return engine, other


@pytest.mark.usefixtures("path")
def test_every_arrow_is_fired_by_some_verb(two: tuple[Engine, Engine], orders: Orders) -> None:
    """The tables promise no more than what happens: between them, these few stories walk every arrow."""
    engine, other = two
    engine.store.run("CREATE TABLE walked (kind TEXT, old TEXT, new TEXT)")
    for table in TABLES:
        engine.store.run(
            f"CREATE TRIGGER walk_{table} AFTER UPDATE OF status ON {table} BEGIN"
            f" INSERT INTO walked VALUES ('{table}', old.status, new.status); END"
        )

    def fail(_: object) -> None:
        raise RuntimeError("as ordered")

    def later(_: object) -> None:
        raise Yield(0.0)

    def go_then_later(resource: Any) -> None:
        other.release_resource(resource.id)
        raise Yield(0.0)

    def asks(type: str, **ordered: Callable[[Any], None]) -> int:
        orders.update(ordered)
        [lease] = engine.lease(Demand(type), owner="t", wait_seconds=5)
        return lease.id

    def asks_in_vain(error: type[Exception], wait_seconds: float, **ordered: Callable[[Any], None]) -> None:
        orders.update(ordered)
        with pytest.raises(error):
            engine.lease(Demand("bench"), owner="t", wait_seconds=wait_seconds)

    engine.release(asks("host"))
    engine.release(asks("bench", activate_lease=go_then_later))
    asks_in_vain(BlueprintError, 5, activate_lease=fail)
    asks_in_vain(NothingFree, 0, activate_lease=later)
    engine.release_resource(engine.store.resources.live()[-1].id)
    asks_in_vain(BlueprintError, 0, activate=fail)
    asks_in_vain(NothingFree, 0, activate=later)
    assert not orders
    for table, (_, arrows, _) in TABLES.items():
        walked = set(engine.store.rows("SELECT old, new FROM walked WHERE kind = :table", table=table))
        assert walked == set(arrows)


# ---- somebody always moves it on


def bench(engine: Engine) -> tuple[int, int]:
    """A lease on a bench: its id and its resource's."""
    [lease] = engine.lease(Demand("bench"), owner="t", wait_seconds=0)
    assert lease.resource is not None
    return lease.id, lease.resource.id


def test_the_last_lease_tears_down_what_another_process_released(two: tuple[Engine, Engine], orders: Orders) -> None:
    """The other, which lives on, could not tear it down while a lease was on it; it must not keep the claim."""
    engine, other = two
    torn_down: list[str] = []

    def released_meanwhile(resource: Any) -> None:
        other.release_resource(resource.id)

    orders["destroy_lease"] = released_meanwhile
    orders["destroy"] = lambda resource: torn_down.append(resource.name)
    lease, resource = bench(engine)
    engine.release(lease)
    assert torn_down == ["bench-0"]
    assert _status(engine.store, "resource", resource) == "destroyed"


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("hook", ["destroy_lease", "destroy"])
def test_what_failed_between_a_hook_and_its_record_is_done_again_by_the_same_process(
    two: tuple[Engine, Engine], orders: Orders, hook: str
) -> None:
    """The store was busy when the end was to be recorded. The process lives on, and so does its claim; it tidies."""
    engine, other = two
    _, resource = bench(engine)
    store = engine.store
    assert isinstance(store, SqliteStore)
    patience = store.patience_seconds
    store.patience_seconds = 0.01
    holding = other.store.write()
    orders[hook] = lambda _: holding.__enter__()
    with pytest.raises(StoreBusy):
        engine.release_resource(resource)
    holding.__exit__(None, None, None)
    store.patience_seconds = patience
    assert _status(store, "resource", resource) == "released"
    engine.tend()
    assert _status(store, "resource", resource) == "destroyed"
    assert store.leases.live() == []
