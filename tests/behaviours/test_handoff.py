"""Whatever frees a thing hands it to the head of the queue in the same transaction, and wakes him who can use it alone."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Clock

from drydock import request, serving, tending
from drydock.allocator import Lab
from drydock.endings import release_lease
from drydock.engine import Engine
from drydock.errors import DrydockError, LeaseLost, NothingFree
from drydock.model import LeaseStatus, ResourceStatus
from drydock.testing.children import Child

from .stage import KINDS, Stage, control, lease, on
from .waiting import Waiter, hands_over, noted_wakes, woken

pytestmark = pytest.mark.usefixtures("nobody_polls")

ONE_HOST = {"kind": "host-pool", "hosts": ["h1"]}
TWO_HOSTS = {"kind": "host-pool", "hosts": ["h1", "h2"]}

#: leases or waits in a process of its own, and says how it came out; `wait` stops it between its look and its sleep
OTHER = """
from drydock.engine import Engine
from drydock.model import Demand
from drydock.store import open_store
store = open_store(sys.argv[1])
engine = Engine(store, environment={"DRYDOCK_BLUEPRINTS": sys.argv[3]})
sleep = store.wait_for_news
def stand(seconds):
    say("waiting")
    hear()
    return sleep(seconds)
store.wait_for_news = stand
[held] = engine.lease(Demand(sys.argv[2]), owner="child", wait_seconds=None)
say("held", held.id)
hear()
"""

#: releases lease 1, and is killed just before or just after it commits that
DIES = """
import signal
from drydock.engine import Engine
from drydock.store import open_store
store = open_store(sys.argv[1])
commit = store._commit
def dying():
    if sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    commit()
    os.kill(os.getpid(), signal.SIGKILL)
engine = Engine(store, environment={})
store._commit = dying
engine.release(1)
"""


@contextmanager
def other(stage: Stage, type: str) -> Iterator[Child]:
    with Child(OTHER, stage.address, type, KINDS) as child:
        yield child


def finish(stage: Stage, *waiters: Waiter) -> None:
    """Let them all come to an end."""
    for waiter in waiters:
        waiter.held()


# ---- what hands over, all in one transaction


def test_a_release_hands_over(stage: Stage) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head, behind = Waiter(stage), Waiter(stage)
    hands_over(stage, head, "lease.released", lambda: stage.engine.release(held.id))
    assert not behind.granted
    stage.engine.release(head.held()[0].id)
    finish(stage, behind)


def test_a_lease_that_was_not_renewed_is_handed_over(stage: Stage, clock: Clock) -> None:
    up = Clock()
    stage.uptime = up
    stage.offer(lab=ONE_HOST)
    stage.lease("host", ttl=60.0)
    head = Waiter(stage)
    up.forward(59.0)
    assert not stage.engine.reap()
    up.forward(1.0)
    hands_over(stage, head, "lease.expired", stage.engine.reap)
    finish(stage, head)


def test_a_lease_whose_time_is_up_is_handed_over(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=ONE_HOST)
    stage.lease("host", until=clock() + 60.0)
    head = Waiter(stage)
    clock.forward(60.0)
    hands_over(stage, head, "lease.expired", stage.engine.reap)
    finish(stage, head)


def test_the_lease_of_a_killed_process_is_handed_over(open_air: Stage) -> None:
    open_air.offer(lab=ONE_HOST)
    with other(open_air, "host") as holder:
        holder.expect("held 1")
        head = Waiter(open_air)
        process = open_air.store.leases.process_of(1)
        holder.kill()
    hands_over(open_air, head, "lease.released", open_air.engine.reap, ended=process)
    finish(open_air, head)


def test_a_resource_that_is_taken_away_leaves_its_binding_to_the_head(stage: Stage) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head = Waiter(stage)
    hands_over(stage, head, "resource.destroyed", lambda: stage.engine.release_resource(on(held).id))
    assert on(head.held()[0]).id == 2


def test_a_reclaimed_resource_leaves_its_device_to_the_head(stage: Stage, clock: Clock) -> None:
    """Two blueprints list one device: the idle resource of one is in the way of the other."""
    almanac = {"device": {"d1": {}}, "service": {"pool": {"devices": ["d1"]}}}
    hosts = {"kind": "almanac-hosts", "services": ["pool"], "grace": "60s"}
    stage.offer({"almanac": almanac}, one=hosts, two=hosts)
    stage.engine.release(stage.lease("host", blueprint="one").id)
    head = Waiter(stage, blueprint="two")
    clock.forward(61.0)
    hands_over(stage, head, "resource.reclaimed", stage.engine.reclaim)
    finish(stage, head)


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        (ONE_HOST, TWO_HOSTS, "binding.added"),
        ({**TWO_HOSTS, "limit": 1}, {**TWO_HOSTS, "limit": 2}, "blueprint.changed"),
        (ONE_HOST, {**ONE_HOST, "seats": 2}, "blueprint.changed"),
    ],
    ids=["a binding more", "a higher limit", "more seats"],
)
def test_a_pool_file_with_more_hands_over(
    stage: Stage, before: dict[str, Any], after: dict[str, Any], event: str
) -> None:
    stage.offer(lab=before)
    stage.lease("host")
    head, behind = Waiter(stage), Waiter(stage)
    hands_over(stage, head, event, lambda: stage.offer(lab=after))
    behind.give_up()
    finish(stage, head)


@pytest.mark.parametrize("target", ["blueprint:lab", "binding:h1"])
def test_what_is_switched_on_is_handed_over(stage: Stage, target: str) -> None:
    stage.offer(lab=ONE_HOST)
    stage.engine.switch(target, enabled=False)
    head = Waiter(stage)
    hands_over(stage, head, f"{target.partition(':')[0]}.enabled", lambda: stage.engine.switch(target, enabled=True))
    finish(stage, head)


def test_what_has_cooled_down_is_handed_over(stage: Stage, clock: Clock) -> None:
    stage.offer(lab={**ONE_HOST, "cooldown": "60s"})
    stage.lease("host", until=clock() + 10.0)
    head = Waiter(stage)
    clock.forward(10.0)
    assert stage.engine.reap()
    assert not head.granted
    assert stage.locks_of(f"lease:{head.id}") == set()
    clock.forward(60.0)
    assert stage.engine.reap()
    assert head.granted
    finish(stage, head)


def test_who_takes_over_from_one_without_a_slot_lock_takes_one(stage: Stage) -> None:
    """There is none to be passed on."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", lab=Lab(slot_locks=False))
    assert held.slot_locks
    assert stage.locks_of(f"lease:{held.id}") == set()
    head = Waiter(stage)
    hands_over(stage, head, "lease.released", lambda: stage.engine.release(held.id))
    assert stage.locks_of(f"lease:{head.id}") == set(held.slot_locks)
    finish(stage, head)
    stage.spoilt = True  # its resource was built without a slot lock, too


def test_what_a_request_for_several_kept_is_handed_over_when_it_is_withdrawn(stage: Stage) -> None:
    stage.offer(lab=TWO_HOSTS)
    held = [stage.lease("host") for _ in range(2)]
    two, head = Waiter(stage, count=2), Waiter(stage)
    stage.engine.release(held[0].id)

    with woken(stage) as names:
        stage.engine.steps.withdraw(two.ids, "changed its mind")
    assert head.granted
    assert set(names) == {two.process, head.process}
    two.go()
    assert isinstance(two.actor.error(), DrydockError)
    finish(stage, head)


def test_a_second_seat_on_what_was_built_goes_to_the_next(stage: Stage) -> None:
    stage.offer(hoax={"limit": 1, "seats": 2})
    building = control("hoax").hold("activate")
    first = stage.leasing()
    building.reached()
    second, third = Waiter(stage, "hoax"), Waiter(stage, "hoax")
    building.open()
    held = first.result()
    assert (second.granted, third.granted) == (True, False)
    stage.engine.release(held.id)
    assert third.granted
    activated = [e for e in stage.store.events.after(0, 1000) if e.event in ("resource.activated", "lease.acquired")]
    assert [(e.event, e.lease) for e in activated] == [
        ("resource.activated", None), ("lease.acquired", 1), ("lease.acquired", 2), ("lease.acquired", 3),
    ]  # fmt: skip
    finish(stage, second, third)


def test_each_is_handed_over_with_a_fence_of_its_own(stage: Stage) -> None:
    """Sixteen wait for one thing, each gives it back at once: the fences grow in the order of the queue."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    order: list[tuple[int, int | None]] = []

    def use(engine: Engine) -> None:
        mine = lease(engine, "host")
        order.append((mine.id, mine.fence))
        engine.release(mine.id)

    actors = []
    for number in range(16):
        actors.append(stage.actor(use))
        stage.pending(number + 1)
    stage.engine.release(held.id)
    for actor in actors:
        actor.result()
    assert order == [(number, number) for number in range(2, 18)]


def test_who_leaves_the_queue_in_the_transaction_that_frees_a_thing_is_passed_over(stage: Stage) -> None:
    """The queue may have been asked for as the thing was given back, before he left."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head, behind = Waiter(stage), Waiter(stage)
    with stage.store.write():
        release_lease(stage.store, held.id, None)
        release_lease(stage.store, head.id, None)
    assert stage.events("queue.not-served") == []
    finish(stage, behind)
    head.go()
    assert isinstance(head.actor.error(), LeaseLost)


# ---- who is woken


def test_who_waits_for_something_else_is_not_woken(stage: Stage) -> None:
    stage.offer(lab=ONE_HOST, other={"kind": "host-pool", "hosts": ["o1"]}, hoax={"limit": 1})
    held, _, _ = stage.lease("host", blueprint="lab"), stage.lease("host", blueprint="other"), stage.lease("hoax")
    elsewhere = [Waiter(stage, blueprint="other"), Waiter(stage, "hoax")]
    with woken(stage) as names:
        stage.engine.release(held.id)
    assert names == []
    for waiter in elsewhere:
        waiter.give_up()


def test_nobody_is_woken_by_a_transaction_that_is_lost(stage: Stage) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head = Waiter(stage)

    def release_in_vain() -> None:
        with stage.store.write():
            release_lease(stage.store, held.id, None)
            stage.store.serve(stage.store._news)
            raise NothingFree("on purpose")

    with woken(stage) as names:
        with pytest.raises(NothingFree, match="on purpose"):
            release_in_vain()
        assert names == []
        assert not head.granted
        with stage.store.write():
            pass
    assert names == []
    stage.engine.release(held.id)
    finish(stage, head)


@pytest.mark.usefixtures("path")
def test_he_is_woken_after_the_commit_not_before(stage: Stage) -> None:
    """Woken earlier he would look, find nothing, and sleep again. (Where the commit itself wakes, it is one moment.)"""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head = Waiter(stage)
    outside = stage.open()
    seen: list[LeaseStatus] = []
    wake = stage.store._wake

    def noted(process: str, secure: Sequence[int] = ()) -> None:
        found = outside.leases.get(head.id)
        assert found is not None
        seen.append(found.status)
        wake(process, secure)

    stage.store._wake = noted  # type: ignore[method-assign]
    stage.engine.release(held.id)
    outside.close()
    assert set(seen) == {LeaseStatus.ACTIVE}
    finish(stage, head)


def test_who_is_told_of_room_between_his_look_and_his_sleep_looks_again(stage: Stage) -> None:
    """The datagram waits for him. Nothing but that can wake him: what he waits for is not granted from afar."""
    stage.offer(hoax={"limit": 1})
    stage.engine.release_resource(on(stage.lease()).id)
    held = stage.lease()
    head = Waiter(stage, "hoax")
    with woken(stage) as names:
        stage.engine.release_resource(on(held).id)
    assert names == [head.process]
    assert head.status is LeaseStatus.PENDING
    finish(stage, head)


def test_who_was_granted_and_never_woken_finds_it_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The net below the wake-ups: whoever should have woken him was killed."""
    monkeypatch.setattr(request, "LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(tending, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(tending, "WATCH_SECONDS", 0.05)
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    head = Waiter(stage)
    commit = stage.store._commit

    def silent() -> None:
        stage.store._awake.clear()
        commit()

    stage.store._commit = silent  # type: ignore[method-assign]
    stage.engine.release(held.id)
    assert head.held()[0].status is LeaseStatus.ACTIVE


# ---- the dead


def test_a_dead_request_is_passed_over_in_the_same_transaction(open_air: Stage) -> None:
    open_air.offer(lab=ONE_HOST)
    held = open_air.lease("host")
    with other(open_air, "host") as dying:
        dying.expect("waiting")
        head = Waiter(open_air)
        dying.kill()
    dead = head.id - 1
    process = open_air.store.leases.process_of(dead)
    hands_over(open_air, head, "lease.released", lambda: open_air.engine.release(held.id), ended=process)
    assert open_air.lease_status(dead) is LeaseStatus.DESTROYED
    finish(open_air, head)


def test_a_request_whose_time_is_up_is_passed_over_in_the_same_transaction(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    late, head = Waiter(stage, until=clock() + 10.0), Waiter(stage)
    clock.forward(10.0)
    stage.engine.release(held.id)
    assert stage.lease_status(late.id) is LeaseStatus.DESTROYED
    assert stage.events("lease.activated")[-1]["lease"] == head.id
    late.go()
    assert isinstance(late.actor.error(), LeaseLost)
    finish(stage, head)


def test_a_dead_request_for_several_keeps_nothing(open_air: Stage) -> None:
    open_air.offer(lab=TWO_HOSTS)
    held = open_air.lease("host")
    code = OTHER.replace('owner="child"', 'owner="child", count=2').replace("[held]", "held")
    with Child(code, open_air.address, "host", KINDS) as dying:
        dying.expect("waiting")
        with pytest.raises(NothingFree):
            open_air.lease("host")
        dying.kill()
    assert on(open_air.lease("host")).name == "h2"
    open_air.engine.release(held.id)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_the_commit_of_a_release(open_air: Stage, moment: str) -> None:
    """Either nothing has happened, or it is released and handed over; never the one without the other."""
    open_air.offer(lab=ONE_HOST)
    held = open_air.lease("host")
    head = Waiter(open_air)
    with Child(DIES, open_air.address, moment) as releasing:
        assert releasing.hear() == ""
        assert releasing.process.wait(60) == -signal.SIGKILL
    happened = moment == "after"
    assert (open_air.lease_status(held.id) is LeaseStatus.DESTROYED, head.granted) == (happened, happened)
    if not happened:
        open_air.engine.release(held.id)
    else:  # unless the commit has, nobody woke him
        assert head.engine is not None
        open_air.store._wake(str(head.process))
    finish(open_air, head)


# ---- hooks


def test_what_must_be_prepared_for_a_lease_is_for_its_holder_to_prepare(stage: Stage) -> None:
    """Handed over with his name on it: nobody else runs the hook while he lives."""
    stage.offer(hoax={"limit": 1})
    held = stage.lease()
    head = Waiter(stage, "hoax")
    stage.engine.release(held.id)
    assert head.status is LeaseStatus.ACQUIRED
    stage.engine.tend()
    assert head.status is LeaseStatus.ACQUIRED
    assert control("hoax").count("activate_lease", f"lease:{head.id}") == 0
    assert head.held()[0].status is LeaseStatus.ACTIVE


def test_what_must_be_built_for_a_lease_is_for_its_holder_to_build(stage: Stage) -> None:
    stage.offer(things={"kind": "hoax-pool", "things": ["a"]})
    held = stage.lease("thing")
    head = Waiter(stage, "thing")
    with woken(stage) as names:
        stage.engine.release_resource(on(held).id)
    assert names == [head.process]
    stage.engine.tend()
    assert stage.resource(2).status is ResourceStatus.PENDING
    assert on(head.held()[0]).id == 2


def test_killed_before_it_prepared_what_it_was_given(open_air: Stage) -> None:
    """Somebody else ends it, cleans up after it, and the next is served."""
    open_air.offer(hoax={"limit": 1})
    held = open_air.lease()
    with other(open_air, "hoax") as dying:
        dying.expect("waiting")
        behind = Waiter(open_air, "hoax")
        open_air.engine.release(held.id)
        assert open_air.lease_status(behind.id - 1) is LeaseStatus.ACQUIRED
        dying.kill()
    assert open_air.engine.tend()
    assert open_air.lease_status(behind.id - 1) is LeaseStatus.DESTROYED
    assert behind.granted
    behind.held()


# ---- where a blueprint must be asked


def test_whoever_looks_lets_the_next_one_look(stage: Stage) -> None:
    """Room for three and five who wait: three build, in the order of the queue, though only the first was told."""
    stage.offer(hoax={"limit": 1, "plans": 10})
    stage.lease()
    waiters = [Waiter(stage, "hoax") for _ in range(5)]
    with woken(stage) as names:
        stage.offer(hoax={"limit": 4, "plans": 10})
    assert names == [waiters[0].process]
    for waiter in waiters:
        waiter.go()
    for waiter in waiters[:3]:
        waiter.held()
    assert [e["lease"] for e in stage.events("resource.building")][1:] == [w.id for w in waiters[:3]]
    assert [w.status for w in waiters[3:]] == [LeaseStatus.PENDING] * 2
    for waiter in waiters[3:]:
        waiter.give_up()


def test_who_can_build_nothing_lets_the_next_one_look(stage: Stage) -> None:
    """He wants a flavor whose only slot lock is held; the one behind him wants another."""
    stage.offer(hoax={"limit": 2, "plans": 1, "slot_locks": ["tub({flavor})"], "flavors": ["cherry", "lemon"]})
    cherry, plain = stage.lease(flavor="cherry"), stage.lease()
    first, second = Waiter(stage, "hoax", flavor="cherry"), Waiter(stage, "hoax", flavor="lemon")
    with woken(stage) as names:
        stage.engine.release_resource(on(plain).id)
    assert names == [first.process]
    first.look()
    assert on(second.held()[0]).attributes == {"flavor": "lemon"}
    stage.engine.release(cherry.id)
    finish(stage, first)


def test_who_has_looked_and_can_build_nothing_keeps_nothing(stage: Stage) -> None:
    stage.uptime = Clock()  # his patience does not run out
    stage.offer(hoax={"limit": 2, "plans": 1, "slot_locks": ["tub({flavor})"], "flavors": ["cherry", "lemon"]})
    cherry, plain = stage.lease(flavor="cherry"), stage.lease()
    first = Waiter(stage, "hoax", flavor="cherry")
    stage.engine.release_resource(on(plain).id)
    first.look()
    assert on(stage.lease(flavor="lemon")).attributes == {"flavor": "lemon"}
    stage.engine.release(cherry.id)
    finish(stage, first)


def test_where_there_is_room_for_one_the_next_is_not_woken(stage: Stage) -> None:
    stage.offer(hoax={"limit": 1})
    stage.lease()
    first, second = Waiter(stage, "hoax"), Waiter(stage, "hoax")
    stage.offer(hoax={"limit": 2})
    assert first.engine is not None
    with noted_wakes(first.engine.store) as names:
        finish(stage, first)
    assert second.process not in names
    second.give_up()


def test_who_is_given_something_else_before_he_looked_lets_the_next_one_look(stage: Stage) -> None:
    """Told of room in a builder, he got a seat elsewhere from afar: the room is for the one behind him."""
    stage.offer(full={"limit": 1}, roomy={"limit": 1})
    seat, place = stage.lease(blueprint="full"), stage.lease(blueprint="roomy")
    first, second = Waiter(stage, "hoax"), Waiter(stage, "hoax")
    stage.engine.release_resource(on(place).id)
    stage.engine.release(seat.id)
    assert (first.granted, second.granted) == (True, False)
    assert on(second.held()[0]).blueprint == "roomy"
    finish(stage, first)


def test_who_withdraws_before_he_looked_lets_the_next_one_look(stage: Stage) -> None:
    stage.offer(hoax={"limit": 1})
    held = stage.lease()
    first, second = Waiter(stage, "hoax"), Waiter(stage, "hoax")
    stage.engine.release_resource(on(held).id)
    first.give_up()
    finish(stage, second)


def test_who_is_at_work_is_no_link_of_the_chain(stage: Stage) -> None:
    """The one behind him is told instead."""
    stage.offer(hoax={"limit": 1, "plans": 10})
    stage.lease()
    first, second, third = (Waiter(stage, "hoax") for _ in range(3))
    building = control("hoax").hold("activate")
    stage.offer(hoax={"limit": 2, "plans": 10})
    first.go()
    building.reached()
    stage.offer(hoax={"limit": 4, "plans": 10})
    second.go()
    building.reached()
    third.go()
    building.reached()
    building.open()
    finish(stage, first, second, third)


def test_who_does_not_look_loses_his_turn_and_not_his_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """He was told and is stopped: until his patience is over nobody passes him, then the next may, however often more is
    freed meanwhile; what is freed later is his."""
    up = Clock()
    stage.uptime = up
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", 1000.0)
    stage.offer(hoax={"limit": 1, "plans": 10})
    held = stage.lease()
    stopped = Waiter(stage, "hoax")
    stage.engine.release_resource(on(held).id)
    for _ in range(4):
        with pytest.raises(NothingFree):
            stage.lease()
        up.forward(249.0)
        stage.engine.switch("blueprint:hoax", enabled=True)  # news for whoever waits
    up.forward(4.0)
    newcomer = stage.lease()
    stopped.look()
    stage.engine.release(newcomer.id)
    finish(stage, stopped)


def test_who_waits_behind_one_that_does_not_look_needs_no_news_to_pass(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = Clock()
    stage.uptime = up
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", 0.05)
    stage.offer(hoax={"limit": 1})
    held = stage.lease()
    stopped = Waiter(stage, "hoax")
    stage.engine.release_resource(on(held).id)
    behind = Waiter(stage, "hoax")
    behind.look()
    assert not behind.granted
    up.forward(1.0)
    stage.engine.release(behind.held()[0].id)
    finish(stage, stopped)
