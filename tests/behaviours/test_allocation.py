"""Who gets what, and that nobody gets it twice: S01 S02 S03 S04 S06 S07 S08 S09 S10 S14 S16 S17 S18 S21 S22 S24 S25, S102."""

from itertools import repeat

import pytest
from conftest import Clock

from drydock.allocator import Lab
from drydock.endings import release_resource
from drydock.engine import Engine
from drydock.errors import NeverPossible, NoBlueprint, NothingFree
from drydock.model import Lease, LeaseStatus, ResourceStatus
from drydock.slots import SlotLock

from .promises import ALL, broken_promises
from .stage import Actor, Gate, Stage, control, lease, on, pausing, several

ONE_HOST = {"kind": "host-pool", "hosts": ["h1"]}
TWO_HOSTS = {"kind": "host-pool", "hosts": ["a", "b"]}


def meet_after_choosing(stage: Stage, number: int, **lab: bool) -> list[Actor[Lease]]:
    """So many requests for a host that all chose before any of them allocates."""
    gate = Gate()
    actors = [stage.leasing("host", sleep=gate, lab=Lab(**lab)) for _ in range(number)]
    for _ in actors:
        gate.reached()
    gate.open()
    return actors


def test_two_who_chose_one_host_make_one_resource(stage: Stage) -> None:
    """S01: the loser learns the key and its holder, waits, and is served when the winner is done."""
    stage.offer(lab=ONE_HOST)
    first, second = meet_after_choosing(stage, 2)
    winner = stage.first_of([first, second])
    loser = second if winner is first else first
    [waiting] = stage.pending()
    assert [(r.name, r.used) for r in stage.live()] == [("h1", 1)]
    assert stage.events("slot-lock.lost") == [
        {"lease": waiting, "resource": None, "key": "host(h1)", "holder": "resource:1"}
    ]
    assert stage.engine.release(winner.result().id)
    assert on(loser.result()).id == 1
    assert stage.ever() == 1


def test_without_slot_locks_two_who_chose_one_host_make_two_resources(stage: Stage) -> None:
    """S01 the other way: the race is real, and doctor sees what came of it."""
    stage.offer(lab=ONE_HOST)
    held = [actor.result() for actor in meet_after_choosing(stage, 2, slot_locks=False)]
    assert [on(one).name for one in held] == ["h1", "h1"]
    assert on(held[0]).id != on(held[1]).id
    assert any("double-allocation" in broken for broken in broken_promises(stage.store, settled=True))
    stage.spoilt = True


def test_two_who_chose_one_plan_make_two_resources_of_different_plans(stage: Stage) -> None:
    """S01 for a builder: the loser goes on to the next plan."""
    stage.offer(hoax={})
    gate = Gate()
    actors = [stage.leasing(prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate)) for _ in range(2)]
    gate.reached()
    gate.reached()
    gate.open()
    assert sorted(on(actor.result()).name for actor in actors) == ["hoax.plain.0", "hoax.plain.1"]
    assert [lost["key"] for lost in stage.events("slot-lock.lost")] == ["hoax(hoax.plain.0)"]


def test_two_blueprints_on_one_almanac_service_never_hand_out_one_device_twice(stage: Stage) -> None:
    """S01 over the borders of blueprints: the device is one thing, whoever lists it."""
    almanac = {"device": {"d1": {}}, "service": {"pool": {"devices": ["d1"]}}}
    hosts = {"kind": "almanac-hosts", "services": ["pool"]}
    stage.offer({"almanac": almanac}, one=hosts, two=hosts)
    gate = Gate()
    actors = [stage.leasing("host", sleep=gate, lab=Lab(), blueprint=name) for name in ("one", "two")]
    gate.reached()
    gate.reached()
    gate.open()
    stage.pending()
    [resource] = stage.live()
    assert resource.slot_locks == ("almanac.host.binding(d1)",)
    stage.engine.release_resource(resource.id)
    assert {on(actor.result()).name for actor in actors} == {"d1"}
    assert stage.ever() == 2


def test_so_many_leases_make_so_many_resources_and_no_more(stage: Stage) -> None:
    """S02, S03, S21: eight at work, all of them building at once; what they built is used again."""
    stage.offer(hoax={"plans": 64})

    def lease_four(engine: Engine) -> list[Lease]:
        return [lease(engine) for _ in range(4)]

    gate = control("hoax").hold("activate")
    actors = [stage.actor(lease_four) for _ in range(8)]
    for _ in actors:
        gate.reached()
    assert len(stage.live()) == 8
    gate.open()
    first = [held for actor in actors for held in actor.result()]
    assert len({on(held).id for held in first}) == 32
    assert stage.ever() == 32
    for held in first:
        assert stage.engine.release(held.id)
    second = [held for actor in [stage.actor(lease_four) for _ in range(8)] for held in actor.result()]
    assert {on(held).id for held in second} == {on(held).id for held in first}
    assert stage.ever() == 32


def test_a_request_whose_build_takes_long_starts_no_second_one(stage: Stage) -> None:
    """S04: however often it, or anybody else, looks at it."""
    stage.offer(hoax={})
    control("hoax").yield_in["activate"] = 0.0
    actor = stage.leasing()
    stage.eventually(lambda: control("hoax").count("activate", outcome="later") >= 5)
    for _ in range(5):
        stage.engine.tend()
    assert [(r.id, r.status) for r in stage.live()] == [(1, ResourceStatus.PENDING)]
    control("hoax").yield_in.clear()
    assert on(actor.result()).id == 1
    assert stage.ever() == 1


def test_a_slow_build_keeps_nobody_from_anything(stage: Stage) -> None:
    """S24: no lock is held over it, and nobody else runs its hook."""
    stage.offer(slow={}, quick={})
    gate = control("slow").hold("activate")
    actor = stage.leasing(blueprint="slow")
    gate.reached()
    for _ in range(5):
        stage.engine.tend()
    assert on(stage.lease(blueprint="quick")).id == 2
    assert (stage.lease_status(1), stage.resource(1).status) == (LeaseStatus.PENDING, ResourceStatus.PENDING)
    gate.open()
    assert on(actor.result()).id == 1
    assert control("slow").count("activate") == 1


def test_five_in_a_row_share_one_resource_under_a_limit_of_one(stage: Stage) -> None:
    """S06: nobody's turn leaves a pending resource behind that blocks the others."""
    stage.offer(hoax={"limit": 1})

    def use(engine: Engine) -> int:
        held = lease(engine)
        engine.release(held.id)
        return on(held).id

    assert [actor.result() for actor in [stage.actor(use) for _ in range(5)]] == [1] * 5
    assert stage.ever() == 1


def test_two_who_found_room_under_the_limit_make_one_resource(stage: Stage) -> None:
    """S07: the count is part of the transaction that builds; here no slot lock helps."""
    stage.offer(hoax={"limit": 1, "slot_locks": [], "plans": 1})
    gate = Gate()
    actors = [stage.leasing(prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate)) for _ in range(2)]
    gate.reached()
    gate.reached()
    gate.open()
    stage.pending()
    assert len(stage.live()) == 1
    stage.engine.release(stage.first_of(actors).result().id)
    for actor in actors:
        actor.end()
    assert stage.ever() == 1


def test_ten_at_once_finish_on_five_resources_under_a_limit_of_five(stage: Stage) -> None:
    """S07: and five it is, not fewer."""
    stage.offer(hoax={"limit": 5, "slot_locks": [], "plans": 1})
    gate = control("hoax").hold("activate_lease")

    def use(engine: Engine) -> None:
        engine.release(lease(engine).id)

    actors = [stage.actor(use) for _ in range(10)]
    for _ in range(5):
        gate.reached()
    gate.open()
    for actor in actors:
        actor.result()
    assert stage.ever() == 5


def test_what_is_destroyed_does_not_count_against_the_limit(stage: Stage) -> None:
    """S07: five hundred that are gone leave room for five."""
    stage.offer(lab={"kind": "host-pool", "hosts": [f"h{n}" for n in range(6)], "limit": 5})
    for _ in range(100):
        held = several(stage.engine, "host", 5, wait=0.0)
        with stage.store.write():
            for one in held:
                release_resource(stage.store, on(one).id, stage.store.process)
    assert (stage.ever(), stage.live()) == (500, [])
    several(stage.engine, "host", 5, wait=0.0)
    with pytest.raises(NothingFree):
        stage.lease("host")


def test_what_is_still_being_destroyed_counts_against_the_limit(stage: Stage, clock: Clock) -> None:
    """S08: released is not gone."""
    stage.offer(hoax={"limit": 2})
    stage.lease()
    going = on(stage.lease())
    control("hoax").fail_in["destroy"] = repeat(RuntimeError("the door is stuck"))
    stage.engine.release_resource(going.id)
    assert stage.resource(going.id).status is ResourceStatus.RELEASED
    with pytest.raises(NothingFree):
        stage.lease()
    assert len(stage.live()) == 2
    control("hoax").fail_in.clear()
    clock.forward(60)
    assert on(stage.lease()).id not in (1, going.id)
    assert stage.resource(going.id).status is ResourceStatus.DESTROYED


def test_filling_a_limit_one_by_one_loses_no_slot_lock(stage: Stage) -> None:
    """S09: also not by the one who finds it full."""
    stage.offer(hoax={"limit": 5, "plans": 9, "slot_locks": ["hoax*5"]})
    for _ in range(5):
        stage.lease()
    with pytest.raises(NothingFree):
        stage.lease()
    assert stage.events("slot-lock.lost") == []


def test_the_last_of_two_thousand_slots_is_found_at_the_first_try(stage: Stage) -> None:
    """S10, for a slot lock with many slots."""
    stage.offer(hoax={"plans": 1, "slot_locks": ["disk*2000"]})
    first = on(stage.lease())
    with stage.store.write():
        taken = stage.store.slot_locks.take([SlotLock("disk").slot(n) for n in range(1999)], f"resource:{first.id}")
    assert len(taken) == 1999
    assert on(stage.lease()).slot_locks == ("disk.slot(1999)",)
    with pytest.raises(NothingFree):
        stage.lease()
    assert stage.events("slot-lock.lost") == []


@pytest.mark.usefixtures("path")
def test_the_last_place_under_a_limit_of_two_thousand_is_found(stage: Stage) -> None:
    """S10, for the limit of a blueprint."""
    stage.offer(lab={"kind": "host-pool", "hosts": [f"h{n}" for n in range(2001)], "limit": 2000})
    several(stage.engine, "host", 1999, wait=0.0)
    assert on(stage.lease("host")).name == "h1999"
    with pytest.raises(NothingFree):
        stage.lease("host")


def test_nobody_is_granted_what_is_not_active_yet(stage: Stage) -> None:
    """S14, S25: two requests for one resource with two seats that is still being built; both finish."""
    stage.offer(hoax={"limit": 1, "seats": 2})
    gate = control("hoax").hold("activate")
    builder = stage.leasing()
    gate.reached()
    other = stage.leasing()
    assert stage.pending(2) == [1, 2]
    gate.open()
    assert (on(builder.result()).id, on(other.result()).id) == (1, 1)


def test_every_host_is_used_before_any_is_shared(stage: Stage) -> None:
    """S16: A, B, and only then a second lease on each."""
    stage.offer(lab={**TWO_HOSTS, "seats": 2})
    assert [on(stage.lease("host")).name for _ in range(4)] == ["a", "b", "a", "b"]
    with pytest.raises(NothingFree):
        stage.lease("host")


def test_what_is_idle_is_used_before_anything_is_built(stage: Stage) -> None:
    """S17"""
    stage.offer(lab={**TWO_HOSTS, "seats": 2})
    held = stage.lease("host")
    stage.engine.release(held.id)
    assert on(stage.lease("host")).id == on(held).id
    assert stage.ever() == 1


def test_at_the_limit_a_resource_is_shared(stage: Stage) -> None:
    """S18: the wish to use every host never goes over the limit, and never lets a lease wait for nothing."""
    stage.offer(lab={**TWO_HOSTS, "seats": 2, "limit": 1})
    assert [on(stage.lease("host")).name for _ in range(2)] == ["a", "a"]
    with pytest.raises(NothingFree):
        stage.lease("host")


def test_a_hundred_seats_hold_a_hundred_leases_and_no_more(stage: Stage) -> None:
    """Beyond 64 seats the count alone says how many fit."""
    stage.offer(lab={**ONE_HOST, "seats": 100})
    several(stage.engine, "host", 100, wait=0.0)
    with pytest.raises(NothingFree):
        stage.lease("host")
    with stage.store.write():
        assert stage.store.resources.take_seat(1)() is None


def test_what_nobody_can_ever_serve_is_refused_and_leaves_nothing(stage: Stage) -> None:
    """S22: which is another thing than "not now"."""
    stage.offer(hoax={"flavors": ["cherry"], "limit": 1})
    with pytest.raises(NeverPossible, match="banana"):
        stage.lease(wait=None, flavor="banana")
    with pytest.raises(NoBlueprint):
        stage.lease("unheard-of", wait=None)
    assert stage.store.leases.latest(ALL) == []
    stage.lease(flavor="cherry")
    with pytest.raises(NothingFree):
        stage.lease(flavor="cherry")


def test_after_a_storm_nothing_waits_and_nothing_leaks(stage: Stage) -> None:
    """S102, in small: eight at once, each fifteen times."""
    stage.offer(hoax={"limit": 3, "seats": 2, "flavors": ["cherry", "banana"], "plans": 2})

    def churn(engine: Engine) -> None:
        for n in range(15):
            engine.release(lease(engine, flavor=("cherry", "banana")[n % 2]).id)

    for actor in [stage.actor(churn) for _ in range(8)]:
        actor.result()
    assert stage.store.leases.live() == []
    assert len(stage.live()) <= 3
    assert {holder.partition(":")[0] for holder in stage.locks().values()} <= {"resource"}
