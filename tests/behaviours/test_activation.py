"""Building, preparing, and both going wrong: S11 S23 S28 S29 S30 S31 S32 S33 S50 S69."""

from itertools import repeat

import pytest
from conftest import Clock

from drydock.engine import Engine
from drydock.errors import BlueprintError, Conflict
from drydock.model import Lease, LeaseStatus, ResourceStatus
from drydock.store.base import Store

from .promises import ALL
from .stage import Actor, Gate, Stage, control, lease, on, pausing

NO_POWER = RuntimeError("no power")


@pytest.fixture(autouse=True)
def _no_pause_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drydock.request.FIRST_PAUSE_SECONDS", 0.0)


def reason(store: Store, id: int) -> str | None:
    found = store.leases.get(id)
    assert found is not None
    return found.reason


# ---- resources


def test_a_build_that_fails_four_times_is_tried_a_fifth_time(stage: Stage) -> None:
    """S11: the same request is served as soon as the blueprint is well again."""
    stage.offer(hoax={})
    control("hoax").fail_in["activate"] = iter([NO_POWER] * 4)
    held = stage.lease(wait=None)
    assert (held.id, held.status, on(held).id) == (1, LeaseStatus.ACTIVE, 5)
    assert len(stage.events("resource.broken")) == 4


def test_a_build_that_failed_is_tried_again_though_nothing_else_happens(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S11: its blueprint rests for a moment, of which nobody tells the request."""
    monkeypatch.setattr("drydock.request.FIRST_PAUSE_SECONDS", 0.05)
    stage.offer(hoax={})
    control("hoax").fail_in["activate"] = iter([NO_POWER] * 2)
    assert on(stage.lease(wait=30.0)).id == 3


def test_after_five_failed_builds_the_request_gives_up_and_says_why(stage: Stage) -> None:
    """PLUGIN-016 and S11: each failure is told with its class and message."""
    stage.offer(hoax={})
    control("hoax").fail_in["activate"] = repeat(NO_POWER)
    with pytest.raises(BlueprintError, match=r'blueprint "hoax" failed in activate: RuntimeError: no power') as failed:
        stage.lease(wait=None)
    assert failed.value.__cause__ is NO_POWER
    for event in ("resource.broken", "lease.build-failed"):  # on the thing, and on who asked for it
        assert [broken["error"] for broken in stage.events(event)] == [str(failed.value)] * 5
    assert stage.lease_status(1) is LeaseStatus.DESTROYED
    assert "no power" in (reason(stage.store, 1) or "")
    assert (stage.live(), stage.locks()) == ([], {})


def test_what_one_blueprint_cannot_build_another_one_does(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: the one that failed rests meanwhile."""
    monkeypatch.setattr("drydock.request.FIRST_PAUSE_SECONDS", 3600.0)
    stage.offer(broken={}, well={})
    control("broken").fail_in["activate"] = repeat(NO_POWER)
    assert on(stage.lease(wait=None)).blueprint == "well"


def test_a_broken_resource_keeps_its_slot_locks_until_it_is_destroyed(stage: Stage) -> None:
    """S30: only then may the same thing be built again; the lease that waits for it is served by another."""
    stage.offer(hoax={"plans": 2})
    control("hoax").fail_in["activate"] = iter([NO_POWER])
    gate = control("hoax").hold("destroy")
    actor = stage.leasing()
    gate.reached()
    assert stage.resource(1).status is ResourceStatus.BROKEN
    assert stage.locks_of("resource:1") == {"hoax(hoax.plain.0)"}
    assert on(stage.lease()).name == "hoax.plain.1"
    gate.open()
    assert on(actor.result()).name == "hoax.plain.0"
    assert stage.resource(1).status is ResourceStatus.DESTROYED


def test_a_request_learns_that_somebody_else_finished_its_build(stage: Stage) -> None:
    """S28: it yielded; another command, passing by, built it on; the request needs no second build."""
    stage.offer(hoax={})
    control("hoax").yield_in["activate"] = 0.0
    put_down = Gate()
    actor = stage.leasing(prepare=lambda e: pausing(e.store, "put_down", put_down))
    put_down.reached()  # inside its transaction, which is kept as soon as the gate opens
    del control("hoax").yield_in["activate"]
    put_down.open()
    while actor.busy:
        stage.engine.tend()
    assert on(actor.result()).id == 1
    assert control("hoax").count("activate") == 1


# ---- leases


def thrown_back(stage: Stage) -> Actor[Lease]:
    """A lease that was acquired on resource 1, which is released while the lease is being prepared."""
    gate = control("hoax").hold("activate_lease")
    actor = stage.leasing()
    gate.reached()
    assert stage.lease_status(1) is LeaseStatus.ACQUIRED
    assert stage.engine.release_resource(1)
    assert (stage.resource(1).status, stage.lease_status(1)) == (ResourceStatus.RELEASED, LeaseStatus.ACQUIRED)
    gate.open()
    return actor


def test_a_lease_whose_resource_ends_before_it_is_ready_is_thrown_back(stage: Stage) -> None:
    """S29, S50: it is cleaned up after, holds nothing of the old resource, and is served by another one."""
    stage.offer(hoax={"lease_locks": ["licence({name})"], "plans": 2})
    held = thrown_back(stage).result()
    assert (held.id, held.status, on(held).id) == (1, LeaseStatus.ACTIVE, 2)
    assert stage.locks_of("lease:1") == {"seat(resource:2).slot(0)", f"licence({on(held).name})"}
    assert [e["resource"] for e in stage.events("lease.reacquired")] == [1]
    assert stage.resource(1).status is ResourceStatus.DESTROYED
    assert control("hoax").count("destroy_lease", "lease:1") == 1


def test_what_a_thrown_back_lease_held_is_free_for_others(stage: Stage) -> None:
    """S29: while it waits again it keeps nobody from anything."""
    stage.offer(hoax={"limit": 1, "lease_locks": ["licence"]}, other={"lease_locks": ["licence"]})
    gate = control("hoax").hold("activate_lease")
    actor = stage.leasing(blueprint="hoax")
    gate.reached()
    control("hoax").fail_in["activate"] = repeat(NO_POWER)
    stage.engine.release_resource(1)
    building = control("hoax").hold("activate")
    gate.open()
    building.reached()  # the request builds anew, and holds nothing meanwhile
    assert stage.lease_status(1) is LeaseStatus.PENDING
    assert stage.locks_of("lease:1") == set()
    other = stage.lease(blueprint="other")
    building.open()
    stage.eventually(lambda: control("hoax").count("destroy") == 2)
    assert stage.engine.release(other.id)
    assert isinstance(actor.error(), BlueprintError)


def test_a_resource_with_a_lease_on_it_goes_when_the_lease_has_gone(stage: Stage) -> None:
    """S50: whoever looked at it before, and could do nothing yet, leaves it to whoever ends the lease."""
    stage.offer(hoax={"limit": 1})
    gate = control("hoax").hold("activate_lease")
    actor = stage.leasing()
    gate.reached()
    passer_by = Gate()

    def look(engine: Engine) -> None:
        engine.release_resource(1)
        engine.tend()
        passer_by()

    bystander = stage.actor(look)
    passer_by.reached()  # it lives on, and calls nothing any more
    gate.open()
    assert on(actor.result()).id == 2
    assert stage.resource(1).status is ResourceStatus.DESTROYED
    passer_by.open()
    bystander.result()


def test_a_lease_that_cannot_be_prepared_breaks_alone(stage: Stage) -> None:
    """S31, S32: it is cleaned up after without anybody asking, and its resource serves the next."""
    stage.offer(hoax={"lease_locks": ["licence"]})
    control("hoax").fail_in["activate_lease"] = iter([NO_POWER])
    with pytest.raises(BlueprintError, match="failed in activate_lease"):
        stage.lease(wait=None)
    assert stage.lease_status(1) is LeaseStatus.DESTROYED
    assert "no power" in (reason(stage.store, 1) or "")
    assert set(stage.locks().values()) == {"resource:1"}
    assert control("hoax").count("destroy_lease", "lease:1") == 1
    assert on(stage.lease()).id == 1


@pytest.mark.parametrize("hook", ["activate", "activate_lease", "destroy", "destroy_lease"])
def test_a_hook_may_say_later(stage: Stage, clock: Clock, hook: str) -> None:
    """S33: the status stays as it is, the locks stay, and the hook is called again; nothing breaks."""
    stage.offer(hoax={"lease_locks": ["licence"]})
    control("hoax").yield_in[hook] = 7.0
    actor = stage.actor(lambda engine: engine.release_resource(on(lease(engine)).id))
    if hook.startswith("destroy"):
        actor.result()  # whoever releases does not wait for what is put down
    else:
        table = stage.store.resources if hook == "activate" else stage.store.leases
        stage.eventually(lambda: [worker for _, _, worker, _ in table.moving()] == [None])
    assert "hoax(hoax.plain.0)" in stage.locks()
    stage.engine.tend()
    assert control("hoax").count(hook, outcome="later") == 1  # not before its time
    control("hoax").yield_in.clear()
    clock.forward(7)
    stage.engine.tend()
    actor.result()
    assert stage.live() == []
    assert control("hoax").count(hook) == 1


def test_a_plain_error_breaks_and_is_not_tried_again_for_a_lease(stage: Stage) -> None:
    """S33: only `Yield` means later."""
    stage.offer(hoax={})
    control("hoax").fail_in["activate_lease"] = iter([NO_POWER])
    with pytest.raises(BlueprintError):
        stage.lease(wait=None)
    assert control("hoax").count("activate_lease", outcome="RuntimeError") == 1
    assert control("hoax").count("activate_lease") == 0


# ---- releases in the middle


def test_a_lease_that_is_released_while_it_is_prepared_ends_right_after(stage: Stage) -> None:
    """S69: whoever prepares it cleans up; the hooks never meet, and the requester is told."""
    stage.offer(hoax={})
    gate = control("hoax").hold("activate_lease")
    actor = stage.leasing()
    gate.reached()
    assert stage.engine.release(1)
    assert not stage.engine.release(1)
    stage.engine.tend()
    assert stage.lease_status(1) is LeaseStatus.RELEASED
    assert control("hoax").count("destroy_lease") == 0
    gate.open()
    assert isinstance(actor.error(), Conflict)
    assert stage.lease_status(1) is LeaseStatus.DESTROYED
    assert [call.hook for call in control("hoax").calls if call.about == "lease:1"] == [
        "activate_lease",
        "destroy_lease",
    ]
    assert stage.events("lease.activated") == []


def test_a_resource_that_is_released_while_it_is_built_never_becomes_active(stage: Stage) -> None:
    """S69: whoever builds it tears it down, and builds another."""
    stage.offer(hoax={"limit": 1})
    gate = control("hoax").hold("activate")
    actor = stage.leasing()
    gate.reached()
    assert stage.engine.release_resource(1)
    stage.engine.tend()
    assert control("hoax").count("destroy") == 0
    gate.open()
    assert on(actor.result()).id == 2
    assert stage.events("resource.activated")[0]["resource"] == 2
    assert [c.hook for c in control("hoax").calls if c.about == "resource:1"] == ["activate", "destroy"]


def test_a_request_that_is_released_while_its_build_runs_takes_the_build_with_it(stage: Stage) -> None:
    """S69: nothing is left of either."""
    stage.offer(hoax={})
    gate = control("hoax").hold("activate")
    actor = stage.leasing()
    gate.reached()
    assert stage.engine.release(1)
    assert stage.resource(1).status is ResourceStatus.RELEASED
    gate.open()
    assert isinstance(actor.error(), Conflict)
    assert (stage.live(), stage.locks()) == ([], {})


# ---- rubbish


@pytest.mark.parametrize("rubbish", ["a text", 7, {}])
def test_a_plan_that_is_none_is_told_by_blueprint_and_method(stage: Stage, rubbish: object) -> None:
    """S23: and nothing is left behind."""
    stage.offer(hoax={"rubbish": [rubbish]})
    with pytest.raises(BlueprintError, match=r'blueprint "hoax" failed in plans: must yield Plan, got'):
        stage.lease(wait=None)
    assert stage.store.leases.latest(ALL) == []
    assert stage.live() == []


def test_a_binding_that_is_none_is_told_by_blueprint_and_method(stage: Stage) -> None:
    """S23: the pool file is refused as a whole."""
    with pytest.raises(BlueprintError, match=r'blueprint "pool" failed in bindings: must give Binding, got str'):
        stage.offer(pool={"kind": "hoax-pool", "things": ["t1"], "rubbish": ["a text"]})
    assert stage.store.offers.blueprints() == []


def test_a_pool_may_build_too(stage: Stage) -> None:
    """A binding that must be built is pending until its hook is done, and released to others only when torn down."""
    stage.offer(pool={"kind": "hoax-pool", "things": ["t1"]})
    gate = control("pool").hold("activate")
    actor = stage.leasing("thing")
    gate.reached()
    assert stage.resource(1).status is ResourceStatus.PENDING
    gate.open()
    assert on(actor.result()).name == "t1"
    tearing = control("pool").hold("destroy")
    going = stage.actor(lambda engine: engine.release_resource(1))
    tearing.reached()
    waiting = stage.leasing("thing")
    stage.pending()
    tearing.open()
    assert going.result()
    assert on(waiting.result()).id == 2
