"""Who is served when: by priority, then by age; never overtaken on what he could use, never blocking what he could not."""

from typing import Any

import pytest
from conftest import Clock

from drydock.endings import release_lease
from drydock.errors import NothingFree
from drydock.model import LeaseStatus
from drydock.store.leases import HEAD_START_SECONDS

from .stage import Stage, control, on, several
from .waiting import Waiter, granted, noted_wakes, served

pytestmark = pytest.mark.usefixtures("nobody_polls")


def hosts(*names: str, **settings: Any) -> dict[str, Any]:
    """A pool of hosts; `a.arm` is a host a of arch arm."""
    listed = [
        {"name": name, "attributes": {"arch": arch}} if arch else name
        for name, _, arch in (given.partition(".") for given in names)
    ]
    return {"kind": "host-pool", "hosts": listed, **settings}


def refused(stage: Stage, type: str = "host", **options: Any) -> bool:
    """Whether a newcomer who does not wait goes away with nothing."""
    try:
        stage.lease(type, **options)
    except NothingFree:
        return True
    return False


# ---- whose turn it is


def test_larger_priority_is_served_first_then_who_asked_first(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    waiters = []
    for priority in (0, 5, -1, 5, 0):
        clock.forward(1.0)
        waiters.append(Waiter(stage, priority=priority))
    low, high, lowest, high_later, low_later = (waiter.id for waiter in waiters)
    assert served(stage, held.id, waiters) == [high, high_later, low, low_later, lowest]


@pytest.mark.parametrize(("later", "passes"), [(-0.001, True), (0.0, False), (0.001, False)])
def test_a_step_of_priority_is_worth_an_hour_and_no_more(
    stage: Stage, clock: Clock, later: float, passes: bool
) -> None:
    """Of two whose turn is equal, the one who asked first goes first."""
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    old = Waiter(stage, priority=0)
    clock.forward(HEAD_START_SECONDS + later)
    new = Waiter(stage, priority=1)
    assert served(stage, held.id, [old, new]) == ([new.id, old.id] if passes else [old.id, new.id])


def test_two_steps_of_priority_are_worth_two_hours(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    old = Waiter(stage)
    clock.forward(1.5 * HEAD_START_SECONDS)
    new = Waiter(stage, priority=2)
    assert served(stage, held.id, [old, new]) == [new.id, old.id]


def test_a_clock_that_is_set_back_lets_no_newcomer_pass(stage: Stage, clock: Clock) -> None:
    """Nor does it count priority from the moment to which it was set."""
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    first = Waiter(stage, priority=1)
    clock.forward(-86_400.0)
    second = Waiter(stage, priority=1)
    third = Waiter(stage)
    fourth = Waiter(stage, priority=1)
    assert served(stage, held.id, [first, second, third, fourth]) == [first.id, second.id, fourth.id, third.id]


def test_at_one_and_the_same_moment_the_ids_tell(stage: Stage) -> None:
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    waiters = [Waiter(stage) for _ in range(10)]  # more than are read at once
    assert served(stage, held.id, waiters) == [waiter.id for waiter in waiters]


# ---- nobody overtakes


def test_what_is_freed_goes_to_who_waits_and_not_to_who_comes(stage: Stage) -> None:
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    waiter = Waiter(stage)
    stage.engine.release(held.id)
    assert refused(stage)
    assert waiter.granted
    waiter.held()


def test_a_newcomer_of_high_priority_takes_nothing_that_was_handed_over(stage: Stage) -> None:
    stage.offer(lab=hosts("h1"))
    held = stage.lease("host")
    waiter = Waiter(stage)
    stage.engine.release(held.id)
    assert refused(stage, priority=1000)
    waiter.held()


def test_each_seat_goes_to_the_next(stage: Stage) -> None:
    """Seats > 1: in the order of the queue, though all are on one thing."""
    stage.offer(lab=hosts("h1", seats=3))
    held = [stage.lease("host") for _ in range(3)]
    waiters = [Waiter(stage) for _ in range(4)]
    for lease, waiter in zip(held, waiters, strict=False):
        stage.engine.release(lease.id)
        assert [w.id for w in waiters if w.granted][-1:] == [waiter.id]
    assert not waiters[3].granted
    assert refused(stage)
    stage.engine.release(waiters[0].held()[0].id)
    for waiter in waiters[1:]:
        waiter.held()


def test_who_wants_less_does_not_pass_who_wants_more_of_the_same_thing(stage: Stage) -> None:
    stage.offer(lab=hosts("a.arm", "b.x86"))
    arm, x86 = stage.lease("host", arch="arm"), stage.lease("host", arch="x86")
    picky, easy = Waiter(stage, arch="arm"), Waiter(stage)
    stage.engine.release(arm.id)
    assert (picky.granted, easy.granted) == (True, False)
    assert refused(stage)
    stage.engine.release(x86.id)
    assert on(easy.held()[0]).name == "b"
    picky.held()


def test_who_wants_a_trait_is_not_passed_by_who_wants_anything(stage: Stage) -> None:
    """A trait is what so many values tell apart that no shape can be made of it."""
    stage.offer(lab={"kind": "host-pool", "hosts": [{"name": f"h{n}", "port": n + 1} for n in range(70)]})
    [*all_of_them] = [stage.lease("host") for _ in range(70)]
    picky, easy = Waiter(stage, port=7), Waiter(stage)
    sixth = next(lease for lease in all_of_them if on(lease).name == "h6")
    stage.engine.release(sixth.id)
    assert (picky.granted, easy.granted) == (True, False)
    stage.engine.release(next(lease for lease in all_of_them if on(lease).name == "h7").id)
    assert on(easy.held()[0]).name == "h7"
    picky.held()


def test_who_names_a_blueprint_is_not_passed_by_who_names_none(stage: Stage) -> None:
    stage.offer(one=hosts("a"), two=hosts("b"))
    held = {on(lease).name: lease for lease in (stage.lease("host"), stage.lease("host"))}
    picky, easy = Waiter(stage, blueprint="two"), Waiter(stage)
    stage.engine.release(held["b"].id)
    assert (picky.granted, easy.granted) == (True, False)
    stage.engine.release(held["a"].id)
    assert on(easy.held()[0]).blueprint == "one"
    picky.held()


def test_a_builder_is_asked_by_the_oldest_first(stage: Stage) -> None:
    """Room in a builder: he who waits is told, and until he has looked a newcomer gets nothing there."""
    stage.offer(hoax={"limit": 1, "flavors": ["cherry"]})
    held = stage.lease()
    waiter = Waiter(stage, "hoax", flavor="cherry")
    stage.engine.release_resource(on(held).id)
    assert stage.live() == []
    assert refused(stage, "hoax")
    assert on(waiter.held()[0]).attributes == {"flavor": "cherry"}


def test_a_builder_that_only_slot_locks_limit_is_asked_by_the_oldest_first(stage: Stage) -> None:
    stage.offer(hoax={"plans": 1, "slot_locks": ["board"], "flavors": ["cherry"]})
    held = stage.lease()
    waiter = Waiter(stage, "hoax", flavor="cherry")
    stage.engine.release_resource(on(held).id)
    assert stage.locks() == {}
    assert refused(stage, "hoax")
    assert on(waiter.held()[0]).attributes == {"flavor": "cherry"}


def test_a_slot_lock_that_is_freed_is_news_for_every_type_that_may_need_it(stage: Stage) -> None:
    """A lock is a name that any blueprint may use, also one that makes something else."""
    stage.offer(hoax={"slot_locks": ["thing(a)"], "plans": 1}, things={"kind": "hoax-pool", "things": ["a"]})
    held = stage.lease("thing")
    waiter = Waiter(stage, "hoax")
    stage.engine.release_resource(on(held).id)
    assert on(waiter.held()[0]).slot_locks == ("thing(a)",)


def test_a_lease_lock_that_is_freed_is_news_for_every_type_that_may_need_it(stage: Stage) -> None:
    stage.offer(hoax={"lease_locks": ["licence"]}, plain={"kind": "plain", "licence": True})
    held = stage.lease("hoax")
    waiter = Waiter(stage, "plain")
    stage.engine.release(held.id)
    assert "licence" in waiter.held()[0].slot_locks


# ---- nobody blocks what he cannot use


@pytest.mark.parametrize(
    "stuck",
    [{"arch": "arm"}, {"blueprint": "other"}, {"blueprint": "off"}, {"type": "hoax"}],
    ids=["other attributes", "other blueprint", "disabled blueprint", "other type"],
)
def test_who_cannot_use_a_thing_does_not_stand_in_the_way(stage: Stage, stuck: dict[str, Any]) -> None:
    stage.offer(lab=hosts("a.arm", "b.x86"), other=hosts("c"), off=hosts("d"), hoax={"limit": 1})
    stage.engine.switch("blueprint:off", enabled=False)
    held = {on(lease).name: lease for lease in (stage.lease("host") for _ in range(3))}
    building = stage.lease("hoax")
    older, newer = Waiter(stage, **{"type": "host", **stuck}), Waiter(stage, arch="x86")
    stage.engine.release(held["b"].id)
    assert (older.granted, newer.granted) == (False, True)
    assert stage.engine.release(newer.held()[0].id)
    assert on(stage.lease("host", arch="x86")).name == "b"
    stage.engine.release(building.id)
    older.give_up()


def test_several_that_cannot_come_together_now_do_not_stand_in_the_way(stage: Stage) -> None:
    """Five are wanted where only four are switched on: nothing is kept for them until the fifth is."""
    stage.offer(lab=hosts("a", "b", "c", "d", "e"))
    stage.engine.switch("binding:e", enabled=False)
    five = Waiter(stage, count=5)
    singles = [stage.lease("host") for _ in range(4)]
    later = Waiter(stage)
    stage.engine.release(singles.pop().id)
    assert later.granted
    stage.engine.switch("binding:e", enabled=True)
    assert refused(stage)
    for lease in (*singles, *later.held()):
        stage.engine.release(lease.id)
    assert {on(lease).name for lease in five.held()} == set("abcde")


def test_several_of_a_builder_that_has_not_so_many_plans_do_not_stand_in_the_way(stage: Stage) -> None:
    """It sets no limit, and its plans end at two: three can never come together, and keep it from nobody."""
    stage.offer(hoax={"plans": 2})
    three = Waiter(stage, "hoax", count=3)
    held = stage.lease("hoax")
    assert on(held).blueprint == "hoax"
    stage.engine.release(held.id)
    assert stage.lease("hoax").id != held.id
    assert not three.granted
    three.give_up()


def test_several_of_a_trait_that_is_switched_off_do_not_stand_in_the_way(stage: Stage) -> None:
    """The two hosts of a rack are wanted, one of them is in use and switched off."""
    stage.offer(lab=racks())
    first = stage.lease("host", rack=0)
    stage.engine.switch("binding:h0", enabled=False)
    both = Waiter(stage, count=2, rack=0)
    assert on(stage.lease("host")).name == "h1"
    stage.engine.release(first.id)
    both.give_up()


def test_several_count_no_thing_that_is_in_use_and_switched_off(stage: Stage) -> None:
    stage.offer(lab=hosts("a", "b"))
    held = {on(lease).name: lease for lease in (stage.lease("host") for _ in range(2))}
    stage.engine.switch("binding:b", enabled=False)
    both = Waiter(stage, count=2)
    stage.engine.release(held["a"].id)
    assert on(stage.lease("host")).name == "a"
    both.give_up()


# ---- several together


def racks() -> dict[str, Any]:
    """A pool of two hosts in each of 70 racks, so many that the rack is a trait."""
    return {
        "kind": "host-pool",
        "hosts": [{"name": f"h{n}", "attributes": {"rack": n // 2}} for n in range(140)],
    }


def test_several_are_not_starved_by_a_stream_of_ones(stage: Stage) -> None:
    """Whatever is released stays with the five that wait for it until all five are there, and then all at once."""
    stage.offer(lab=hosts("a", "b", "c", "d", "e"))
    held = [stage.lease("host") for _ in range(5)]
    five = Waiter(stage, count=5)
    ones = [Waiter(stage) for _ in range(3)]
    for number, lease in enumerate(held, start=1):
        assert not five.granted
        assert refused(stage)
        stage.engine.release(lease.id)
        assert len(granted(stage)) == (5 if number == 5 else 5 - number)
    assert [stage.lease_status(id) for id in five.ids] == [LeaseStatus.ACTIVE] * 5
    for lease in five.held():
        stage.engine.release(lease.id)
    for one in ones:
        one.held()


def test_several_that_are_freed_at_once_are_each_for_who_comes_first(stage: Stage) -> None:
    """Of two hosts that come back in one transaction, those who can use both take none that is for an earlier one."""
    stage.offer(lab=hosts("a.x86", "b.arm"))
    held = [stage.lease("host") for _ in range(2)]
    two, first = Waiter(stage, count=2), Waiter(stage, arch="arm", priority=1)
    store = stage.engine.store
    with store.write():
        for lease in held:
            release_lease(store, lease.id, store.process)
    assert (two.granted, first.granted) == (False, True)
    stage.engine.release(first.held()[0].id)
    assert {on(lease).name for lease in two.held()} == {"a", "b"}


def test_several_keep_what_is_there_while_the_rest_is_made_ready_for_them(stage: Stage) -> None:
    """One of two is torn down for them, the other is released meanwhile: its place stays theirs."""
    stage.offer(hoax={"limit": 2, "flavors": ["cherry"]})
    held = [stage.lease() for _ in range(2)]
    two, one = Waiter(stage, "hoax", count=2, flavor="cherry"), Waiter(stage, "hoax")
    destroying = control("hoax").hold("destroy")
    stage.engine.release(held[0].id)
    two.go()
    destroying.reached()
    stage.engine.release(held[1].id)
    assert not one.granted
    assert refused(stage, "hoax")
    destroying.open()
    for lease in two.held():
        stage.engine.release(lease.id)
    one.held()


def test_several_whose_builds_are_under_way_keep_nothing_from_others(stage: Stage) -> None:
    """All they need is reserved for them already."""
    stage.offer(hoax={"limit": 3})
    building = control("hoax").hold("activate")
    two = stage.actor(lambda engine: several(engine, "hoax", 2))
    building.reached()
    one = stage.leasing()
    building.reached()
    building.open()
    assert len(two.result()) == 2
    assert one.result().status is LeaseStatus.ACTIVE


def test_several_keep_what_fits_them_when_something_else_is_freed(stage: Stage) -> None:
    """News of one thing is no occasion to take another."""
    stage.offer(lab=hosts("a.arm", "b.arm", "c.x86"))
    held = {on(lease).name: lease for lease in (stage.lease("host") for _ in range(3))}
    two = Waiter(stage, count=2, arch="arm")
    stage.engine.release(held["a"].id)
    easy = Waiter(stage)
    stage.engine.release(held["c"].id)
    assert on(easy.held()[0]).name == "c"
    stage.engine.release(held["b"].id)
    assert {on(lease).name for lease in two.held()} == {"a", "b"}


def test_two_that_want_several_do_not_share_out_what_there_is(stage: Stage) -> None:
    """Neither holds a part while it waits for the rest, so neither waits for the other for ever."""
    stage.offer(lab=hosts("a", "b", "c"))
    held = [stage.lease("host") for _ in range(3)]
    first, second = Waiter(stage, count=2), Waiter(stage, count=2)
    stage.engine.release(held[0].id)
    assert len(granted(stage)) == 2
    stage.engine.release(held[1].id)
    assert [stage.lease_status(id) for id in first.ids] == [LeaseStatus.ACTIVE] * 2
    stage.engine.release(held[2].id)
    assert granted(stage) == first.ids
    stage.engine.release(first.held()[0].id)
    assert [stage.lease_status(id) for id in second.ids] == [LeaseStatus.ACTIVE] * 2
    second.held()


def test_several_of_a_trait_keep_only_what_has_it(stage: Stage) -> None:
    stage.offer(lab=racks())
    first = stage.lease("host", rack=0)
    assert on(first).name == "h0"
    both = Waiter(stage, count=2, rack=0)
    assert refused(stage, rack=0)
    assert on(stage.lease("host")).name == "h2"
    assert on(stage.lease("host", rack=2)).name == "h4"
    stage.engine.release(first.id)
    assert {on(lease).name for lease in both.held()} == {"h0", "h1"}


def test_several_of_a_trait_keep_also_what_has_been_in_use(stage: Stage) -> None:
    stage.offer(lab=racks())
    held = [stage.lease("host", rack=0) for _ in range(2)]
    both = Waiter(stage, count=2, rack=0)
    stage.engine.release(held[0].id)
    assert on(stage.lease("host")).name == "h2"
    stage.engine.release(held[1].id)
    assert len(both.held()) == 2


def test_several_count_a_thing_that_is_being_torn_down(stage: Stage) -> None:
    """It will be back, so what else they could use is kept until then."""
    stage.offer(things={"kind": "hoax-pool", "things": ["a", "b"]})
    held = [stage.lease("thing") for _ in range(2)]
    both = Waiter(stage, "thing", count=2)
    destroying = control("things").hold("destroy")
    tearing = stage.actor(lambda engine: engine.release_resource(on(held[0]).id))
    destroying.reached()
    stage.engine.release(held[1].id)
    assert refused(stage, "thing")
    destroying.open()
    assert tearing.result()
    assert len(both.held()) == 2


def test_who_could_build_only_what_several_keep_is_not_woken(stage: Stage) -> None:
    stage.offer(hoax={"limit": 2})
    held = [stage.lease() for _ in range(2)]
    both, one = Waiter(stage, "hoax", count=2), Waiter(stage, "hoax")
    stage.engine.release_resource(on(held[0]).id)
    assert both.engine is not None
    with noted_wakes(both.engine.store) as names:
        both.look()
    assert names == []
    stage.engine.release_resource(on(held[1]).id)
    for lease in both.held():
        stage.engine.release(lease.id)
    one.held()


def test_several_keep_also_what_another_blueprint_could_take_away(stage: Stage) -> None:
    """The idle thing that the two need half of is not reclaimed for who lists the same device."""
    almanac = {
        "device": {"d1": {}, "d2": {}},
        "service": {"both": {"devices": ["d1", "d2"]}, "one": {"devices": ["d1"]}},
    }
    stage.offer(
        {"almanac": almanac},
        large={"kind": "almanac-hosts", "services": ["both"], "grace": "0s"},
        small={"kind": "almanac-hosts", "services": ["one"], "grace": "0s"},
    )
    first, second = (stage.lease("host", blueprint="large") for _ in range(2))
    assert on(first).name == "d1"
    two = Waiter(stage, count=2, blueprint="large")
    stage.engine.release(first.id)
    assert refused(stage, blueprint="small")
    stage.engine.release(second.id)
    assert len(two.held()) == 2


def test_when_several_withdraw_the_others_go_on_at_once(stage: Stage) -> None:
    stage.offer(lab=hosts("a", "b"))
    held = [stage.lease("host") for _ in range(2)]
    two, one = Waiter(stage, count=2), Waiter(stage)
    stage.engine.release(held[0].id)
    assert not one.granted
    stage.engine.steps.withdraw(two.ids, "changed its mind")
    assert one.granted
    two.go()
    two.actor.error()
    one.held()


def test_who_wants_several_and_gives_up_leaves_at_once(stage: Stage) -> None:
    """Its time is up: what was kept for it is free for everybody in the same transaction."""
    stage.offer(lab=hosts("a", "b"))
    held = stage.lease("host")
    with pytest.raises(NothingFree):
        several(stage.engine, "host", 2, wait=0.0)
    assert on(stage.lease("host")).name == "b"
    assert refused(stage)
    stage.engine.release(held.id)


def test_several_that_need_a_seat_and_a_build_are_told_of_the_seat(stage: Stage) -> None:
    """Neither alone is enough for them, and a seat on a thing in use is news, too."""
    stage.offer(hoax={"limit": 1, "seats": 2})
    held = [stage.lease() for _ in range(2)]
    two = Waiter(stage, "hoax", count=2)
    stage.offer(hoax={"limit": 2, "seats": 2})
    two.look()
    assert not two.granted
    stage.engine.release(held[0].id)
    assert len(two.held()) == 2


def test_a_request_whose_row_is_damaged_stands_in_nobodys_way(stage: Stage) -> None:
    stage.offer(lab=hosts("a"))
    held = stage.lease("host")
    damaged, waiter = Waiter(stage), Waiter(stage)
    with stage.store.write():
        stage.store.run("UPDATE lease SET attributes = '{' WHERE id = :id", id=damaged.id)
    stage.engine.release_resource(on(held).id)  # its binding is free: everybody is asked whether he can use it
    assert waiter.granted
    assert stage.events("queue.not-served") == []
    with stage.store.write():
        stage.store.run("UPDATE lease SET attributes = '{}' WHERE id = :id", id=damaged.id)
    stage.engine.release(waiter.held()[0].id)
    assert on(damaged.held()[0]).name == "a"
