"""A holder says that its thing is broken: nobody else gets it before it was torn down, and had its rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, apply

import drydock
from drydock.engine import Engine
from drydock.errors import LeaseLost, NothingFree
from drydock.model import Demand, Lease

BUILDER = """
from pathlib import Path
from drydock.blueprint import Builder, Plan, Setting, slot_lock

class Thing(Builder):
    type = "thing"
    settings_schema = {"log": Setting(str, "where it tells what it did")}

    def plans(self, wanted):
        yield Plan("it", (slot_lock("the", "thing"),))

    def note(self, what):
        with Path(self.settings["log"]).open("a") as log:
            log.write(what + "\\n")

    def activate(self, resource):
        self.note(f"build {resource.id}")

    def destroy(self, resource):
        self.note(f"destroy {resource.id}")

    def destroy_lease(self, resource, lease):
        self.note(f"clean {lease.id}")
"""


def pool(**settings: Any) -> dict[str, Any]:
    return {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"], **settings}}}


def hold(engine: Engine, wait: float = 0) -> Lease:
    [lease] = engine.lease(Demand("host", (), {}), owner="t", wait_seconds=wait)
    return lease


def test_a_builder_tears_it_down_and_builds_another(connect: Callable[..., Engine], tmp_path: Path) -> None:
    kinds, log = tmp_path / "kinds", tmp_path / "log"
    kinds.mkdir()
    (kinds / "thing.py").write_text(BUILDER)
    engine = connect(kinds)
    apply(engine, {"blueprint": {"b": {"kind": "thing", "log": str(log)}}})
    [first] = engine.lease(Demand("thing", (), {}), owner="t", wait_seconds=0)
    assert engine.release(first.id, broken="it smokes")
    [second] = engine.lease(Demand("thing", (), {}), owner="t", wait_seconds=0)
    assert log.read_text().split("\n")[:-1] == ["build 1", "clean 1", "destroy 1", "build 2"]
    assert second.resource is not None
    assert second.resource.id == 2


def test_what_a_pool_hands_out_rests_first_whatever_is_offered_meanwhile(engine: Engine, clock: Clock) -> None:
    apply(engine, pool(cooldown="10m"))
    first = hold(engine)
    engine.release(first.id, broken="no link")
    apply(engine, pool(cooldown="10m", seats=2))
    engine.switch("binding:h1", enabled=False)
    engine.switch("binding:h1", enabled=True)
    with pytest.raises(NothingFree):
        hold(engine)
    clock.forward(601)
    second = hold(engine)
    assert first.resource is not None
    assert second.resource is not None
    assert second.resource.id > first.resource.id


def test_others_who_use_it_go_on_and_nobody_joins_them(engine: Engine) -> None:
    apply(engine, pool(seats=3))
    first, second = hold(engine), hold(engine)
    engine.release(first.id, broken="slow")
    engine.verify(second.id, fence=second.fence)
    for seats in (3, 4):
        with pytest.raises(NothingFree):
            hold(engine)
        apply(engine, pool(seats=seats + 1))
    engine.release(second.id)
    third = hold(engine)
    assert third.resource is not None
    assert second.resource is not None
    assert third.resource.id > second.resource.id


def test_the_history_says_who_gave_it_up_and_why_on_one_line(engine: Engine) -> None:
    apply(engine, pool())
    engine.release(hold(engine).id, broken="no link\nat all")
    [told] = [e for e in engine.store.events.latest(20) if e.event == "resource.given-up"]
    assert (told.lease, told.resource, told.data) == (1, 1, {"reason": "no link\\x0aat all"})
    with pytest.raises(LeaseLost, match=r"lease 1 is lost: it is destroyed, since no link\\x0aat all"):
        engine.verify(1)


def test_who_has_lost_it_says_nothing_of_what_is_somebody_elses(engine: Engine, clock: Clock) -> None:
    apply(engine, pool())
    [late] = engine.lease(Demand("host", (), {}), owner="t", wait_seconds=0, until=clock() + 5)
    clock.forward(6)
    engine.reap()
    holder = hold(engine)
    assert not engine.release(late.id, broken="no link")
    engine.release(holder.id)
    assert holder.resource is not None
    assert [resource.id for resource in engine.store.resources.live()] == [holder.resource.id]


def test_python_and_the_command_line_can_say_so(cli: Cli, store_address: str) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply(pool())
        lease = dock.lease("host", wait=0)
        assert not lease.given_back
        assert lease.release(broken="no link")
        assert lease.given_back
        dock.release(dock.lease("host", wait=0).id, broken="no link")
        assert dock.lease("host", wait=0, detach=True).resource.id == 3
    assert cli("release", "3", "--broken", "no link").returncode == 0
    events = [event["event"] for event in cli("log", "--json").objects]
    assert events.count("resource.given-up") == 3
    assert events.count("resource.destroyed") == 3


def test_the_operator_sees_why_nobody_gets_a_thing_that_is_still_in_use(cli: Cli, store_address: str) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply(pool(seats=2))
        first, second = dock.lease("host", wait=0), dock.lease("host", wait=0)
        told = [("-", False)]
        for end in (lambda: first.release(broken="no link"), second.release):
            [row] = cli("resources", "--json").objects
            header, cells = (line.split("\t") for line in cli("resources").stdout.splitlines())
            assert [(cells[header.index("NOTE")], row["given_up"])] == told
            end()
            told = [("given up as broken, goes with its last lease", True)]
        assert cli("resources", "--json").objects == []
