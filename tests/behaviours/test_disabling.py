"""Switches and maintenance: S51 S52 S53 S54."""

from typing import Any

import pytest
from conftest import apply

from drydock.errors import NeverPossible, NothingFree
from drydock.model import LeaseStatus, ResourceStatus

from .stage import Gate, Stage, control, on, pausing

TWO_HOSTS = {"kind": "host-pool", "hosts": ["a", "b"]}
HOSTS = {"kind": "almanac-hosts", "services": ["pool"]}


def almanac(**enabled: bool) -> dict[str, Any]:
    devices = {name: {"enabled": on} for name, on in enabled.items()}
    return {"almanac": {"device": devices, "service": {"pool": {"devices": list(enabled)}}}}


def test_a_disabled_binding_takes_no_new_lease_and_keeps_the_old_one(stage: Stage) -> None:
    """S51: although its resource is there, and has a free seat."""
    stage.offer(lab={**TWO_HOSTS, "seats": 2})
    held = stage.lease("host")
    stage.engine.switch("binding:lab/a", enabled=False)
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE
    assert [on(stage.lease("host")).name for _ in range(2)] == ["b", "b"]
    with pytest.raises(NothingFree):
        stage.lease("host")
    stage.engine.release(held.id)
    assert stage.resource(on(held).id).status is ResourceStatus.DESTROYED  # drained
    with pytest.raises(NothingFree):
        stage.lease("host")
    stage.engine.switch("binding:a", enabled=True)
    assert on(stage.lease("host")).name == "a"


def test_a_device_that_is_out_of_service_takes_no_new_lease_and_keeps_the_old_one(stage: Stage) -> None:
    """S51 by the device's own switch, which upstream looks at only when it builds."""
    stage.offer(almanac(a=True, b=True), build={**HOSTS, "seats": 2})
    held = stage.lease("host")
    stage.offer(almanac(a=False, b=True), build={**HOSTS, "seats": 2})
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE
    assert [on(stage.lease("host")).name for _ in range(2)] == ["b", "b"]
    with pytest.raises(NothingFree):
        stage.lease("host")
    stage.offer(almanac(a=True, b=True), build={**HOSTS, "seats": 2})
    assert on(stage.lease("host")).id == on(held).id


def test_what_is_idle_on_a_disabled_binding_is_drained_by_whoever_throws_the_switch(stage: Stage) -> None:
    """S51: with its destroy hook, and at once."""
    stage.offer(pool={"kind": "hoax-pool", "things": ["t1", "t2"]})
    stage.engine.release(stage.lease("thing").id)
    stage.engine.switch("binding:pool/t1", enabled=False)
    assert stage.resource(1).status is ResourceStatus.DESTROYED
    assert control("pool").count("destroy", "resource:1") == 1
    assert stage.locks() == {}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks often."""
    monkeypatch.setattr("drydock.request.LOOK_EVERY_SECONDS", 0.05)


@pytest.mark.parametrize("switch", ["bindings", "devices", "blueprint"])
@pytest.mark.usefixtures("often")
def test_when_all_is_switched_off_requests_wait_and_are_served_when_it_is_on_again(stage: Stage, switch: str) -> None:
    """S52, S53, S54: maintenance is no reason to break a request, old or new."""

    def turn(on: bool) -> None:
        if switch == "devices":
            stage.offer(almanac(a=on), build=HOSTS)
        elif switch == "blueprint":
            stage.engine.switch("blueprint:build", enabled=on)
        else:
            stage.engine.switch("binding:build/a", enabled=on)

    stage.offer(almanac(a=True), build=HOSTS)
    held = stage.lease("host")
    decided = Gate()
    decided.open()
    before = stage.leasing("host", prepare=lambda e: pausing(e.store, "_commit", decided))
    decided.reached()
    turn(False)
    decided.reached()  # it was woken, and has looked again
    after = stage.leasing("host")
    assert stage.pending(2) == [2, 3]
    stage.engine.release(held.id)  # free, but out of use
    assert stage.pending(2) == [2, 3]
    with pytest.raises(NothingFree):
        stage.lease("host")
    turn(True)
    served = stage.first_of([before, after]).result()
    stage.engine.release(served.id)
    assert {on(before.result()).name, on(after.result()).name} == {"a"}


def test_a_disabled_blueprint_serves_nobody_from_its_old_resources(stage: Stage) -> None:
    """S53: those that hold one go on; another blueprint of the type serves the rest."""
    stage.offer(one={"limit": 2}, two={"limit": 2})
    held = stage.lease(blueprint="one")
    idle = stage.lease(blueprint="one")
    stage.engine.release(idle.id)
    stage.engine.switch("blueprint:one", enabled=False)
    assert on(stage.lease()).blueprint == "two"
    with pytest.raises(NothingFree, match="disabled"):
        stage.lease(blueprint="one")
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE
    stage.engine.switch("blueprint:one", enabled=True)
    assert on(stage.lease(blueprint="one")).id == on(idle).id


def test_a_build_that_is_under_way_when_its_blueprint_is_disabled_is_finished(stage: Stage) -> None:
    """S53, S54: it was begun before, and the request that caused it gets it."""
    stage.offer(hoax={})
    gate = control("hoax").hold("activate")
    actor = stage.leasing()
    gate.reached()
    stage.engine.switch("blueprint:hoax", enabled=False)
    gate.open()
    assert on(actor.result()).id == 1


def test_what_a_pruned_blueprint_holds_is_kept_and_nothing_new_comes_of_it(stage: Stage) -> None:
    """S53 by the pool file: a request that waits is served when a later file has it again."""
    stage.offer(lab=TWO_HOSTS)
    held = [stage.lease("host") for _ in range(2)]
    apply(stage.engine, {"blueprint": {"other": {"kind": "hoax"}}}, prune=True)
    waiting = stage.leasing("host")
    stage.pending()
    stage.engine.release(held[0].id)
    assert stage.pending() == [3]
    stage.offer(lab=TWO_HOSTS)
    assert on(waiting.result()).name == "a"
    assert stage.lease_status(held[1].id) is LeaseStatus.ACTIVE


@pytest.mark.usefixtures("often")
def test_a_request_outlasts_that_nothing_of_its_kind_is_there(stage: Stage) -> None:
    """S52, S54: what it asked for is taken out of the pool file, and comes back."""

    def offer(**attributes: str) -> None:
        stage.offer(lab={"kind": "host-pool", "hosts": [{"name": "a", "attributes": attributes}]})

    offer(arch="arm64")
    held = stage.lease("host", arch="arm64")
    decided = Gate()
    decided.open()
    waiting = stage.leasing("host", arch="arm64", prepare=lambda e: pausing(e.store, "_commit", decided))
    decided.reached()
    offer(arch="m68k")
    decided.reached()
    stage.engine.release(held.id)
    other = stage.lease("host", arch="m68k")
    assert on(other).name == "a"
    assert stage.pending() == [2]
    with pytest.raises(NeverPossible):
        stage.lease("host", arch="arm64")
    stage.engine.release(other.id)
    offer(arch="arm64")
    assert on(waiting.result()).attributes == {"arch": "arm64"}
