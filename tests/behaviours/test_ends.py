"""Ends of every sort, from every status, by several at once: S66 S69 S71 S72 S74 S75 S103.

After each test the stage asserts what always holds: hooks balanced and never two at once for one thing, no status that
went backwards, no slot lock of what is gone.
"""

import threading
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest
from conftest import Clock, apply

from drydock.engine import Engine
from drydock.errors import BlueprintError, DrydockError, LeaseLost, NotFound, NothingFree
from drydock.model import LeaseStatus, ResourceStatus

from .stage import Actor, Gate, Stage, control, on, pausing

DEAD = "0123456789ab"
FLAVORS = {"flavors": ["cherry", "banana"]}


def reap_the_dead(engine: Engine) -> None:
    with engine.store.write():
        engine.store.leases.bind(1, DEAD)
    engine.tend()


def prune(engine: Engine) -> None:
    apply(engine, {"blueprint": {"other": {"kind": "hoax", "plans": 0}}}, prune=True)


#: what is done to lease 1 and resource 1; each lease was asked for until a moment that is over when they are called
ENDS: dict[str, Callable[[Engine], object]] = {
    "release": lambda engine: engine.release(1),
    "expiry": lambda engine: engine.tend(),
    "death": reap_the_dead,
    "release-resource": lambda engine: engine.release_resource(1),
    "reclaim": lambda engine: engine.reclaim(),
    "prune": prune,
    "disable": lambda engine: engine.switch("blueprint:hoax", enabled=False),
}
STATUSES = ("pending", "acquired", "active", "released", "broken")


def brought_to(stage: Stage, status: str, until: float | None) -> tuple[Actor[object], Gate]:
    """Lease 1 in this status, and where the hook that is due stands."""
    told = control("hoax")
    hook = {"pending": "activate", "acquired": "activate_lease"}.get(status, "destroy_lease")
    gate = told.hold(hook)
    if status == "broken":
        told.fail_in["activate_lease"] = iter([RuntimeError("no")])
    actor: Actor[object] = stage.leasing(until=until)
    if status in ("active", "released"):
        actor.result()
    if status == "released":
        actor = stage.actor(lambda engine: engine.release(1))
    if status != "active":
        gate.reached()
    assert stage.lease_status(1) == status
    return actor, gate


def at_once(stage: Stage, ends: list[Callable[[Engine], object]]) -> list[Actor[object]]:
    """All of these begin at the same time."""
    ready = threading.Barrier(len(ends), timeout=30)
    return [stage.actor(end, prepare=lambda _: ready.wait()) for end in ends]


def settle(stage: Stage, clock: Clock, actors: list[Actor[object]]) -> None:
    """All come to an end, and then the resource goes; what is left over fails the test."""
    for actor in actors:
        actor.end()
        assert not isinstance(actor._outcome, BaseException) or isinstance(actor._outcome, DrydockError)
    clock.forward(5)
    stage.engine.tend()
    for resource in stage.live():
        stage.engine.release_resource(resource.id)
    assert stage.live() == []
    assert stage.store.leases.live() == []
    assert stage.locks() == {}
    ends = [e for name in ("lease.released", "lease.expired", "lease.given-up") for e in stage.events(name)]
    assert len(ends) <= len(stage.store.leases.latest(9))


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("end", ENDS)
def test_one_end_by_three_at_once(stage: Stage, clock: Clock, status: str, end: str) -> None:
    stage.offer(hoax={"plans": 1})
    actor, gate = brought_to(stage, status, clock() + 60 if end == "expiry" else None)
    if end == "expiry":
        clock.forward(60)
    actors = at_once(stage, [ENDS[end]] * 3)
    gate.open()
    settle(stage, clock, [actor, *actors])


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("order", ["as they stand", "backwards"])
def test_all_ends_at_once(stage: Stage, clock: Clock, status: str, order: str) -> None:
    stage.offer(hoax={"plans": 1, "cooldown": "1s"})
    actor, gate = brought_to(stage, status, clock() + 60)
    clock.forward(60)
    ends = list(ENDS.values())
    actors = at_once(stage, ends if order == "as they stand" else ends[::-1])
    gate.open()
    settle(stage, clock, [actor, *actors])


def test_of_many_who_tend_at_once_each_thing_is_done_by_one(stage: Stage, clock: Clock) -> None:
    """S103: a dead holder, one whose time is up, an old resource, one that is idle, and one that has cooled down."""
    stage.offer(
        hoax={"plans": 9},
        old={"plans": 9, "lifetime": "1m"},
        idle={"plans": 9, "ttl": "1m"},
        resting={"plans": 9, "cooldown": "1m"},
    )
    dead = stage.lease(blueprint="hoax")
    expired = stage.lease(blueprint="hoax", until=clock() + 60)
    old = stage.lease(blueprint="old")
    idle = stage.lease(blueprint="idle")
    stage.engine.release(idle.id)
    lost = stage.lease(blueprint="resting", until=clock() + 0.1)
    clock.forward(0.1)
    stage.engine.tend()
    with stage.store.write():
        stage.store.leases.bind(dead.id, DEAD)
    clock.forward(60)
    actors = at_once(stage, [lambda engine: engine.tend()] * 6)
    for actor in actors:
        actor.result()
    stage.engine.tend()
    assert {lease.id for lease in stage.store.leases.latest(9) if lease.status is LeaseStatus.DESTROYED} == {
        lease.id for lease in (dead, expired, old, idle, lost)
    }
    assert [event["lease"] for event in stage.events("lease.expired")] == [lost.id, expired.id]
    assert [event["reason"] for event in stage.events("resource.released")] == ["its time is up"] * 2
    assert on(stage.lease(blueprint="resting")).id == on(lost).id


# ---- slot locks and holders


@pytest.mark.parametrize("end", ["release-resource", "lifetime", "reclaim"])
def test_slot_locks_are_freed_last(stage: Stage, clock: Clock, end: str) -> None:
    """While the hooks run, first for the lease and then for the resource, nobody can have what they hold."""
    stage.offer(hoax={"plans": 1, "lifetime": "1m", "lease_locks": ["licence"]})
    held = stage.lease()
    told = control("hoax")
    if end == "reclaim":
        stage.engine.release(held.id)
    cleaning, tearing = told.hold("destroy_lease"), told.hold("destroy")
    if end == "lifetime":
        clock.forward(60)
    actor: Actor[object] = stage.actor(ENDS.get(end, ENDS["expiry"]))
    if end != "reclaim":
        cleaning.reached()
        assert stage.locks_of("lease:1") == {"licence", "seat(resource:1).slot(0)"}
        cleaning.open()
    tearing.reached()
    assert stage.locks() == {"hoax(hoax.plain.0)": "resource:1"}
    with pytest.raises(NothingFree):
        stage.lease()
    tearing.open()
    actor.result()
    assert stage.locks() == {}
    assert on(stage.lease()).id == 2


@pytest.mark.parametrize("end", ["release", "expiry", "release-resource"])
def test_the_holder_is_woken_when_his_lease_is_taken(stage: Stage, clock: Clock, end: str) -> None:
    stage.offer(hoax={})
    held = stage.lease(until=clock() + 3600)
    holder = stage.open()
    holder.listen()
    with stage.store.write():
        stage.store.leases.bind(held.id, holder.process)
    assert not holder.wait_for_news(0)
    if end == "expiry":
        clock.forward(3600)
    stage.actor(ENDS[end]).result()
    assert holder.wait_for_news(30)
    with pytest.raises(LeaseLost):
        stage.engine.verify(held.id)
    holder.close()


def test_commands_to_what_is_over_say_so(stage: Stage) -> None:
    """S74"""
    stage.offer(hoax={})
    held = stage.lease()
    stage.engine.release(held.id)
    for verb in (stage.engine.renew, stage.engine.verify):
        with pytest.raises(LeaseLost, match=f"lease {held.id} is lost: it is destroyed"):
            verb(held.id)
        with pytest.raises(NotFound):
            verb(99)
    with pytest.raises(LeaseLost):
        stage.engine.release(held.id, fence=held.fence)
    with pytest.raises(NotFound):
        stage.engine.seconds_left(99)


@pytest.mark.parametrize("end", ["expiry", "death"])
def test_the_folder_of_one_who_was_lost_is_gone(stage: Stage, clock: Clock, tmp_path: Path, end: str) -> None:
    """S75: nothing of the last holder is there for the next."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".drydock-root").touch()
    stage.offer(scratch={"kind": "scratch-dir", "root": str(tmp_path / "root"), "limit": 1})
    held = stage.lease("scratch-dir", until=clock() + 60 if end == "expiry" else None)
    folder = Path(on(held).attributes["path"])
    (folder / "mine").write_text("secret")
    clock.forward(60)
    ENDS[end](stage.engine)
    again = stage.lease("scratch-dir")
    assert (Path(on(again).attributes["path"]), list(folder.iterdir())) == (folder, [])


# ---- while a hook is at work


@pytest.mark.parametrize("pause", [None, 300.0])
@pytest.mark.parametrize("hook", ["activate", "activate_lease"])
def test_a_release_during_an_activation_takes_effect_directly_after_it(
    stage: Stage, hook: str, pause: float | None
) -> None:
    """S69: also when the hook wanted to be called again much later; the clock stands still here."""
    stage.offer(hoax={})
    told = control("hoax")
    gate = told.hold(hook)
    if pause is not None:
        told.yield_in[hook] = pause
    actor = stage.leasing()
    gate.reached()
    assert stage.engine.release(1)
    gate.open()
    assert isinstance(actor.error(), LeaseLost)
    stage.engine.tend()
    assert stage.lease_status(1) is LeaseStatus.DESTROYED
    if hook == "activate":
        assert stage.resource(1).status is ResourceStatus.DESTROYED


@pytest.mark.parametrize("hook", ["activate", "activate_lease"])
def test_what_is_released_while_its_hook_pauses_is_not_left_alone_for_so_long(stage: Stage, hook: str) -> None:
    """S69"""
    stage.offer(hoax={})
    control("hoax").yield_in[hook] = 300.0
    asleep = Gate()
    actor = stage.leasing(prepare=lambda e: pausing(e.store, "wait_for_news", asleep, before=True))
    asleep.reached()
    assert stage.engine.release(1)
    assert stage.lease_status(1) is LeaseStatus.DESTROYED
    if hook == "activate":
        assert stage.resource(1).status is ResourceStatus.DESTROYED
    asleep.open()
    assert isinstance(actor.error(), LeaseLost)


def test_a_lease_that_is_released_while_it_is_thrown_back_is_cleaned_up_after_once(stage: Stage) -> None:
    """S66, S71: its resource went before it was ready, and then the requester's time was up."""
    stage.offer(hoax={})
    preparing, cleaning = control("hoax").hold("activate_lease"), control("hoax").hold("destroy_lease")
    actor = stage.leasing()
    preparing.reached()
    stage.engine.release_resource(1)
    preparing.open()
    cleaning.reached()
    assert stage.lease_status(1) is LeaseStatus.ACQUIRED
    assert stage.engine.release(1)
    cleaning.open()
    assert isinstance(actor.error(), LeaseLost)
    assert control("hoax").count("destroy_lease", "lease:1") == 1
    assert stage.resource(1).status is ResourceStatus.DESTROYED


def test_time_to_get_ready_is_not_time_to_use(stage: Stage) -> None:
    """A ttl begins when the lease is active; before that it ends with its requester anyway."""
    uptime = Clock()
    stage.uptime = uptime
    stage.offer(hoax={})
    gate = control("hoax").hold("activate_lease")
    actor = stage.leasing(ttl=60)
    gate.reached()
    uptime.forward(3600)
    stage.engine.tend()
    gate.open()
    held = actor.result()
    assert held.status is LeaseStatus.ACTIVE
    assert stage.engine.seconds_left(held.id) == 60


# ---- hooks that fail


@pytest.mark.parametrize("hook", ["destroy", "destroy_lease"])
def test_a_hook_that_fails_is_tried_again_after_pauses_that_grow(stage: Stage, clock: Clock, hook: str) -> None:
    """S72: from a second to ten minutes, each told with what it said; meanwhile nobody is given the thing."""
    stage.offer(hoax={"limit": 1})
    stage.lease()
    control("hoax").fail_in[hook] = repeat(RuntimeError("stuck"))
    stage.engine.release_resource(1)
    name = "resource.destroy-failed" if hook == "destroy" else "lease.destroy-failed"
    pauses = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]
    for n, pause in enumerate(pauses):
        assert [event["again_after"] for event in stage.events(name)] == pauses[: n + 1]
        last = stage.events(name)[-1]
        assert (last["resource"], last["failures"]) == (1, n + 1)
        assert "RuntimeError: stuck" in last["error"]
        assert "hoax(hoax.plain.0)" in stage.locks()
        with pytest.raises(NothingFree):
            stage.lease()
        clock.forward(pause - 0.1)
        stage.engine.tend()
        assert len(stage.events(name)) == n + 1
        clock.forward(0.1)
        stage.engine.tend()
    control("hoax").fail_in.clear()
    clock.forward(600)
    stage.engine.tend()
    assert on(stage.lease()).id == 2


def test_a_lease_that_cannot_be_thrown_back_says_why(stage: Stage, clock: Clock) -> None:
    """S72: what could not be cleaned up after is told to the requester and to the history, and tried again."""
    stage.offer(hoax={})
    told = control("hoax")
    preparing = told.hold("activate_lease")
    actor = stage.leasing()
    preparing.reached()
    stage.engine.release_resource(1)
    told.fail_in["destroy_lease"] = iter([RuntimeError("stuck"), RuntimeError("stuck")])
    preparing.open()
    assert isinstance(actor.error(), BlueprintError)
    assert [event["failures"] for event in stage.events("lease.destroy-failed")] == [
        1,
        1,
    ]  # as what it was, and released
    assert stage.resource(1).status is ResourceStatus.RELEASED
    clock.forward(1)
    stage.engine.tend()
    assert stage.resource(1).status is ResourceStatus.DESTROYED


def test_a_request_is_not_pinned_to_a_reclaim_that_fails(stage: Stage, clock: Clock) -> None:
    """S72: another idle thing goes instead, though the clock stands still and the first one is never tried again."""
    stage.offer(hoax={"limit": 2, "plans": 9, **FLAVORS})
    cherries = [stage.lease(flavor="cherry") for _ in range(2)]
    for cherry in cherries:
        stage.engine.release(cherry.id)
    control("hoax").fail_in["destroy"] = iter([RuntimeError("stuck")])
    assert on(stage.leasing(flavor="banana").result()).id == 3
    assert stage.resource(1).status is ResourceStatus.RELEASED
    assert stage.resource(2).status is ResourceStatus.DESTROYED
    clock.forward(1)
    stage.engine.tend()
    assert stage.resource(1).status is ResourceStatus.DESTROYED
