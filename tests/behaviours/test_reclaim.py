"""Taking idle things away for those who wait: S46 S55 S56 S57 S58 S59 S60 S62 S63 S64 S65."""

from functools import partial
from itertools import repeat

import pytest
from conftest import Clock

from drydock.engine import Engine
from drydock.errors import NothingFree
from drydock.model import LeaseStatus, ResourceStatus

from .stage import Actor, Gate, Stage, control, lease, on, pausing

FLAVORS = {"flavors": ["cherry", "banana", "apple"]}


def idle(stage: Stage, **options: str) -> int:
    """A resource that was leased and given back."""
    held = stage.lease(**options)
    stage.engine.release(held.id)
    return on(held).id


def test_whoever_is_leasing_what_is_being_reclaimed_is_served_anew(stage: Stage) -> None:
    """S46: it never becomes active on what is about to go."""
    stage.offer(hoax={"limit": 1, **FLAVORS})
    assert idle(stage, flavor="cherry") == 1
    gate = control("hoax").hold("destroy")
    banana = stage.leasing(flavor="banana")
    gate.reached()
    again = stage.leasing(flavor="cherry")
    assert stage.pending(2) == [2, 3]
    gate.open()
    stage.engine.release(stage.first_of([banana, again]).result().id)
    assert {on(banana.result()).id, on(again.result()).id} == {2, 3}


def test_at_the_limit_an_idle_resource_makes_room(stage: Stage) -> None:
    """S55: and back again."""
    stage.offer(hoax={"limit": 1, **FLAVORS})
    assert idle(stage, flavor="cherry") == 1
    assert idle(stage, flavor="banana") == 2
    assert idle(stage, flavor="cherry") == 3
    assert [e["lease"] for e in stage.events("resource.reclaimed")] == [2, 3]


@pytest.mark.parametrize("status", ["pending", "acquired", "active", "released", "broken"])
def test_a_lease_in_any_status_but_destroyed_protects_its_resource(stage: Stage, status: str) -> None:
    """S56: from the one who waits for room, and from `drydock reclaim`."""
    stage.offer(hoax={"limit": 1, **FLAVORS})
    told = control("hoax")
    hook = {"pending": "activate", "acquired": "activate_lease"}.get(status, "destroy_lease")
    gate = told.hold(hook)
    if status == "broken":
        told.fail_in["activate_lease"] = iter([RuntimeError("no")])
    actor: Actor[object] = stage.leasing(flavor="cherry")
    if status == "active":
        actor.result()
    elif status == "released":
        actor.result()
        actor = stage.actor(lambda engine: engine.release(1))
    if status != "active":
        gate.reached()
    assert stage.lease_status(1) == status
    [refused] = stage.engine.reclaim()
    assert not refused.reclaimed
    with pytest.raises(NothingFree):
        stage.lease(flavor="banana")
    assert stage.resource(1).status in (ResourceStatus.PENDING, ResourceStatus.ACTIVE)
    gate.open()
    actor.end()
    if status in ("pending", "acquired", "active"):
        stage.engine.release(1)
    assert on(stage.lease(flavor="banana")).id == 2


def test_two_streams_that_fight_for_one_place_both_finish(stage: Stage) -> None:
    """S57: what is built serves at least one lease before it is taken away."""
    stage.offer(hoax={"limit": 1, **FLAVORS})

    def stream(engine: Engine, flavor: str) -> None:
        for _ in range(6):
            engine.release(lease(engine, flavor=flavor).id)

    cherries = stage.actor(lambda engine: stream(engine, "cherry"))
    bananas = stage.actor(lambda engine: stream(engine, "banana"))
    cherries.result()
    bananas.result()
    served = {e["resource"] for e in stage.events("lease.acquired")}
    assert served == set(range(1, stage.ever() + 1))


def test_grace_counts_from_the_end_of_the_last_lease(stage: Stage, clock: Clock) -> None:
    """S58: a resource that was in use for an hour and is idle since now is left alone for as long as any."""
    stage.offer(hoax={"limit": 1, "grace": "3m", **FLAVORS})
    held = stage.lease(flavor="cherry")
    clock.forward(3600)
    stage.engine.release(held.id)
    clock.forward(179)
    with pytest.raises(NothingFree):
        stage.lease(flavor="banana")
    [refused] = stage.engine.reclaim()
    assert (refused.reclaimed, refused.reason) == (False, "idle for too short a time; 1s to go")
    clock.forward(1)
    assert on(stage.lease(flavor="banana")).id == 2


def test_a_request_reclaims_one_resource_and_waits_until_it_is_destroyed(stage: Stage) -> None:
    """S59, S60: however long that takes, and however often it looks; then it is served at once."""
    stage.offer(hoax={"limit": 3, "plans": 9, **FLAVORS})
    held = [stage.lease(flavor="cherry") for _ in range(3)]
    for one in held:
        stage.engine.release(one.id)
    control("hoax").yield_in["destroy"] = 0.0
    banana = stage.leasing(flavor="banana")
    stage.eventually(lambda: control("hoax").count("destroy", outcome="later") >= 5)
    assert [r.status for r in stage.live()] == [ResourceStatus.RELEASED, ResourceStatus.ACTIVE, ResourceStatus.ACTIVE]
    assert stage.lease_status(4) is LeaseStatus.PENDING
    control("hoax").yield_in.clear()
    assert on(banana.result()).id == 4
    assert [e["resource"] for e in stage.events("resource.reclaimed")] == [1]


def test_what_was_leased_after_it_looked_idle_is_not_reclaimed(stage: Stage) -> None:
    """S62: the check is part of the transaction that takes it away."""
    stage.offer(hoax={"limit": 1, **FLAVORS})
    idle(stage, flavor="cherry")
    gate = Gate()
    reclaiming = stage.actor(lambda e: e.reclaim(), prepare=lambda e: pausing(e.store.resources, "live", gate))
    gate.reached()
    held = stage.lease(flavor="cherry")
    gate.open()
    [refused] = reclaiming.result()
    assert (refused.reclaimed, refused.reason) == (False, "leased just now")
    assert (on(held).id, stage.lease_status(held.id)) == (1, LeaseStatus.ACTIVE)


def test_two_who_want_room_never_reclaim_one_resource_twice(stage: Stage) -> None:
    """S62: the second takes what is idle besides."""
    stage.offer(hoax={"limit": 2, **FLAVORS})
    held = [stage.lease(flavor="cherry") for _ in range(2)]
    for one in held:
        stage.engine.release(one.id)
    gate = control("hoax").hold("destroy")
    actors = [stage.leasing(flavor=flavor) for flavor in ("banana", "apple")]
    gate.reached()
    gate.reached()
    gate.open()
    assert {on(actor.result()).id for actor in actors} == {3, 4}
    assert sorted(e["resource"] for e in stage.events("resource.reclaimed")) == [1, 2]


def test_a_lost_slot_lock_is_no_reason_to_take_anything_away(stage: Stage) -> None:
    """S63: there is room, only the plan was taken; the loser takes the next plan and leaves the idle one alone."""
    stage.offer(hoax={"limit": 9, **FLAVORS})
    idle(stage, flavor="cherry")
    gate = Gate()
    loser = stage.leasing(flavor="banana", prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate))
    gate.reached()
    stage.lease(flavor="banana")
    gate.open()
    assert on(loser.result()).name == "hoax.banana.1"
    assert len(stage.events("slot-lock.lost")) == 1
    assert stage.events("resource.reclaimed") == []
    assert stage.resource(1).status is ResourceStatus.ACTIVE


def test_a_lost_slot_lock_here_is_no_reason_to_take_anything_away_there(stage: Stage) -> None:
    """S63: one blueprint is full and has an idle resource, the other lost a race and has room all the same."""
    stage.offer(roomy={**FLAVORS}, full={"limit": 1, **FLAVORS})
    idle(stage, blueprint="full", flavor="cherry")
    gate = Gate()
    loser = stage.leasing(flavor="banana", prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate))
    gate.reached()
    stage.lease(blueprint="roomy", flavor="banana")
    gate.open()
    assert on(loser.result()).name == "roomy.banana.1"
    assert len(stage.events("slot-lock.lost")) == 1
    assert stage.events("resource.reclaimed") == []


def test_reclaim_takes_the_idle_and_tells_why_the_others_stay(stage: Stage, clock: Clock) -> None:
    """S64"""
    stage.offer(hoax={"grace": "60s"}, stuck={"grace": "60s"})
    busy, old, recent = (stage.lease(blueprint="hoax") for _ in range(3))
    stage.engine.release(old.id)
    stuck = idle(stage, blueprint="stuck")
    control("stuck").fail_in["destroy"] = iter([RuntimeError("the door is stuck")])
    clock.forward(60)
    stage.engine.release(recent.id)
    told = {result.id: (result.reclaimed, result.reason) for result in stage.engine.reclaim()}
    assert told == {
        on(busy).id: (False, "1 leases on it"),
        on(old).id: (True, ""),
        on(recent).id: (False, "idle for too short a time; 60s to go"),
        stuck: (False, 'blueprint "stuck" failed in destroy: RuntimeError: the door is stuck'),
    }
    clock.forward(5)
    [resource] = [result for result in stage.engine.reclaim() if result.id == stuck]
    assert resource.reason == "it is released"
    stage.engine.tend()
    assert stage.resource(stuck).status is ResourceStatus.DESTROYED


def test_what_belongs_to_another_blueprint_is_left_alone(stage: Stage) -> None:
    """S65: its end would make no room."""
    stage.offer(one={"limit": 1, **FLAVORS}, two={"limit": 1, **FLAVORS})
    idle(stage, blueprint="two", flavor="cherry")
    stage.lease(blueprint="one", flavor="cherry")
    with pytest.raises(NothingFree):
        stage.lease(blueprint="one", flavor="banana")
    assert stage.events("resource.reclaimed") == []


def test_below_the_limit_only_what_is_in_the_way_is_reclaimed(stage: Stage) -> None:
    """S65: all plans are in use; another flavor's idle resource holds none of their slot locks."""
    stage.offer(hoax={"limit": 9, "plans": 1, **FLAVORS})
    idle(stage, flavor="cherry")
    stage.lease(flavor="banana")
    with pytest.raises(NothingFree):
        stage.lease(flavor="banana")
    assert stage.events("resource.reclaimed") == []


def test_below_the_limit_what_holds_the_slot_lock_of_the_plan_is_reclaimed(stage: Stage) -> None:
    """S55 without a limit: one board, which a cherry holds idly and a banana needs."""
    stage.offer(hoax={"plans": 1, "slot_locks": ["board"], **FLAVORS})
    idle(stage, flavor="cherry")
    assert on(stage.lease(flavor="banana")).slot_locks == ("board",)


def test_an_idle_resource_of_another_blueprint_goes_if_it_holds_the_very_binding(stage: Stage) -> None:
    """S65, the other way: the two share an inventory, and the device is needed now."""
    almanac = {"device": {"d1": {}}, "service": {"pool": {"devices": ["d1"]}}}
    hosts = {"kind": "almanac-hosts", "services": ["pool"]}
    stage.offer({"almanac": almanac}, one=hosts, two=hosts)
    held = stage.lease("host", blueprint="one")
    with pytest.raises(NothingFree):
        stage.lease("host", blueprint="two")
    stage.engine.release(held.id)
    taken = stage.lease("host", blueprint="two")
    assert (on(taken).blueprint, on(taken).name) == ("two", "d1")
    assert (taken.fence or 0) > (held.fence or 0)
    [reclaimed] = stage.events("resource.reclaimed")
    assert (reclaimed["resource"], reclaimed["lease"]) == (on(held).id, taken.id)


def test_a_reclaim_that_fails_is_tried_again_and_the_request_waits_for_it(
    stage: Stage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S62, S72: nothing is pinned for ever, nothing becomes active again, nobody gives up."""
    monkeypatch.setattr("drydock.tending.ROUND_SECONDS", 0.02)
    stage.offer(hoax={"limit": 1, **FLAVORS})
    idle(stage, flavor="cherry")
    control("hoax").fail_in["destroy"] = repeat(RuntimeError("the door is stuck"))
    banana = stage.leasing(flavor="banana")

    def failed(times: int) -> bool:
        return len(stage.events("resource.destroy-failed")) == times and stage.store.resources.moving()[0][2] is None

    for failures in range(1, 7):
        stage.eventually(partial(failed, failures))
        assert stage.resource(1).status is ResourceStatus.RELEASED
        assert stage.locks() == {"hoax(hoax.cherry.0)": "resource:1"}
        if failures == 6:
            control("hoax").fail_in.clear()
        clock.forward(32)
    assert on(banana.result()).id == 2
