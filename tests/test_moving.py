"""A store moves to another one: with all that is in it, or not at all, and nothing is held twice on the way."""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from conftest import Cli, apply, open_at

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import ConfigError, DrydockError, Refused, StoreDamaged, StoreMoved
from drydock.model import Demand, Lease, LeaseStatus, ResourceStatus
from drydock.moving import Moved, copy_store, thaw
from drydock.store import copying, open_store
from drydock.store.base import Store
from drydock.testing.children import Child

POOL = {
    "blueprint": {
        "lab": {
            "kind": "host-pool",
            "hosts": [
                "h1",
                "h2",
                {"name": "h3", "attributes": {"arch": "arm64"}},
                {"name": "h4", "address": "10.0.0.4"},
            ],
        }
    }
}


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite", "sqlite to sqlite"])
def houses(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The addresses of two stores, of which none is there."""
    return tuple(  # type: ignore[return-value]
        request.getfixturevalue("postgres_url") if word == "postgres" else str(tmp_path / f"{place}.db")
        for place, word in zip(("from", "to"), request.param.split(" to "), strict=True)
    )


@pytest.fixture
def opened() -> Iterator[Callable[..., Store]]:
    """Open a store until the end of the test, with clocks of the test's if it gives them."""
    stores: list[Store] = []

    def opened(address: str, clock: float | None = None, uptime: float | None = None) -> Store:
        shown = [None if moment is None else (lambda moment=moment: moment) for moment in (clock, uptime)]
        stores.append(open_at(address, *shown))  # type: ignore[arg-type]
        return stores[-1]

    yield opened
    for store in stores:
        with contextlib.suppress(DrydockError):
            if not store.is_frozen():
                with store.write():
                    store.run("UPDATE lease SET process = NULL")  # or a store stays open until this process ends
        store.close()


@pytest.fixture
def source(houses: tuple[str, str], opened: Callable[..., Store]) -> Store:
    """The store to be left, with four hosts on offer."""
    store = opened(houses[0])
    apply(Engine(store), POOL)
    return store


@pytest.fixture
def target(houses: tuple[str, str], opened: Callable[..., Store]) -> Store:
    return opened(houses[1])


def hold(store: Store, *, keep: bool = True, **terms: Any) -> Lease:
    [lease] = Engine(store).lease(Demand("host"), owner="tester", wait_seconds=0, keep=keep, **terms)
    return lease


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    found = {}
    for table, key in copying.TABLES.items():
        columns = sorted(store.columns(table))
        rows = store.rows(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(key)}")
        found[table] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def broken(store: Store) -> list[str]:
    return [finding.sentence for finding in examine(store) if finding.broken]


def move(source: Store, target: Store, **options: Any) -> Moved:
    moved = copy_store(source, target, freeze=True, **options)
    assert broken(target) == []
    return moved


def is_empty(store: Store) -> bool:
    return not any(contents(store).values())


@contextlib.contextmanager
def until_killed(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """A command that ends with the block, whatever becomes of it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


# ---- what arrives


def test_every_row_of_every_table_arrives_as_it_was(source: Store, target: Store) -> None:
    """Those that are over, too; only what the move itself says comes after."""
    engine = Engine(source)
    engine.release(hold(source).id)
    hold(source, priority=3, until=source.clock() + 1e6)
    engine.switch("binding:h2", enabled=False)
    before = contents(source)
    moved = move(source, target)
    there = contents(target)
    events = there.pop("event")
    assert events[: len(before["event"])] == before.pop("event")
    assert [event["event"] for event in events[-2:]] == ["store.frozen", "store.arrived"]
    assert there == before
    assert moved.copied.rows == {table: len(rows) for table, rows in contents(source).items()}
    assert target.offers.config() > source.offers.config()


def test_pages_leave_nothing_out(source: Store, target: Store) -> None:
    """Of a table with one key, and of one with two."""
    number = copying.PAGE * 2 + 1
    hosts = [{"name": f"h{n}", "attributes": {"serial": f"s{n}", "rack": f"r{n}"}} for n in range(number)]
    apply(Engine(source), {"blueprint": {"lab": {"kind": "host-pool", "hosts": hosts}}})
    with source.write():
        source.run(
            "INSERT INTO event (at, event, data) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)"
            " SELECT i, 'made', '{}' FROM n",
            most=number,
        )
    before = contents(source)
    told: list[tuple[str, int, int]] = []
    copy_store(source, target, progress=lambda *news: told.append(news))
    there = contents(target)
    assert len(there["trait"]) >= 2 * number
    assert [there[table] for table in ("binding", "trait", "shape")] == [
        before[table] for table in ("binding", "trait", "shape")
    ]
    assert there["event"][:-1] == before["event"]
    assert [done for table, done, _ in told if table == "event"] == [
        *range(0, len(before["event"]), copying.PAGE), len(before["event"]),
    ]  # fmt: skip


def test_a_lease_that_is_held_is_given_back_at_the_new_place(source: Store, target: Store) -> None:
    """And nobody else has its thing before, there or here."""
    held = [hold(source) for _ in range(4)]
    move(source, target)
    engine = Engine(target)
    assert [engine.verify(lease.id, fence=lease.fence).resource for lease in held] == [lease.resource for lease in held]
    with pytest.raises(DrydockError, match="4 in use"):
        hold(target)
    assert engine.release(held[2].id, fence=held[2].fence)
    followed = hold(target)
    assert followed.resource is not None
    assert held[2].resource is not None
    assert (followed.resource.id, followed.fence) == (held[2].resource.id, (held[2].fence or 0) + 1)
    assert broken(target) == []


def test_no_number_and_no_fence_comes_again(source: Store, target: Store) -> None:
    """Also of leases and events that were forgotten, and of a host whose resource is gone."""
    engine = Engine(source)
    last = [hold(source) for _ in range(4)][-1]
    assert last.resource is not None
    for id in range(1, 5):
        engine.release(id)
    engine.release_resource(last.resource.id)
    given = source.last_ids()
    with source.write():
        source.run("DELETE FROM lease")
        source.run("DELETE FROM resource WHERE status = 'destroyed'")
    move(source, target)
    later = [hold(target) for _ in range(4)]
    assert [lease.id for lease in later] == [5, 6, 7, 8]
    assert sorted(lease.fence or 0 for lease in later) == [2, 2, 2, 2]
    assert max(lease.resource.id for lease in later if lease.resource) == given["resource"] + 1
    with source.read():
        frozen = source.last_ids()["event"]
    assert min(event.id for event in target.events.latest(100) if event.event == "store.arrived") == frozen + 1


def test_what_is_torn_down_is_torn_down_at_the_new_place(source: Store, target: Store) -> None:
    lease = hold(source)
    Engine(source).release(lease.id)
    assert lease.resource is not None
    with source.write():
        source.move(
            "resource", lease.resource.id, ResourceStatus.ACTIVE, ResourceStatus.RELEASED, worker="0123456789ab"
        )
    move(source, target)
    Engine(target).tend()
    gone = target.resources.get(lease.resource.id)
    assert gone is not None
    assert gone.status is ResourceStatus.DESTROYED


def test_there_and_back_again_all_is_as_it_was(tmp_path: Path, postgres_url: str, opened: Callable[..., Store]) -> None:
    first, second, third = opened(str(tmp_path / "1.db")), opened(postgres_url), opened(str(tmp_path / "3.db"))
    apply(Engine(first), POOL)
    hold(first, ttl=600)
    before = contents(first)
    move(first, second)
    move(second, third)
    after = contents(third)
    for there, here in zip(after.pop("event"), before.pop("event"), strict=False):
        assert there == here
    for leases in (before["lease"], after["lease"]):
        for lease in leases:
            assert lease.pop("deadline") is not None
    assert after == before
    Engine(third).renew(1)
    assert Engine(third).release(1)


def test_both_dialects_have_the_same_tables(tmp_path: Path, postgres_url: str, opened: Callable[..., Store]) -> None:
    one, other = opened(str(tmp_path / "1.db")), opened(postgres_url)
    for table in copying.TABLES:
        assert sorted(one.columns(table)) == sorted(other.columns(table))
    numbered = set(one.last_ids()) | {"blueprint", "shape", "binding", "resource", "lease", "event"}
    assert numbered == set(copying.NUMBERED)
    assert set(other.last_ids()) - {"change"} == set(copying.NUMBERED)
    [made] = one.rows("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '*sqlite_*'")
    assert made == (len(copying.TABLES) + 1,), "a table that is not copied"


# ---- how long a lease lasts


def test_a_lease_has_as_many_seconds_left_as_it_had(houses: tuple[str, str], opened: Callable[..., Store]) -> None:
    """Whatever the clocks of the two stores show."""
    source = opened(houses[0], uptime=1000.0)
    target = opened(houses[1], uptime=777_000.0)
    apply(Engine(source), POOL)
    lease = hold(source, ttl=60.0)
    source.uptime = lambda: 1045.0
    move(source, target)
    assert Engine(target).seconds_left(lease.id) == pytest.approx(15.0)
    assert Engine(target).renew(lease.id).id == lease.id
    assert Engine(target).seconds_left(lease.id) == pytest.approx(60.0)
    target.uptime = lambda: 777_060.5
    assert Engine(target).reap()
    assert [lease.reason for lease in target.leases.latest(1)] == ["it was not renewed in time"]


def test_a_bound_lease_follows_with_the_end_that_its_holder_keeps(
    houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    """By the holder's clock: where the new one is ahead, it ends later there."""
    source = opened(houses[0], clock=1_000_000.0, uptime=10.0)
    target = opened(houses[1], clock=1_000_007.0, uptime=20.0)
    apply(Engine(source), POOL)
    by_ttl, by_moment = hold(source, keep=False, ttl=60.0), hold(source, keep=False, until=1_000_100.0)
    nobodys = hold(source, until=1_000_100.0)
    moved = move(source, target)
    assert moved.copied.unbound == [by_ttl.id, by_moment.id]
    assert target.leases.bound() == []
    assert not Engine(target).reap()
    left = [Engine(target).seconds_left(lease.id) for lease in (by_ttl, by_moment, nobodys)]
    assert left == pytest.approx([60.0, 100.0, 93.0])


def test_a_bound_lease_without_an_end_is_refused_unless_it_is_given_one(source: Store, target: Store) -> None:
    lease = hold(source, keep=False)
    with pytest.raises(Refused, match=r"1 last as long as their processes.*--until WHEN"):
        copy_store(source, target, freeze=True)
    assert not source.is_frozen()
    assert is_empty(target)
    with pytest.raises(ConfigError, match="5s away"):
        copy_store(source, target, freeze=True, until=source.clock() + 1)
    until = source.clock() + 600
    assert move(source, target, until=until).copied.unbound == [lease.id]
    here, there = source.leases.get(lease.id), target.leases.get(lease.id)
    assert here is not None
    assert here.until == until  # which its holder sees
    assert there is not None
    assert there.until is not None
    assert there.until >= until


def test_a_resource_does_not_go_before_the_bound_lease_on_it_ends(
    houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    """Its holder would not hear of that. Where the lease is nobody's, the resource goes in its time."""
    source = opened(houses[0], clock=1_000_000.0, uptime=10.0)
    target = opened(houses[1], clock=1_000_000.0, uptime=20.0)
    hosts = {"kind": "host-pool", "hosts": ["h1", "h2"], "lifetime": "30s"}
    apply(Engine(source), {"blueprint": {"lab": hosts}})
    bound, nobodys = hold(source, keep=False, ttl=60.0), hold(source, ttl=60.0)
    move(source, target)
    assert [resource.until for resource in target.resources.live()] == [1_000_060.0, 1_000_030.0]
    target.clock, target.uptime = lambda: 1_000_059.0, lambda: 79.0
    assert Engine(target).reap()
    assert [lease.id for lease in target.leases.live()] == [bound.id]
    assert nobodys.id != bound.id


RUN = "print('at work', flush=True); import time; time.sleep(600)"


def test_a_command_that_runs_under_a_ttl_is_stopped_in_time(
    source: Store, target: Store, houses: tuple[str, str]
) -> None:
    """The holder cannot renew its lease any more, so it stops before another can have the thing."""
    cli = Cli(houses[0])
    with until_killed(cli.start("run", "--type", "host", "--ttl", "3s", "--", "python3", "-c", RUN)) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "at work\n"
        assert move(source, target).copied.unbound == [1]
        assert run.wait(60) == 124
        assert run.stderr is not None
        said = run.stderr.read()
    assert "is frozen, since it moved to" in said
    assert "the time of the lease is up; the command is stopped" in said


# ---- the old store


FIRST = """
from drydock.engine import Engine
from drydock.errors import DrydockError
from drydock.model import Demand
from drydock.store import open_store
store = open_store(sys.argv[1])
engine = Engine(store)
def hold():
    return engine.lease(Demand("host"), owner="child", wait_seconds=0, keep=True)
def tell(verb):
    try:
        say(verb())
    except DrydockError as error:
        say(type(error).__name__, error)
say(hold()[0].id)
hear()
tell(hold)
tell(lambda: engine.release(1))
tell(lambda: engine.renew(1))
tell(lambda: engine.switch("binding:h1", enabled=False))
say([lease.status.value for lease in store.leases.live()], len(store.events.latest(99)))
hear()
tell(hold)
hear()
"""


def test_a_process_that_was_there_before_cannot_write_in_a_frozen_store(
    source: Store, target: Store, houses: tuple[str, str]
) -> None:
    """It is told where the store has gone; it can still read; and when the store is thawed it goes on."""
    with Child(FIRST, houses[0]) as child:
        child.expect("1")
        move(source, target)
        before = contents(source)
        child.tell()
        for _ in range(4):
            said = child.hear()
            assert said.startswith("StoreMoved the store")
            assert f'moved to "{target.address}"' in said
        child.expect("['active'] " + str(len(before["event"])))
        assert contents(source) == before
        assert thaw(source)
        child.tell()
        assert child.hear().startswith("[Lease(id=2")
        child.tell()


def test_commands_on_a_frozen_store(source: Store, target: Store, houses: tuple[str, str]) -> None:
    """What would change it ends with 7; what reads, with 0, and `doctor` says what is the matter."""
    hold(source)
    move(source, target)
    cli = Cli(houses[0])
    for verb in (
        ("lease", "--type", "host"),
        ("release", "1"),
        ("renew", "1", "--ttl", "5s"),
        ("disable", "binding:h1"),
    ):
        told = cli(*verb)
        assert told.returncode == 7, verb
        assert f'is frozen, since it moved to "{target.address}"' in told.stderr
    assert [lease["id"] for lease in cli("leases", "--json").objects] == [1]
    assert cli("log", "--json").objects[-1]["event"] == "store.frozen"
    [told] = [finding for finding in cli("doctor", "--json").objects if finding["rule"] == "frozen"]
    assert not told["broken"]
    assert target.address in told["sentence"]


def test_who_waits_is_told_at_once_where_the_store_has_gone(
    source: Store, target: Store, houses: tuple[str, str]
) -> None:
    """And his request does not go on waiting for nobody in the new one."""
    for _ in range(4):
        hold(source)
    with until_killed(Cli(houses[0]).start("lease", "--type", "host")) as waiter:
        assert waiter.stderr is not None
        assert "waiting for host (lease 5)" in waiter.stderr.readline()
        assert move(source, target).copied.over == [5]
        assert waiter.wait(60) == 7
        assert f'moved to "{target.address}"' in waiter.stderr.read()
    over = target.leases.get(5)
    assert over is not None
    assert (over.status, over.reason) == (LeaseStatus.DESTROYED, copying.LEFT_BEHIND)
    assert [event.event for event in target.events.of_lease(5, 9)] == ["lease.requested", "lease.given-up"]
    Engine(target).release(1)
    assert hold(target).id == 6


def test_a_frozen_store_can_be_copied_again_and_says_where_to(
    source: Store, houses: tuple[str, str], opened: Callable[..., Store], tmp_path: Path
) -> None:
    hold(source)
    move(source, opened(houses[1]))
    another = opened(str(tmp_path / "another.db"))
    assert copy_store(source, another).frozen
    assert broken(another) == []
    assert Engine(another).release(1)
    with pytest.raises(StoreMoved) as told:
        hold(source)
    assert told.value.to == another.address


def test_a_store_in_which_nothing_goes_on_is_copied_and_stays_open(source: Store, target: Store) -> None:
    Engine(source).release(hold(source).id)
    assert not copy_store(source, target).frozen
    assert hold(source).id == hold(target).id == 2


def test_who_holds_is_woken_when_the_store_is_frozen(
    source: Store, target: Store, houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    holder = opened(houses[0])
    hold(holder, keep=False, ttl=600.0)
    holder.listen()
    while holder.wait_for_news(0):
        pass
    move(source, target)
    assert holder.wait_for_news(30)


# ---- refused


@pytest.mark.parametrize("waits", [False, True])
def test_a_store_in_use_is_not_copied_unless_it_is_frozen(source: Store, target: Store, waits: bool) -> None:
    hold(source)
    if waits:
        with source.write():
            source.run("UPDATE lease SET status = 'pending', resource = NULL, slot_locks = '[]'")
            source.run("UPDATE resource SET used = 0")
            source.run("DELETE FROM slot_lock WHERE holder = 'lease:1'")
    with pytest.raises(Refused, match="0 leases are held, 1 requests" if waits else "1 leases are held, 0 requests"):
        copy_store(source, target)
    assert is_empty(target)
    assert not source.is_frozen()


def test_what_somebody_is_at_work_on_is_not_left(source: Store, target: Store) -> None:
    """Its hook would run twice at once."""
    lease = hold(source)
    Engine(source).release(lease.id)
    with source.write():
        source.move("resource", 1, ResourceStatus.ACTIVE, ResourceStatus.RELEASED, worker=source.process)
    for freeze in (False, True):
        with pytest.raises(Refused, match='at work on "resource 1"'):
            copy_store(source, target, freeze=freeze)
    assert is_empty(target)
    assert not source.is_frozen()


def test_a_store_that_is_not_empty_takes_no_other(source: Store, target: Store) -> None:
    apply(Engine(target), POOL)
    before = contents(target)
    with pytest.raises(Refused, match="is not empty"):
        copy_store(source, target, freeze=True)
    assert contents(target) == before
    assert not source.is_frozen()


def test_a_store_is_not_copied_to_itself(source: Store, houses: tuple[str, str], opened: Callable[..., Store]) -> None:
    with pytest.raises(ConfigError, match="is both stores"):
        copy_store(source, opened(houses[0]), freeze=True)
    assert not source.is_frozen()


def test_a_broken_promise_is_not_carried_on(source: Store, target: Store) -> None:
    hold(source)
    with source.write():
        source.run("DELETE FROM slot_lock")
    with pytest.raises(StoreDamaged, match="does not keep 2 promises"):
        copy_store(source, target, freeze=True)
    assert is_empty(target)
    assert not source.is_frozen()


def test_a_copy_that_fails_leaves_nothing_and_the_old_store_as_it_was(
    tmp_path: Path, postgres_url: str, opened: Callable[..., Store]
) -> None:
    """PostgreSQL keeps no text with a NUL, which SQLite does."""
    source, target = opened(str(tmp_path / "from.db")), opened(postgres_url)
    apply(Engine(source), POOL)
    bound = hold(source, keep=False)
    over = hold(source)
    Engine(source).release(over.id)
    with source.write():
        source.run("UPDATE lease SET reason = 'a' || char(0) WHERE id = :id", id=over.id)
    before = contents(source)
    with pytest.raises(ConfigError, match="cannot be kept in PostgreSQL"):
        copy_store(source, target, freeze=True, until=source.clock() + 600)
    assert is_empty(target)
    after = contents(source)
    told = after.pop("event")[len(before.pop("event")) :]
    assert [event["event"] for event in told] == ["store.frozen", "store.thawed"]
    assert after == before
    assert Engine(source).release(bound.id)
    assert broken(source) == []


def test_what_does_not_keep_its_promises_on_arrival_is_not_kept(source: Store, target: Store) -> None:
    hold(source)
    before = contents(source)

    def damage(table: str, done: int, total: int) -> None:
        if table == "event" and done == total:
            target.run("UPDATE slot_lock SET holder = 'lease:99' WHERE holder = 'lease:1'")

    with pytest.raises(StoreDamaged, match=r"does not keep 2 promises, such as: .* see: drydock doctor"):
        copy_store(source, target, freeze=True, progress=damage)
    assert is_empty(target)
    after = contents(source)
    assert after.pop("event")[: len(before["event"])] == before.pop("event")
    assert after == before
    assert Engine(source).release(1)


def test_rows_that_get_lost_on_the_way_are_missed(source: Store, target: Store) -> None:
    Engine(source).release(hold(source).id)

    def lose(table: str, done: int, total: int) -> None:
        if table == "event" and done == total:
            target.run("DELETE FROM event WHERE id = (SELECT max(id) FROM event)")

    with pytest.raises(StoreDamaged, match=r"rows of event were copied"):
        copy_store(source, target, freeze=True, progress=lose)
    assert is_empty(target)
    assert not source.is_frozen()


def test_what_is_thawed_meanwhile_does_not_arrive(
    source: Store, target: Store, houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    """Somebody may have leased what was copied as free."""
    other = opened(houses[0])

    def open_it(table: str, done: int, total: int) -> None:
        if table == "event" and done == total:
            assert thaw(other)
            assert hold(other).id == 1

    with pytest.raises(Refused, match="was changed while it was copied"):
        copy_store(source, target, freeze=True, progress=open_it)
    assert is_empty(target)
    assert Engine(source).release(1)


def test_a_copy_that_fails_thaws_nothing_that_another_has_moved(
    source: Store, target: Store, houses: tuple[str, str], opened: Callable[..., Store], tmp_path: Path
) -> None:
    other, elsewhere = opened(houses[0]), opened(str(tmp_path / "elsewhere.db"))

    def overtake(table: str, done: int, total: int) -> None:
        if table == "event" and done == total:
            copy_store(other, elsewhere)

    with pytest.raises(Refused, match="was changed"):
        copy_store(source, target, freeze=True, progress=overtake)
    assert is_empty(target)
    assert source.is_frozen()
    assert source.moved_to() == elsewhere.address


KILLED = """
from drydock.moving import copy_store
from drydock.store import open_store

def progress(table, done, total):
    if table == "event" and done == total:
        say("nearly done")
        hear()

copy_store(open_store(sys.argv[1]), open_store(sys.argv[2]), freeze=True, progress=progress)
"""


def test_who_is_killed_in_the_middle_leaves_nothing_half(
    source: Store, houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    """The old store stays frozen, since nobody is left to thaw it; it is copied again, or thawed."""
    lease = hold(source)
    with Child(KILLED, *houses) as child:
        child.expect("nearly done")
        child.kill()
    target = opened(houses[1])
    assert is_empty(target)
    with pytest.raises(StoreMoved):
        hold(source)
    assert copy_store(source, target).frozen
    assert broken(target) == []
    assert Engine(target).verify(lease.id, fence=lease.fence)


def test_thawing_takes_back_the_ends_that_were_given(source: Store, target: Store) -> None:
    kept, given = hold(source, keep=False, until=source.clock() + 700), hold(source, keep=False)
    before = contents(source)["lease"]
    move(source, target, until=source.clock() + 600)
    assert source.leases.get(given.id) != given
    assert thaw(source)
    assert not thaw(source)
    assert contents(source)["lease"] == before
    assert Engine(source).release(kept.id)


# ---- the command


def test_the_command_moves_a_store_and_says_so(source: Store, houses: tuple[str, str]) -> None:
    cli = Cli(houses[0])
    hold(source, ttl=600)
    moved = cli("copy-store", *houses)
    assert (moved.returncode, moved.stdout) == (9, "")
    assert "is in use (1 leases are held, 0 requests wait)" in moved.stderr
    moved = cli("copy-store", "--freeze", *houses)
    assert (moved.returncode, moved.stdout.splitlines()[-1]) == (0, "1 leases go on, 0 requests that waited are over")
    assert "all promises hold in" in moved.stderr
    assert [lease["id"] for lease in cli("leases", "--json", "--store", houses[1]).objects] == [1]
    assert cli("release", "1", "--store", houses[1]).returncode == 0
    assert cli("doctor", "--store", houses[1]).returncode == 0
    told = cli("copy-store", "--freeze", *houses)
    assert (told.returncode, told.stdout) == (9, "")
    assert "is not empty (it has blueprints); give a store that is new" in told.stderr


def test_the_command_as_json(source: Store, houses: tuple[str, str]) -> None:
    cli = Cli(houses[0])
    [moved] = cli("copy-store", "--freeze", *houses, "--json").objects
    assert (moved["from"], moved["frozen"], moved["live"], moved["unbound"], moved["given_up"]) == (
        source.address, True, 0, [], [],
    )  # fmt: skip
    assert moved["rows"] == {table: len(rows) for table, rows in contents(source).items()}
    thawed = cli("copy-store", "--thaw", houses[0], "--json")
    assert thawed.objects == [{"store": source.address, "thawed": True}]
    assert cli("copy-store", "--thaw", houses[0]).stdout == f'"{source.address}": was not frozen\n'
    assert hold(source).id == 1


def test_the_command_makes_no_store_to_copy_from(path: Path, tmp_path: Path) -> None:
    told = Cli(str(path))("copy-store", "--freeze", str(tmp_path / "from.db"), str(tmp_path / "to.db"))
    assert told.returncode == 7
    assert "there is no store at" in told.stderr
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a.db"], "missing TO, the store to copy to"),
        (["--thaw", "a.db", "b.db"], "--thaw goes with FROM alone"),
        (["--until", "+1h", "a.db", "b.db"], "--until goes with --freeze"),
        (["--freeze", "--until", "soon", "a.db", "b.db"], "--until: not a moment"),
        (["", "b.db"], "FROM is empty"),
    ],
)
def test_words_that_cannot_be_meant(path: Path, words: list[str], complaint: str) -> None:
    told = Cli(str(path))("copy-store", *words)
    assert told.returncode == 2
    assert complaint in told.stderr


def test_a_password_is_never_shown(tmp_path: Path, postgres_url: str) -> None:
    """Not by the command, nor by the frozen store, nor in the history."""
    parts = urlsplit(postgres_url)
    user, _, host = parts.netloc.rpartition("@")
    name, _, given = user.partition(":")
    password = given or "open-sesame"
    to = urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))
    old = str(tmp_path / "from.db")
    cli = Cli(old)
    with contextlib.closing(open_store(old)) as store:
        apply(Engine(store), POOL)
    for words in (
        ["copy-store", "--freeze", old, to], ["lease", "--type", "host"], ["doctor"], ["log"], ["log", "--store", to],
        ["copy-store", "--freeze", to, to], ["copy-store", "--freeze", to, str(tmp_path / "x.db")],
        ["lease", "--type", "host", "--store", to], ["copy-store", "--thaw", to],
    ):  # fmt: skip
        told = cli(*words)
        assert told.returncode in (0, 2, 7), told
        assert password not in told.stdout + told.stderr


def test_who_is_interrupted_leaves_the_old_store_open(source: Store, target: Store, houses: tuple[str, str]) -> None:
    with Child(KILLED, *houses) as child:
        child.expect("nearly done")
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(60) != 0
    assert not source.is_frozen()
    assert is_empty(target)
    assert hold(source).id == 1
