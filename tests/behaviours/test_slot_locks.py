"""Slot locks when somebody else has one of them: S37 S39 S40 S41 S42 S43 S44."""

import pytest

from drydock.allocator import Lab
from drydock.errors import NothingFree
from drydock.model import ResourceStatus
from drydock.slots import SlotLock

from .stage import Gate, Stage, control, on, pausing, several


def test_all_keys_of_a_plan_or_none(stage: Stage) -> None:
    """S37: b is held, so neither a nor c is taken, and only b and its holder are named."""
    stage.offer(hoax={"plans": 1, "slot_locks": ["a", "b", "c"]}, other={"plans": 1, "slot_locks": ["b"]})
    gate = Gate()
    loser = stage.leasing(blueprint="hoax", prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate))
    gate.reached()
    winner = stage.lease(blueprint="other")
    gate.open()
    stage.eventually(lambda: stage.events("slot-lock.lost"))
    assert stage.pending() == [1]
    assert stage.locks_of("resource:1") == {"b"}
    assert {key for key in stage.locks() if not key.startswith("seat")} == {"b"}
    [lost] = stage.events("slot-lock.lost")
    assert (lost["lease"], lost["key"], lost["holder"]) == (1, "b", "resource:1")
    stage.engine.release(winner.id)
    stage.engine.release_resource(1)
    assert on(loser.result()).slot_locks == ("a", "b", "c")


def test_a_lost_slot_lock_is_in_the_history_although_the_attempt_was_undone(stage: Stage) -> None:
    """S39: on the lease and the blueprint, since the resource was never there; for a count, too."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2", "h3"]})
    gate = Gate()
    loser = stage.actor(lambda engine: several(engine, "host", 3, lab=Lab()), sleep=gate)
    gate.reached()
    winner = stage.lease("host")
    gate.open()
    stage.eventually(lambda: stage.events("slot-lock.lost"))
    event = next(e for e in stage.store.events.after(0) if e.event == "slot-lock.lost")
    assert (event.lease, event.resource, event.blueprint) == (2, None, "lab")
    assert event.data == {"key": "host(h1)", "holder": "resource:1"}
    assert stage.ever() == 1
    stage.engine.release(winner.id)
    assert len(loser.result()) == 3


@pytest.mark.parametrize("end", ["release_resource", "reclaim"])
def test_a_slot_lock_is_held_until_the_thing_is_really_gone(stage: Stage, end: str) -> None:
    """S40: a rival cannot take it while it is being torn down, and can right after."""
    stage.offer(hoax={"plans": 1})
    stage.engine.release(stage.lease().id)
    gate = control("hoax").hold("destroy")
    going = stage.actor(lambda e: e.release_resource(1) if end == "release_resource" else e.reclaim())
    gate.reached()
    assert stage.resource(1).status is ResourceStatus.RELEASED
    assert stage.locks() == {"hoax(hoax.plain.0)": "resource:1"}
    with pytest.raises(NothingFree):
        stage.lease()
    gate.open()
    going.end()
    assert stage.locks() == {}
    assert on(stage.lease()).id == 2


def test_what_a_lease_holds_is_held_until_it_is_cleaned_up_after(stage: Stage) -> None:
    """S40 for leases: seat and terms alike."""
    stage.offer(hoax={"limit": 1, "lease_locks": ["licence"]})
    held = stage.lease()
    gate = control("hoax").hold("destroy_lease")
    going = stage.actor(lambda engine: engine.release(held.id))
    gate.reached()
    assert stage.locks_of("lease:1") == {"licence", "seat(resource:1).slot(0)"}
    with pytest.raises(NothingFree):
        stage.lease()
    gate.open()
    assert going.result()
    assert stage.locks_of("lease:1") == set()
    assert on(stage.lease()).id == 1


def test_of_a_candidate_that_was_lost_the_lease_keeps_nothing(stage: Stage) -> None:
    """S41: it loses A at its terms, takes B in the same breath, and holds what B needs alone; A serves the next."""
    stage.offer(hoax={"plans": 2, "lease_locks": ["terms({n})"]}, other={"type": "hoax", "lease_locks": ["terms(0)"]})
    for held in several(stage.engine, "hoax", 2, blueprint="hoax"):
        stage.engine.release(held.id)
    assert [r.name for r in stage.live()] == ["hoax.plain.0", "hoax.plain.1"]
    holder = stage.lease(blueprint="other")
    third = stage.lease(blueprint="hoax")
    assert on(third).name == "hoax.plain.1"
    assert stage.locks_of(f"lease:{third.id}") == {"seat(resource:2).slot(0)", "terms(1)"}
    assert [lost["key"] for lost in stage.events("slot-lock.lost") if lost["lease"] == third.id] == ["terms(0)"]
    stage.engine.release(holder.id)
    assert on(stage.lease(blueprint="hoax")).id == 1


def test_a_binding_whose_slot_lock_is_held_elsewhere_is_passed_over(stage: Stage) -> None:
    """S41 for a pool: the next one is taken, in the same transaction."""
    stage.offer(other={"plans": 1, "slot_locks": ["host(h1)"]}, lab={"kind": "host-pool", "hosts": ["h1", "h2"]})
    stage.lease("hoax")
    held = stage.lease("host")
    assert on(held).name == "h2"
    assert stage.locks_of(f"lease:{held.id}") == {f"seat(resource:{on(held).id}).slot(0)"}
    assert [lost["key"] for lost in stage.events("slot-lock.lost")] == ["host(h1)"]


def test_a_key_that_is_asked_for_twice_is_one_key(stage: Stage) -> None:
    """S42"""
    stage.offer(hoax={"slot_locks": ["x", "x"], "lease_locks": ["y", "y"]})
    held = stage.lease()
    assert on(held).slot_locks == ("x",)
    assert stage.locks_of("lease:1") == {"seat(resource:1).slot(0)", "y"}


def test_what_a_holder_has_it_may_ask_for_again(stage: Stage) -> None:
    """S43: also one of many slots, which stays the same one."""
    stage.offer(hoax={"slot_locks": ["x*4"]})
    stage.lease()
    [lock] = [row for row in stage.store.slot_locks.all() if row.holder == "resource:1"]
    assert lock.key == "x.slot(0)"
    with stage.store.write():
        assert stage.store.slot_locks.take([SlotLock("x", 4)], "resource:1") == ["x.slot(0)"]
    assert stage.locks_of("resource:1") == {"x.slot(0)"}


def test_of_k_slots_k_are_taken_and_the_next_waits_for_one_to_be_free(stage: Stage) -> None:
    """S44: whichever is given back is the one that is found."""
    stage.offer(hoax={"plans": 9, "slot_locks": ["pool*3"]})
    held = [stage.lease() for _ in range(3)]
    assert [on(one).slot_locks for one in held] == [("pool.slot(0)",), ("pool.slot(1)",), ("pool.slot(2)",)]
    with pytest.raises(NothingFree):
        stage.lease()
    waiting = stage.leasing()
    stage.pending()
    stage.engine.release_resource(2)
    assert on(waiting.result()).slot_locks == ("pool.slot(1)",)


def test_requests_that_need_each_others_keys_never_wait_in_a_ring(stage: Stage) -> None:
    """S37: keys are taken together, so nobody holds one while waiting for the other."""
    stage.offer(ab={"plans": 1, "slot_locks": ["a", "b"]}, ba={"plans": 1, "slot_locks": ["b", "a"]})
    gate = Gate()
    actors = [
        stage.leasing(blueprint=name, prepare=lambda e: pausing(e.store.slot_locks, "look_free", gate))
        for name in ("ab", "ba")
    ]
    gate.reached()
    gate.reached()
    gate.open()
    first = stage.first_of(actors)
    assert set(stage.locks().values()) == {"resource:1", f"lease:{first.result().id}"}
    stage.engine.release_resource(1)
    for actor in actors:
        actor.result()
