"""What stands on something else: S75 S76, and what upstream lets starve (W27) or pile up (W28)."""

import pytest
from conftest import Clock

from drydock.errors import BlueprintError, NeverPossible, NoBlueprint, NothingFree
from drydock.model import LeaseStatus, ResourceStatus
from drydock.request import _Under

from .stage import Gate, Stage, control, on, several

HOSTS = {"kind": "host-pool", "hosts": ["h1", "h2"]}
SHEDS = {"kind": "shed"}


def hosts_held(stage: Stage) -> list[str]:
    return sorted(on(held).name for held in stage.store.leases.live() if held.type == "host" and held.resource)


def test_it_is_built_on_what_was_leased_for_it_and_gives_that_back(stage: Stage) -> None:
    """S75"""
    stage.offer(lab=HOSTS, sheds=SHEDS)
    held = stage.lease("shed")
    assert hosts_held(stage) == ["h1"]
    [under] = [one for one in stage.store.leases.live() if one.type == "host"]
    assert (under.carries, under.owner, under.status) == (on(held).id, "tester", LeaseStatus.ACTIVE)
    stage.engine.release(held.id)
    assert hosts_held(stage) == ["h1"], "an idle one stays where it is"
    stage.engine.release_resource(on(held).id)
    assert hosts_held(stage) == []
    assert control("sheds").done == ["sheds-0 built on h1", "painted None", "sheds-0 gone from h1"]


def test_an_idle_one_is_used_again_and_asks_for_nothing(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds=SHEDS)
    first = stage.lease("shed")
    stage.engine.release(first.id)
    assert on(stage.lease("shed")).id == on(first).id
    assert hosts_held(stage) == ["h1"]


@pytest.mark.parametrize("how", ["release", "release-resource", "expire"])
def test_what_is_under_it_is_lost_and_so_is_it_before_anybody_else_has_that(
    stage: Stage, how: str, clock: Clock
) -> None:
    """S76: nothing of it is left when the next one comes."""
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    held = stage.lease("shed")
    under = next(one for one in stage.store.leases.live() if one.type == "host")
    gate = control("sheds").hold("destroy")
    if how == "release":
        ending = stage.actor(lambda engine: engine.release(under.id))
    elif how == "release-resource":
        ending = stage.actor(lambda engine: engine.release_resource(on(under).id))
    else:
        stage.engine.keep(under.id, until=clock() + 10.0)
        clock.forward(11.0)
        ending = stage.actor(lambda engine: engine.tend())
    gate.reached()
    assert stage.lease_status(held.id) is LeaseStatus.DESTROYED
    assert stage.lease_status(under.id) is LeaseStatus.RELEASED
    with pytest.raises(NothingFree):
        stage.lease("host")
    gate.open()
    ending.end()
    stage.engine.tend()
    assert stage.lease_status(under.id) is LeaseStatus.DESTROYED
    assert stage.resource(on(held).id).status is ResourceStatus.DESTROYED
    assert on(stage.lease("host")).name == "h1"


def test_while_there_is_nothing_to_stand_on_nothing_is_held(stage: Stage) -> None:
    """W28: what waits for a host takes no place of those that do not."""
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds={**SHEDS, "limit": 1})
    host = stage.lease("host")
    waiting = stage.leasing("shed")
    assert len(stage.pending(2)) == 2
    assert stage.live() == [stage.resource(on(host).id)]
    stage.engine.release(host.id)
    assert on(waiting.result()).name == "sheds-0"


def test_who_gives_up_leaves_nothing_of_either(stage: Stage) -> None:
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    stage.lease("host")
    with pytest.raises(NothingFree, match=r'no free "host": 1 in use'):
        stage.lease("shed")
    assert [one.type for one in stage.store.leases.live()] == ["host"]


def test_an_idle_one_makes_room_on_what_somebody_else_needs(stage: Stage) -> None:
    """W27: upstream waits for ever."""
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    stage.engine.release(stage.lease("shed").id)
    assert on(stage.lease("host")).name == "h1"
    assert "sheds-0 gone from h1" in control("sheds").done


def test_an_idle_one_makes_room_for_another_of_its_own_kind(stage: Stage) -> None:
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    stage.engine.release(stage.lease("shed", flavor="oak").id)
    held = stage.lease("shed", flavor="pine")
    assert on(held).attributes == {"flavor": "pine"}
    assert hosts_held(stage) == ["h1"]


def test_what_is_in_use_is_not_taken_away_from_under_anybody(stage: Stage) -> None:
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    held = stage.lease("shed")
    with pytest.raises(NothingFree):
        stage.lease("host")
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE


def test_at_the_limit_no_host_is_kept_for_what_cannot_be_built(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds={**SHEDS, "limit": 1})
    first = stage.lease("shed")
    waiting = stage.leasing("shed")
    stage.pending()
    assert hosts_held(stage) == ["h1"]
    stage.engine.release(first.id)
    assert on(waiting.result()).id == on(first).id


def test_several_stand_on_as_many_or_on_none(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds=SHEDS)
    with pytest.raises((NothingFree, NeverPossible)):
        several(stage.engine, "shed", 3, wait=0.0)
    assert hosts_held(stage) == []
    assert len(several(stage.engine, "shed", 2, wait=0.0)) == 2
    assert hosts_held(stage) == ["h1", "h2"]


def test_a_build_that_fails_gives_back_what_it_stood_on(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds=SHEDS)
    control("sheds").fail_in["activate"] = iter([RuntimeError("no timber")])
    held = stage.leasing("shed", wait=10.0).result()
    assert hosts_held(stage) == ["h1"]
    assert on(held).status is ResourceStatus.ACTIVE


def test_what_was_leased_for_it_may_be_lost_before_it_is_built(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands on nothing that is somebody else's by then, and asks for another."""
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, sheds=SHEDS)
    gate, advance = Gate(), _Under.advance

    def advance_and_stop(under: _Under) -> list[int] | None:
        leases = advance(under)
        if leases:
            gate()
        return leases

    monkeypatch.setattr(_Under, "advance", advance_and_stop)
    waiting = stage.leasing("shed")
    gate.reached()
    [under] = [one for one in stage.store.leases.live() if one.type == "host"]
    stage.engine.release(under.id)
    mine = stage.lease("host")
    gate.open()
    assert len(stage.pending(2)) == 2
    assert [one.name for one in stage.live()] == ["h1"]
    stage.engine.release(mine.id)
    assert on(waiting.result()).name == "sheds-0"


def test_nobody_makes_what_it_stands_on(stage: Stage) -> None:
    stage.offer(sheds=SHEDS)
    with pytest.raises(NoBlueprint, match='no blueprint makes "host"'):
        stage.lease("shed")
    assert stage.store.leases.live() == []


def test_attributes_that_are_for_the_lease_alone_keep_it_from_nothing(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds=SHEDS)
    first = stage.lease("shed", paint="red")
    stage.engine.release(first.id)
    second = stage.lease("shed", paint="blue")
    assert on(first).id == on(second).id
    assert control("sheds").done[1:] == ["painted red", "painted blue"]


def test_a_plan_may_not_stand_on_rubbish(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds={**SHEDS, "on": {"type": "../host"}})
    with pytest.raises(BlueprintError, match="type of what it stands on"):
        stage.lease("shed")


def test_a_host_may_be_built_too(stage: Stage) -> None:
    """Three stories: each is built before what stands on it, and goes after it."""
    stage.offer(
        lab=HOSTS,
        cellars={**SHEDS, "type": None} if False else SHEDS,
    )
    attic = {"kind": "shed", "on": {"type": "shed", "blueprints": ("cellars",)}}
    stage.offer(lab=HOSTS, cellars=SHEDS, attics=attic)
    held = stage.lease("shed", blueprint="attics")
    assert control("attics").done == ["attics-0 built on cellars-0", "painted None"]
    stage.engine.release(held.id)
    stage.engine.release_resource(on(held).id)
    assert hosts_held(stage) == ["h1"]
    stage.engine.reclaim()
    assert hosts_held(stage) == []


def test_show_tells_what_stands_on_what(stage: Stage) -> None:
    stage.offer(lab=HOSTS, sheds=SHEDS)
    held = stage.lease("shed")
    under = next(one for one in stage.store.leases.live() if one.type == "host")
    [shed] = stage.cli("show", f"resource:{on(held).id}", "--json").objects
    [host] = stage.cli("show", str(under.id), "--json").objects
    assert (shed["stands_on"], host["carries"]) == (f"lease:{under.id}", f"resource:{on(held).id}")


def test_what_is_passed_on_is_an_attribute_of_what_stands_on_it(stage: Stage) -> None:
    host = {"name": "h1", "address": "10.0.0.1", "port": 22, "attributes": {"flavor": "stone"}}
    on_host = {"type": "host", "passes_on": ("address", "port", "flavor", "colour")}
    stage.offer(lab={"kind": "host-pool", "hosts": [host]}, sheds={**SHEDS, "on": on_host})
    shed = on(stage.lease("shed", flavor="oak"))
    assert shed.attributes == {"address": "10.0.0.1", "port": 22, "flavor": "oak"}, "its own attributes are its own"


def test_what_would_stand_on_itself_is_refused(stage: Stage) -> None:
    """PLUGIN-084"""
    on_sheds = {"kind": "shed", "on": {"type": "shed"}}
    stage.offer(circle=on_sheds)
    with pytest.raises(BlueprintError, match='"circle" failed in plans: it would stand on itself: shed on shed'):
        stage.lease("shed")
    assert stage.store.leases.live() == []


def test_who_gives_up_leaves_nothing_of_any_story(stage: Stage) -> None:
    attic = {"kind": "shed", "on": {"type": "shed", "blueprints": ("cellars",)}}
    stage.offer(lab={**HOSTS, "hosts": ["h1"]}, cellars=SHEDS, attics=attic)
    host = stage.lease("host")
    with pytest.raises(NothingFree):
        stage.lease("shed", blueprint="attics")
    assert [one.id for one in stage.store.leases.live()] == [host.id]
