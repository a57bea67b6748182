"""What is outside is looked at now and then: what is gone is lost, what is missing is withheld until it is back."""

import pytest
from conftest import Clock

from drydock.blueprint import Gone
from drydock.errors import LeaseLost, NothingFree
from drydock.model import LeaseStatus, ResourceStatus

from .stage import Stage, control, on

HOSTS = {"kind": "host-pool", "hosts": ["h1", "h2"]}
FLEET = {"kind": "fleet", "ships": ["anna", "berta", "clara"]}


def test_what_is_gone_is_lost_by_its_holder_and_torn_down(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=HOSTS, sheds={"kind": "shed"})
    held = stage.lease("shed")
    stage.engine.tend()
    assert control("sheds").count("observe") == 0, "its time has not come"
    clock.forward(61.0)
    stage.engine.tend()
    assert control("sheds").count("observe") == 1
    control("sheds").fail_in["observe"] = iter([Gone("it burnt down")])
    clock.forward(61.0)
    stage.engine.tend()
    assert stage.lease_status(held.id) is LeaseStatus.DESTROYED
    assert stage.resource(on(held).id).status is ResourceStatus.DESTROYED
    assert [event["reason"] for event in stage.events("resource.gone")] == ["it burnt down"]
    with pytest.raises(LeaseLost):
        stage.engine.verify(held.id)


def test_what_cannot_be_seen_is_not_gone(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=HOSTS, sheds={"kind": "shed"})
    held = stage.lease("shed")
    control("sheds").fail_in["observe"] = iter([RuntimeError("fog")])
    clock.forward(61.0)
    stage.engine.tend()
    assert stage.lease_status(held.id) is LeaseStatus.ACTIVE
    assert ["fog" in event["error"] for event in stage.events("resource.observe-failed")] == [True]


def test_of_two_that_come_by_one_looks(stage: Stage, clock: Clock) -> None:
    stage.offer(lab=HOSTS, sheds={"kind": "shed"})
    stage.lease("shed")
    clock.forward(61.0)
    gate = control("sheds").hold("observe")
    looking = stage.actor(lambda engine: engine.tend())
    gate.reached()
    stage.engine.tend()
    gate.open()
    looking.end()
    assert control("sheds").count("observe") == 1


def test_what_is_missing_is_withheld_and_comes_back(stage: Stage, clock: Clock) -> None:
    control("fleet").missing = ["anna", "berta"]
    stage.offer(fleet=FLEET)
    assert on(stage.lease("ship")).name == "clara"
    with pytest.raises(NothingFree):
        stage.lease("ship")
    waiting = stage.leasing("ship")
    stage.pending()
    control("fleet").missing = ["anna"]
    clock.forward(61.0)
    stage.engine.tend()
    assert on(waiting.result()).name == "berta"
    assert [event["names"] for event in stage.events("binding.missing")] == [["anna", "berta"]]
    assert [event["names"] for event in stage.events("binding.back")] == [["berta"]]


def test_whoever_holds_what_goes_missing_keeps_it_and_nobody_has_it_after_him(stage: Stage, clock: Clock) -> None:
    stage.offer(fleet={**FLEET, "ships": ["anna"]})
    held = stage.lease("ship")
    control("fleet").missing = ["anna"]
    clock.forward(61.0)
    stage.engine.tend()
    assert control("fleet").count("missing", "anna") == 1, "it is told what is held"
    assert stage.engine.verify(held.id).id == held.id
    stage.engine.release(held.id)
    with pytest.raises(NothingFree):
        stage.lease("ship")
    assert [binding.enabled for binding in stage.store.offers.bindings()] == [False]


@pytest.mark.parametrize("rubbish", [None, [1], "anna", ["dora"], 7])
def test_an_answer_that_cannot_be_meant_withholds_nothing(stage: Stage, rubbish: object) -> None:
    control("fleet").missing = rubbish
    stage.offer(fleet=FLEET)
    assert on(stage.lease("ship")).name == "anna"
    assert len(stage.events("blueprint.observe-failed")) == 1


def test_a_look_that_fails_leaves_what_was_missing_missing(stage: Stage, clock: Clock) -> None:
    control("fleet").missing = ["anna"]
    stage.offer(fleet=FLEET)
    control("fleet").fail_in["missing"] = iter([RuntimeError("fog")])
    clock.forward(61.0)
    stage.engine.tend()
    assert on(stage.lease("ship")).name == "berta"
