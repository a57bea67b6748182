"""How long leases and resources last, on clocks that the test moves: S81 S83, and what dying leaves behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock

from drydock.errors import ConfigError, LeaseLost, NothingFree
from drydock.model import Lease, LeaseStatus, ResourceStatus
from drydock.testing.children import Child

from .stage import Gate, Stage, control, on, pausing, several

ONE_HOST = {"kind": "host-pool", "hosts": ["h1"]}
DAY = 86_400.0
#: a process that is not there
DEAD = "0123456789ab"


@pytest.fixture
def uptime(stage: Stage) -> Clock:
    """Uptime that only the test moves."""
    uptime = Clock()
    uptime.now = 1000.0
    stage.uptime = uptime
    return uptime


def die(stage: Stage, lease: Lease) -> None:
    """Let the process that holds a lease be dead."""
    with stage.store.write():
        stage.store.leases.bind(lease.id, DEAD)
    stage.engine.tend()


def is_over(stage: Stage, lease: Lease) -> bool:
    stage.engine.tend()
    return stage.lease_status(lease.id) is LeaseStatus.DESTROYED


# ---- ttl


@pytest.mark.parametrize("step", [DAY, -DAY])
def test_ttl_counts_on_a_clock_that_nobody_sets(stage: Stage, clock: Clock, uptime: Clock, step: float) -> None:
    """Neither ends a lease early nor makes it immortal that somebody corrects the date."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", ttl=60)
    clock.forward(step)
    assert not is_over(stage, held)
    assert stage.engine.seconds_left(held.id) == 60
    uptime.forward(59.9)
    assert not is_over(stage, held)
    stage.engine.verify(held.id, fence=held.fence)
    clock.forward(-step)
    uptime.forward(0.1)
    assert is_over(stage, held)
    [expired] = stage.events("lease.expired")
    assert (expired["lease"], expired["resource"]) == (held.id, on(held).id)
    assert expired["reason"] == "it was not renewed in time"
    assert stage.store.leases.latest(1)[0].reason == "it was not renewed in time"


def test_a_hook_that_sets_the_clock_back_moves_no_end(stage: Stage, clock: Clock, uptime: Clock) -> None:
    """PLUGIN-080: neither of the lease that it is about, nor of another."""

    def sets_it_back() -> Iterator[None]:
        clock.forward(-DAY)
        yield

    stage.offer(lab=ONE_HOST, hoax={"kind": "hoax"})
    held = [stage.lease("host", ttl=60)]
    control("hoax").fail_in["activate"] = sets_it_back()
    now = clock.now
    held.append(stage.lease("hoax", ttl=60))
    assert clock.now == now - DAY
    uptime.forward(59.9)
    assert [is_over(stage, lease) for lease in held] == [False, False]
    uptime.forward(0.1)
    assert [is_over(stage, lease) for lease in held] == [True, True]


def test_renewing_begins_the_ttl_anew(stage: Stage, uptime: Clock) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", ttl=60)
    for _ in range(3):
        uptime.forward(59)
        assert not is_over(stage, held)
        stage.engine.renew(held.id, fence=held.fence)
        assert stage.engine.seconds_left(held.id) == 60
    assert stage.engine.renew(held.id, ttl=5).ttl == 5
    uptime.forward(5)
    assert is_over(stage, held)


def test_a_lease_without_a_ttl_is_given_one(stage: Stage, uptime: Clock) -> None:
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    assert stage.engine.seconds_left(held.id) is None
    stage.engine.renew(held.id, ttl=10)
    uptime.forward(10)
    assert is_over(stage, held)


def test_the_time_in_the_queue_does_not_count(stage: Stage, uptime: Clock) -> None:
    """The ttl begins with the grant, by whomever."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    asleep = Gate()
    waiting = stage.leasing("host", ttl=60, prepare=lambda e: pausing(e.store, "wait_for_news", asleep, before=True))
    asleep.reached()
    uptime.forward(1000)
    stage.engine.tend()
    stage.engine.release(held.id)
    assert stage.engine.seconds_left(held.id + 1) == 60
    asleep.open()
    waiting.result()


@pytest.mark.parametrize("end", ["ttl", "until"])
def test_past_its_end_nothing_but_giving_it_back_is_left(stage: Stage, clock: Clock, uptime: Clock, end: str) -> None:
    """Also while nobody has ended it: the holder must not go on because nobody came by."""
    stage.offer(lab={**ONE_HOST, "cooldown": "1m"})
    held = stage.lease("host", ttl=60) if end == "ttl" else stage.lease("host", until=clock() + 60)
    (uptime if end == "ttl" else clock).forward(60)
    for use in (
        lambda: stage.engine.renew(held.id),
        lambda: stage.engine.renew(held.id, ttl=60),
        lambda: stage.engine.renew(held.id, until=clock() + 60),
        lambda: stage.engine.verify(held.id),
        lambda: stage.engine.keep(held.id, until=clock() + 60),
        lambda: stage.engine.release(held.id, fence=held.fence),
    ):
        with pytest.raises(LeaseLost, match="its time is over"):
            use()
    assert stage.engine.seconds_left(held.id) == 0
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE
    assert not stage.engine.release(held.id)  # it was lost by then, whoever notes it first
    assert stage.lease_status(held.id) is LeaseStatus.DESTROYED
    assert not stage.engine.release(held.id)
    assert len(stage.events("lease.expired")) == 1
    with pytest.raises(NothingFree):  # so there is a cool-down
        stage.lease("host")


def test_a_wrong_fence_changes_nothing(stage: Stage, uptime: Clock) -> None:
    stage.offer(lab=ONE_HOST)
    stage.engine.release(stage.lease("host").id)
    held = stage.lease("host", ttl=60)
    uptime.forward(59)
    for use in (stage.engine.renew, stage.engine.verify, stage.engine.release):
        with pytest.raises(LeaseLost, match="its fence is 2, not 1"):
            use(held.id, fence=1)
    assert stage.engine.seconds_left(held.id) == 1
    assert stage.engine.release(held.id, fence=2)


# ---- until


def test_a_lease_ends_at_the_moment_until(stage: Stage, clock: Clock) -> None:
    """S81, and not before; a renewal may move the moment."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", until=clock() + 5)
    clock.forward(4.9)
    assert not is_over(stage, held)
    assert stage.engine.renew(held.id, until=clock() + 5).until == clock() + 5
    clock.forward(4.9)
    assert not is_over(stage, held)
    clock.forward(0.1)
    assert is_over(stage, held)
    assert [event["reason"] for event in stage.events("lease.expired")] == ["its time is up"]


def test_whichever_end_is_first_counts(stage: Stage, clock: Clock, uptime: Clock) -> None:
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2"]})
    renewed = stage.lease("host", ttl=60, until=clock() + 90)
    forgotten = stage.lease("host", ttl=60, until=clock() + 90)
    assert stage.engine.seconds_left(renewed.id) == 60
    for time in (clock, uptime):
        time.forward(50)
    stage.engine.renew(renewed.id)
    assert stage.engine.seconds_left(renewed.id) == 40
    for time in (clock, uptime):
        time.forward(10)
    assert is_over(stage, forgotten)
    assert not is_over(stage, renewed)
    clock.forward(30)
    assert is_over(stage, renewed)


@pytest.mark.parametrize("why", ["time", "death"])
def test_what_seemed_to_be_over_is_looked_at_again_before_it_is_ended(stage: Stage, clock: Clock, why: str) -> None:
    """The clock was set back, or the lease is nobody's any more, since it was found."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", until=clock() + 60 if why == "time" else None)
    gate = Gate()
    method = "overdue" if why == "time" else "bound"
    if why == "time":
        clock.forward(60)
    else:
        with stage.store.write():
            stage.store.leases.bind(held.id, DEAD)
    tending = stage.actor(lambda e: e.tend(), prepare=lambda e: pausing(e.store.leases, method, gate))
    gate.reached()
    if why == "time":
        clock.forward(-10)
    else:
        with stage.store.write():
            stage.store.leases.bind(held.id, None)
    gate.open()
    tending.result()
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE


def waiting_until(stage: Stage, until: float, count: int = 1) -> tuple[Any, Gate]:
    """A request that has looked, and stands between its look and its sleep."""
    asleep = Gate()
    actor = stage.actor(
        lambda engine: several(engine, "host", count, until=until),
        prepare=lambda e: pausing(e.store, "wait_for_news", asleep, before=True),
    )
    asleep.reached()
    return actor, asleep


@pytest.mark.parametrize("count", [1, 2])
def test_a_request_that_waited_past_its_until_is_dropped(stage: Stage, clock: Clock, count: int) -> None:
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2", "h3"], "cooldown": "1m"})
    held = several(stage.engine, "host", 3, wait=0.0)
    actor, asleep = waiting_until(stage, clock() + 5, count)
    clock.forward(5)
    stage.engine.tend()
    assert {stage.lease_status(3 + n) for n in range(1, count + 1)} == {LeaseStatus.DESTROYED}
    assert {event["reason"] for event in stage.events("lease.given-up")} == {"its time is up"}
    for one in held:
        stage.engine.release(one.id)
    asleep.open()
    assert isinstance(actor.error(), LeaseLost)
    assert stage.events("resource.cooling-down") == []


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_given_to_a_request_that_waited_past_its_until(stage: Stage, clock: Clock, count: int) -> None:
    """Though nobody has dropped it yet: what it was given would be taken from it at once, and would cool down."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2", "h3"], "cooldown": "1m"})
    held = several(stage.engine, "host", 3, wait=0.0)
    actor, asleep = waiting_until(stage, clock() + 5, count)
    clock.forward(5)
    for one in held:
        stage.engine.release(one.id)
    asleep.open()
    assert isinstance(actor.error(), LeaseLost)
    stage.engine.tend()
    assert {event["lease"] for event in stage.events("lease.activated")} == {one.id for one in held}
    assert stage.events("resource.cooling-down") == []


def test_when_time_ends_a_request_for_several_no_part_of_it_is_served(stage: Stage, clock: Clock) -> None:
    """Three were wanted and two are there: they go to nobody whose time is up, one lease less or not."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2", "h3"], "cooldown": "1m"})
    held = stage.lease("host")
    actor, asleep = waiting_until(stage, clock() + 5, 3)
    clock.forward(5)
    stage.engine.tend()
    assert {event["lease"] for event in stage.events("lease.activated")} == {held.id}
    assert stage.events("resource.cooling-down") == []
    asleep.open()
    assert isinstance(actor.error(), LeaseLost)


@pytest.mark.parametrize("ends", ["in time", "too late"])
def test_several_are_held_together_or_not_at_all(stage: Stage, uptime: Clock, ends: str) -> None:
    """One whose time is over while the others are still being built is not handed out as if it were held."""
    stage.offer(pool={"kind": "hoax-pool", "things": ["t1", "t2"]})
    stage.engine.release(stage.lease("thing").id)
    gate = control("pool").hold("activate")
    actor = stage.actor(lambda engine: several(engine, "thing", 2, ttl=60))
    gate.reached()
    assert len(stage.events("lease.activated")) == 2
    uptime.forward(59 if ends == "in time" else 60)
    stage.engine.tend()
    gate.open()
    if ends == "in time":
        assert {lease.status for lease in actor.result()} == {LeaseStatus.ACTIVE}
    else:
        assert isinstance(actor.error(), LeaseLost)
        assert stage.store.leases.live() == []


# ---- the start of the machine

HOLDER = """
import drydock
dock = drydock.connect(sys.argv[1])
for terms in ({"ttl": 3600, "detach": True}, {"until": float(sys.argv[2]), "detach": True}, {"detach": True}, {}):
    say(dock.lease("host", wait=0, **terms).id)
hear()
"""


def test_a_new_start_of_the_machine_ends_what_counted_on_the_old_one(
    stage: Stage, clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases with a ttl, and those of processes; one that lasts until a moment goes on, and so does one without end."""
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2", "h3", "h4"]})
    with Child(HOLDER, path, clock() + 3600) as holder:
        holder.expect("1", "2", "3", "4")
    monkeypatch.setattr("drydock.store.base.boot", lambda: "ffffffff")
    stage.uptime = lambda: 5.0  # far before any deadline of the old count
    stage.store.boot = "ffffffff"
    assert stage.engine.seconds_left(1) == 0
    with pytest.raises(LeaseLost):
        stage.engine.renew(1)
    stage.engine.tend()
    over = {lease.id: lease.reason for lease in stage.store.leases.latest(9) if lease.ended_at}
    assert over == {1: "the machine was started again", 4: "its process died"}
    assert [lease.id for lease in stage.store.leases.live()] == [2, 3]
    stage.engine.verify(2)
    again = stage.lease("host", ttl=60)
    assert stage.engine.seconds_left(again.id) == 60


# ---- the warning


@pytest.mark.parametrize(("length", "before"), [(20.0, 5.0), (3600.0, 60.0)])
@pytest.mark.parametrize("end", ["ttl", "until"])
def test_the_holder_is_told_once_before_its_time_is_up(
    stage: Stage, clock: Clock, uptime: Clock, end: str, length: float, before: float
) -> None:
    """A minute before, or a quarter of its time if that is less; once more after each renewal."""
    stage.offer(lab=ONE_HOST)
    terms: Callable[[], dict[str, float]]
    terms = (lambda: {"ttl": length}) if end == "ttl" else (lambda: {"until": clock() + length})
    held = stage.lease("host", **terms())
    time = uptime if end == "ttl" else clock
    holder = stage.open()
    holder.listen()
    with stage.store.write():
        stage.store.leases.bind(held.id, holder.process)
    for warnings in (1, 2):
        time.forward(length - before - 0.1)
        assert not stage.engine.reap()
        assert len(stage.events("lease.ending")) == warnings - 1
        assert not holder.wait_for_news(0)
        time.forward(0.1)
        stage.engine.reap()
        assert holder.wait_for_news(30)
        stage.engine.reap()
        assert [event["lease"] for event in stage.events("lease.ending")] == [held.id] * warnings
        assert not holder.wait_for_news(0)
        stage.engine.renew(held.id, **terms())
        if end == "until":  # so that a quarter of its time is as long as before
            before = min(60.0, (length - before + length) / 4)
    time.forward(length)
    stage.engine.reap()
    assert stage.lease_status(held.id) is LeaseStatus.DESTROYED
    assert holder.wait_for_news(30)
    holder.close()


# ---- cooling down


@pytest.mark.parametrize("how", ["expired", "until", "died"])
def test_what_was_lost_cools_down_before_it_is_handed_out_again(
    stage: Stage, clock: Clock, uptime: Clock, how: str
) -> None:
    """Its holder may not know yet."""
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    held = stage.lease("host", ttl=60, until=clock() + 90)
    if how == "died":
        die(stage, held)
    else:
        (uptime if how == "expired" else clock).forward(90)
    assert is_over(stage, held)
    [cooling] = stage.events("resource.cooling-down")
    assert (cooling["lease"], cooling["resource"]) == (held.id, on(held).id)
    assert stage.resource(on(held).id).rests_until == clock() + 30
    clock.forward(29.9)
    stage.engine.tend()
    with pytest.raises(NothingFree):
        stage.lease("host")
    clock.forward(0.1)
    stage.engine.tend()
    assert on(stage.lease("host")).id == on(held).id


def test_what_was_given_back_does_not_cool_down(stage: Stage) -> None:
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    for _ in range(2):
        stage.engine.release(stage.lease("host").id)
    assert stage.events("resource.cooling-down") == []


def test_the_end_of_a_cool_down_serves_the_queue(stage: Stage, clock: Clock) -> None:
    """Whoever ends it hands the thing over."""
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    die(stage, stage.lease("host"))
    asleep = Gate()
    waiting = stage.leasing("host", prepare=lambda e: pausing(e.store, "wait_for_news", asleep, before=True))
    asleep.reached()
    assert stage.lease_status(2) is LeaseStatus.PENDING
    clock.forward(30)
    assert stage.engine.reap()
    assert stage.lease_status(2) is LeaseStatus.ACTIVE
    asleep.open()
    assert on(waiting.result()).name == "h1"


def test_others_are_served_while_one_thing_cools_down(stage: Stage) -> None:
    stage.offer(lab={"kind": "host-pool", "hosts": ["h1", "h2"], "cooldown": "30s"})
    die(stage, stage.lease("host"))
    assert on(stage.lease("host")).name == "h2"


def switch_off_and_on(stage: Stage) -> None:
    stage.engine.switch("binding:h1", enabled=False)
    stage.engine.switch("binding:h1", enabled=True)


@pytest.mark.parametrize(
    ("around", "setting"),
    [
        (lambda stage: stage.engine.reclaim(), {}),
        (switch_off_and_on, {}),
        (lambda stage: stage.engine.tend(), {"ttl": "10s"}),
        (lambda stage: stage.engine.tend(), {"lifetime": "10s"}),
    ],
    ids=["reclaim", "switch", "ttl", "lifetime"],
)
def test_there_is_no_way_around_a_cool_down(
    stage: Stage, clock: Clock, around: Callable[[Stage], object], setting: dict[str, str]
) -> None:
    """A thing that is taken out of use meanwhile would be handed out as a new one; it is taken out of use afterwards."""
    stage.offer(lab={**ONE_HOST, "cooldown": "30s", **setting})
    die(stage, stage.lease("host"))
    clock.forward(29)
    around(stage)
    with pytest.raises(NothingFree):
        stage.lease("host")
    clock.forward(1)
    around(stage)
    assert on(stage.lease("host")).name == "h1"


def test_what_was_switched_off_while_it_was_held_cools_down_too(stage: Stage, clock: Clock) -> None:
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    held = stage.lease("host")
    stage.engine.switch("binding:h1", enabled=False)
    die(stage, held)
    stage.engine.switch("binding:h1", enabled=True)
    with pytest.raises(NothingFree):
        stage.lease("host")
    clock.forward(30)
    stage.engine.tend()
    assert on(stage.lease("host")).name == "h1"


def test_what_was_switched_off_goes_when_it_has_cooled_down(stage: Stage, clock: Clock) -> None:
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    held = stage.lease("host")
    stage.engine.switch("binding:h1", enabled=False)
    die(stage, held)
    assert stage.resource(on(held).id).status is ResourceStatus.ACTIVE
    clock.forward(30)
    stage.engine.tend()
    assert stage.resource(on(held).id).status is ResourceStatus.DESTROYED


def test_reclaim_says_that_it_cools_down(stage: Stage) -> None:
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    die(stage, stage.lease("host"))
    [told] = stage.engine.reclaim()
    assert (told.reclaimed, told.reason) == (False, "it cools down; 30s to go")


def test_a_clock_that_is_set_back_does_not_make_a_cool_down_longer(stage: Stage, clock: Clock) -> None:
    """It begins anew, since nobody knows how much of it is over."""
    stage.offer(lab={**ONE_HOST, "cooldown": "30s"})
    die(stage, stage.lease("host"))
    clock.forward(-DAY)
    stage.engine.tend()
    clock.forward(29.9)
    stage.engine.tend()
    with pytest.raises(NothingFree):
        stage.lease("host")
    clock.forward(0.1)
    stage.engine.tend()
    assert on(stage.lease("host")).name == "h1"


# ---- lifetime and ttl of resources


def test_a_resource_goes_when_its_lifetime_is_over_and_its_leases_with_it(stage: Stage, clock: Clock) -> None:
    """S83: leases first, each cleaned up after; the holders are woken."""
    stage.offer(hoax={"seats": 2, "limit": 1, "lifetime": "1m"})
    held = [stage.lease(), stage.lease()]
    assert stage.resource(1).until == clock() + 60
    holder = stage.open()
    holder.listen()
    with stage.store.write():
        stage.store.leases.bind(held[0].id, holder.process)
    clock.forward(59.9)
    stage.engine.tend()
    assert stage.resource(1).status is ResourceStatus.ACTIVE
    clock.forward(0.1)
    stage.engine.tend()
    assert holder.wait_for_news(30)
    holder.close()
    assert stage.resource(1).status is ResourceStatus.DESTROYED
    hooks = [call.hook for call in control("hoax").calls if call.hook.startswith("destroy")]
    assert hooks == ["destroy_lease", "destroy_lease", "destroy"]
    assert {event["reason"] for event in stage.events("resource.released")} == {"its time is up"}
    for lease in held:
        with pytest.raises(LeaseLost):
            stage.engine.renew(lease.id)


def test_a_lifetime_begins_when_the_resource_is_ready(stage: Stage, clock: Clock) -> None:
    stage.offer(hoax={"lifetime": "1m"})
    gate = control("hoax").hold("activate")
    actor = stage.leasing()
    gate.reached()
    clock.forward(3600)
    gate.open()
    actor.result()
    assert stage.resource(1).until == clock() + 60


def test_an_idle_resource_goes_after_its_ttl(stage: Stage, clock: Clock) -> None:
    """Counted from its last lease; one that is used stays."""
    stage.offer(hoax={"limit": 1, "ttl": "1m"})
    for _ in range(3):
        held = stage.lease()
        assert on(held).id == 1
        clock.forward(3600)
        stage.engine.tend()
        stage.engine.release(held.id)
        clock.forward(59.9)
        stage.engine.tend()
        assert stage.resource(1).status is ResourceStatus.ACTIVE
    clock.forward(0.1)
    stage.engine.tend()
    assert stage.resource(1).status is ResourceStatus.DESTROYED
    assert control("hoax").count("destroy", "resource:1") == 1


def test_what_is_leased_just_after_it_was_found_idle_for_too_long_stays(stage: Stage, clock: Clock) -> None:
    """It is looked at again in the transaction that would take it away."""
    stage.offer(hoax={"limit": 1, "ttl": "1m"})
    stage.engine.release(stage.lease().id)
    clock.forward(60)
    gate = Gate()
    tending = stage.actor(lambda e: e.tend(), prepare=lambda e: pausing(e.store.resources, "overdue", gate))
    gate.reached()
    held = stage.lease()
    gate.open()
    tending.result()
    assert stage.resource(1).status is ResourceStatus.ACTIVE
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE


def test_what_is_switched_on_and_leased_just_after_it_was_found_closed_stays(stage: Stage) -> None:
    """It is looked at again in the transaction that would drain it."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host")
    stage.engine.release(held.id)
    with stage.store.write():
        stage.store.offers.switch_binding("h1", None, False)
        stage.store.offers.changed()
    gate = Gate()
    tending = stage.actor(lambda e: e.tend(), prepare=lambda e: pausing(e.store.resources, "idle_and_closed", gate))
    gate.reached()
    with stage.store.write():
        stage.store.offers.switch_binding("h1", None, True)
        stage.store.offers.changed()
    again = stage.lease("host")
    gate.open()
    tending.result()
    assert stage.resource(on(again).id).status is ResourceStatus.ACTIVE


# ---- where it is said

TIMED_KIND = '''
"""A kind that says itself how long its things last."""

from drydock.blueprint import Binding, Pool, slot_lock


class Timed(Pool):
    type = "timed"
    cooldown = 30.0
    lifetime = 3600
    ttl = 60.0

    def bindings(self):
        yield Binding("t1", slot_lock("timed", "t1"))
'''


def test_a_kind_says_how_long_its_things_last_and_the_pool_file_overrides_it(
    stage: Stage, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "timed.py").write_text(TIMED_KIND)
    stage.environment["DRYDOCK_BLUEPRINTS"] += f":{tmp_path / 'kinds'}"
    stage.offer(own={"kind": "timed"})
    own = stage.store.offers.blueprint("own")
    assert own is not None
    assert (own.cooldown, own.lifetime, own.ttl) == (30.0, 3600.0, 60.0)
    held = stage.lease("timed")
    assert (on(held).until, on(held).ttl) == (clock() + 3600, 60)
    stage.engine.release(held.id)
    stage.offer(own={"kind": "timed", "cooldown": "0s", "lifetime": "2h", "ttl": "1500ms"})
    own = stage.store.offers.blueprint("own")
    assert own is not None
    assert (own.cooldown, own.lifetime, own.ttl) == (0.0, 7200.0, 1.5)


@pytest.mark.parametrize("setting", ["cooldown", "lifetime", "ttl"])
@pytest.mark.parametrize("value", [30, 1.5, True, "soon", "-5s", "5 s", "", "400d", ["5s"]])
def test_a_duration_that_cannot_be_meant_is_one_clear_sentence(stage: Stage, setting: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        stage.offer(lab={**ONE_HOST, setting: value})
    sentence = str(refused.value)
    assert f'"{setting}"' in sentence
    assert "lab" in sentence
    assert "\n" not in sentence
    assert stage.store.offers.blueprint("lab") is None


def test_a_lifetime_of_nothing_is_refused(stage: Stage) -> None:
    """A resource that goes before anybody can use it would be built for ever."""
    with pytest.raises(ConfigError, match=r'"lifetime" must be 0\.1s to 30d'):
        stage.offer(lab={**ONE_HOST, "lifetime": "0s"})


# ---- who is next


@pytest.mark.parametrize("how", ["expired", "died"])
def test_what_ends_is_handed_over_in_the_same_transaction(stage: Stage, uptime: Clock, how: str) -> None:
    """Nobody can see it free in between."""
    stage.offer(lab=ONE_HOST)
    held = stage.lease("host", ttl=60)
    asleep = Gate()
    waiting = stage.leasing("host", prepare=lambda e: pausing(e.store, "wait_for_news", asleep, before=True))
    asleep.reached()
    if how == "died":
        with stage.store.write():
            stage.store.leases.bind(held.id, DEAD)
    else:
        uptime.forward(60)
    seen: list[tuple[LeaseStatus, LeaseStatus]] = []
    commit, outside = stage.store._commit, stage.open()

    def committed() -> None:
        commit()
        found = outside.leases.get(held.id), outside.leases.get(held.id + 1)
        assert found[0] is not None
        assert found[1] is not None
        seen.append((found[0].status, found[1].status))

    stage.store._commit = committed  # type: ignore[method-assign]
    stage.engine.tend()
    stage.store._commit = commit  # type: ignore[method-assign]
    outside.close()
    assert seen == [(LeaseStatus.DESTROYED, LeaseStatus.ACTIVE)]
    asleep.open()
    got = waiting.result()
    assert (got.fence or 0) == (held.fence or 0) + 1


@pytest.mark.parametrize("how", ["expired", "died"])
def test_what_must_be_cleaned_up_after_is_handed_out_when_that_is_done(
    stage: Stage, uptime: Clock, clock: Clock, how: str
) -> None:
    """However often it fails, and whoever does it."""
    stage.offer(hoax={"limit": 1})
    held = stage.lease(ttl=60)
    control("hoax").fail_in["destroy_lease"] = iter([RuntimeError("dirty"), RuntimeError("dirty")])
    if how == "died":
        with stage.store.write():
            stage.store.leases.bind(held.id, DEAD)
    else:
        uptime.forward(60)
    stage.engine.tend()
    for pause in (1, 2):
        assert stage.lease_status(held.id) is LeaseStatus.RELEASED
        with pytest.raises(NothingFree):
            stage.lease()
        clock.forward(pause)
        stage.engine.tend()
    assert stage.lease_status(held.id) is LeaseStatus.DESTROYED
    assert [event["again_after"] for event in stage.events("lease.destroy-failed")] == [1, 2]
    assert on(stage.lease()).id == on(held).id


def test_while_it_is_cleaned_up_after_nobody_gets_it(stage: Stage, uptime: Clock) -> None:
    stage.offer(hoax={"limit": 1})
    held = stage.lease(ttl=60)
    gate = control("hoax").hold("destroy_lease")
    uptime.forward(60)
    tending = stage.actor(lambda engine: engine.tend())
    gate.reached()
    waiting = stage.leasing()
    stage.pending()
    for _ in range(2):
        stage.engine.tend()
        assert stage.lease_status(held.id) is LeaseStatus.RELEASED
        assert stage.lease_status(held.id + 1) is not LeaseStatus.ACTIVE
    gate.open()
    assert tending.result()
    assert on(waiting.result()).id == on(held).id
    assert control("hoax").count("destroy_lease", f"lease:{held.id}") == 1
