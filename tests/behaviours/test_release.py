"""Giving back, taking away and giving up, many times and in the wrong moment: S66 S71 S72 S74 S75 S79."""

from itertools import repeat
from pathlib import Path

import pytest
from conftest import Clock

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import BlueprintError, NeverPossible, NotFound, NothingFree
from drydock.model import Lease, LeaseStatus, ResourceStatus

from .stage import Gate, Stage, control, on, pausing, several

# ---- many at once


def test_of_many_releases_at_once_one_is_done(stage: Stage) -> None:
    """S66, a regression of upstream: hooks once, one event, no status goes backwards."""
    stage.offer(hoax={})
    held = stage.lease()
    gate = Gate()
    actors = [
        stage.actor(lambda e: e.release(held.id), prepare=lambda e: pausing(e.store, "_begin", gate, before=True))
        for _ in range(6)
    ]
    for _ in actors:
        gate.reached()
    gate.open()
    assert sorted(actor.result() for actor in actors) == [False] * 5 + [True]
    assert control("hoax").count("destroy_lease") == 1
    assert [len(stage.events(name)) for name in ("lease.released", "lease.destroyed")] == [1, 1]


def test_a_release_while_the_lease_is_being_cleaned_up_after_does_nothing(stage: Stage) -> None:
    """S66: whoever comes second neither runs the hook nor waits for it."""
    stage.offer(hoax={})
    held = stage.lease()
    gate = control("hoax").hold("destroy_lease")
    first = stage.actor(lambda engine: engine.release(held.id))
    gate.reached()
    assert not stage.engine.release(held.id)
    stage.engine.tend()
    assert stage.lease_status(held.id) is LeaseStatus.RELEASED
    gate.open()
    assert first.result()
    assert control("hoax").count("destroy_lease") == 1


def test_of_many_releases_of_a_resource_at_once_one_is_done(stage: Stage) -> None:
    """S66 for resources, with leases on it."""
    stage.offer(hoax={"seats": 3, "limit": 1})
    for _ in range(3):
        stage.lease()
    gate = Gate()
    actors = [
        stage.actor(lambda e: e.release_resource(1), prepare=lambda e: pausing(e.store, "_begin", gate, before=True))
        for _ in range(4)
    ]
    for _ in actors:
        gate.reached()
    gate.open()
    assert sorted(actor.result() for actor in actors) == [False, False, False, True]
    assert control("hoax").count("destroy") == 1
    assert [control("hoax").count("destroy_lease", f"lease:{n}") for n in (1, 2, 3)] == [1, 1, 1]
    assert len(stage.events("resource.released")) == len(stage.events("resource.destroyed")) == 1


def test_a_release_and_a_reclaim_at_once_leave_one_end(stage: Stage) -> None:
    """S66: whichever comes second finds it on its way out."""
    stage.offer(hoax={})
    stage.engine.release(stage.lease().id)
    gate = Gate()
    reclaiming = stage.actor(lambda e: e.reclaim(), prepare=lambda e: pausing(e.store.resources, "live", gate))
    gate.reached()
    assert stage.engine.release_resource(1)
    gate.open()
    [result] = reclaiming.result()
    assert not result.reclaimed
    assert control("hoax").count("destroy") == 1


# ---- in order


def test_leases_end_before_their_resource_is_torn_down(stage: Stage) -> None:
    """S71: each is cleaned up after while the resource still stands; the holder can see why."""
    stage.offer(hoax={"seats": 3, "limit": 1})
    for _ in range(3):
        stage.lease()
    assert stage.engine.release_resource(1, "maintenance")
    hooks = [call.hook for call in control("hoax").calls if call.hook.startswith("destroy")]
    assert hooks == ["destroy_lease"] * 3 + ["destroy"]
    ended = stage.store.leases.latest(9)
    assert {(lease.status, lease.reason) for lease in ended} <= {
        (LeaseStatus.DESTROYED, "maintenance"),
        (LeaseStatus.DESTROYED, None),
    }
    assert {event["reason"] for event in stage.events("lease.released")} == {"maintenance"}


def test_a_resource_stands_until_the_last_lease_has_been_cleaned_up_after(stage: Stage) -> None:
    """S71: also when that takes longer than the command that took it away."""
    stage.offer(hoax={"seats": 2, "limit": 1})
    first, _ = stage.lease(), stage.lease()
    gate = control("hoax").hold("destroy_lease")
    slow = stage.actor(lambda engine: engine.release(first.id))
    gate.reached()
    taking = stage.actor(lambda engine: engine.release_resource(1))
    gate.reached()
    stage.engine.tend()
    assert stage.resource(1).status is ResourceStatus.RELEASED
    assert control("hoax").count("destroy") == 0
    gate.open()
    assert slow.result()
    assert taking.result()
    assert stage.resource(1).status is ResourceStatus.DESTROYED


@pytest.mark.parametrize("hook", ["destroy", "destroy_lease"])
def test_what_cannot_be_torn_down_is_tried_again_by_whoever_comes_by(stage: Stage, clock: Clock, hook: str) -> None:
    """S72: it keeps its slot locks, is never active again, and whoever waits for its room gets it in the end."""
    stage.offer(hoax={"limit": 1})
    held = stage.lease()
    control("hoax").fail_in[hook] = repeat(RuntimeError("the door is stuck"))
    assert stage.engine.release_resource(on(held).id)
    failed = "resource.destroy-failed" if hook == "destroy" else "lease.destroy-failed"
    for tries in (1, 2, 3):
        assert len(stage.events(failed)) == tries
        stage.engine.tend()
        assert len(stage.events(failed)) == tries  # it is left alone for a while
        assert stage.resource(1).status is ResourceStatus.RELEASED
        assert "hoax(hoax.plain.0)" in stage.locks()
        clock.forward(2.0**tries / 2 - 0.1)
        stage.engine.tend()
        assert len(stage.events(failed)) == tries  # for twice as long each time
        clock.forward(0.1)
        stage.engine.tend()
    waiting = stage.leasing()
    stage.pending()
    control("hoax").fail_in.clear()
    clock.forward(8)
    assert on(waiting.result()).id == 2
    assert stage.resource(1).status is ResourceStatus.DESTROYED


def test_to_release_what_is_over_is_a_no_op_and_what_never_was_an_error(stage: Stage) -> None:
    """S74: and the history tells it once."""
    stage.offer(hoax={})
    held = stage.lease()
    assert stage.engine.release(held.id)
    assert stage.engine.release_resource(1)
    events = len(stage.store.events.after(0))
    assert not stage.engine.release(held.id)
    assert not stage.engine.release_resource(1)
    assert len(stage.store.events.after(0)) == events
    with pytest.raises(NotFound):
        stage.engine.release(99)
    with pytest.raises(NotFound):
        stage.engine.release_resource(99)


def test_to_release_a_broken_lease_that_is_being_cleaned_up_after_is_a_no_op(stage: Stage, clock: Clock) -> None:
    """S74: it finishes what is due, and nothing else."""
    stage.offer(hoax={})
    control("hoax").fail_in["activate_lease"] = iter([RuntimeError("no")])
    control("hoax").fail_in["destroy_lease"] = iter([RuntimeError("no")])
    with pytest.raises(BlueprintError):
        stage.lease(wait=None)
    assert stage.lease_status(1) is LeaseStatus.BROKEN
    clock.forward(5)
    assert not stage.engine.release(1)
    assert stage.lease_status(1) is LeaseStatus.DESTROYED


def test_the_real_thing_is_torn_down(stage: Stage, tmp_path: Path) -> None:
    """S75, with folders: gone with the lease, and nothing of the last holder is there for the next."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".drydock-root").touch()
    stage.offer(scratch={"kind": "scratch-dir", "root": str(tmp_path / "root"), "limit": 1})
    held = stage.lease("scratch-dir")
    folder = Path(on(held).attributes["path"])
    (folder / "mine").write_text("secret")
    stage.engine.release(held.id)
    again = stage.lease("scratch-dir")
    assert (Path(on(again).attributes["path"]), list(folder.iterdir())) == (folder, [])
    stage.engine.release_resource(on(again).id)
    assert not folder.exists()
    assert stage.locks() == {}


def test_whatever_is_wrong_with_the_queue_a_release_goes_through(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is told: in the history, and by the doctor."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["a"]})
    held = stage.lease("host")
    monkeypatch.setattr("drydock.request.LOOK_EVERY_SECONDS", 0.02)
    waiting = stage.leasing("host")
    stage.pending()

    def fitting(*_: object) -> None:
        raise ValueError("who would have thought of that")

    def serve(news: object) -> None:
        stage.store.events.add("half.done")
        fitting()

    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "serve", serve)
        patch.setattr("drydock.handover.fitting", fitting)
        assert stage.engine.release(held.id)
    assert stage.store.leases.status(held.id) is LeaseStatus.DESTROYED
    assert stage.events("half.done") == []
    assert len(stage.events("queue.not-served")) == 1
    assert [f.rule for f in examine(stage.store) if f.broken] == ["queue-not-served"]
    stage.spoilt = True  # by what was planted
    assert on(waiting.result()).name == "a"  # at his next look


# ---- several, or none


def test_of_several_all_are_granted_or_none(stage: Stage) -> None:
    """S79: what is there is not taken while the rest is missing."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["a", "b", "c"]})
    held = stage.lease("host")
    with pytest.raises(NothingFree):
        several(stage.engine, "host", 3, wait=0.0)
    assert stage.store.leases.live() == [held]
    waiting = stage.actor(lambda engine: several(engine, "host", 3))
    stage.pending(3)
    assert [resource.used for resource in stage.live()] == [1]
    with pytest.raises(NothingFree):  # what is free is kept for whoever came first
        stage.lease("host")
    for lease in stage.store.leases.live():
        if lease.status is LeaseStatus.ACTIVE:
            stage.engine.release(lease.id)
    assert len({on(lease).name for lease in waiting.result()}) == 3
    with pytest.raises(NeverPossible):
        several(stage.engine, "host", 4)


def test_when_one_of_several_cannot_be_built_all_are_given_back(stage: Stage) -> None:
    """S79: those that were active too."""
    stage.offer(hoax={"plans": 9})
    stage.engine.release(stage.lease().id)
    control("hoax").fail_in["activate"] = iter([RuntimeError("no power")])
    with pytest.raises(BlueprintError, match="no power"):
        several(stage.engine, "hoax", 3)
    assert stage.store.leases.live() == []
    assert {lease.status for lease in stage.store.leases.latest(9)} == {LeaseStatus.DESTROYED}


def test_when_one_of_several_cannot_be_prepared_all_are_given_back(stage: Stage) -> None:
    """S79: the first is active when the second fails."""
    stage.offer(hoax={})
    control("hoax").fail_in["activate_lease"] = iter([None, RuntimeError("no")])  # type: ignore[list-item]
    with pytest.raises(BlueprintError):
        several(stage.engine, "hoax", 2)
    assert stage.store.leases.live() == []
    assert len(stage.events("lease.activated")) == 1


def test_two_requests_for_two_of_three_never_wait_for_each_other(stage: Stage) -> None:
    """S79: nobody holds one while waiting for the second, so one of them is served, and then the other."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["a", "b", "c"]})
    gate = Gate()

    def two(engine: Engine) -> list[Lease]:
        return several(engine, "host", 2)

    actors = [stage.actor(two, prepare=lambda e: pausing(e.store, "_begin", gate, before=True)) for _ in range(2)]
    gate.reached()
    gate.reached()
    gate.open()
    first = stage.first_of(actors).result()
    assert len(stage.pending(2)) == 2
    assert sum(resource.used for resource in stage.live()) == 2
    for lease in first:
        stage.engine.release(lease.id)
    assert [len(actor.result()) for actor in actors] == [2, 2]
