"""What `doctor` calls broken, and what is only worth knowing."""

import pytest
from conftest import Clock, apply

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.model import Demand

HOSTS = ["h1", "h2", "h3"]


def findings(engine: Engine, rule: str) -> list[bool]:
    """Of each finding of this rule, whether it is a broken promise."""
    return [finding.broken for finding in examine(engine.store) if finding.rule == rule]


def offer(engine: Engine, **settings: object) -> None:
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS, **settings}}})


def hold(engine: Engine, count: int) -> None:
    engine.lease(Demand("host"), owner="tester", count=count, wait_seconds=0)


def test_a_lowered_limit_breaks_no_promise_to_those_who_were_there(engine: Engine, clock: Clock) -> None:
    offer(engine)
    hold(engine, 3)
    clock.forward(1)
    offer(engine, limit=2)
    assert findings(engine, "over-limit") == [False]


def test_a_resource_beyond_the_limit_that_held_already_is_a_broken_promise(engine: Engine, clock: Clock) -> None:
    offer(engine, limit=3)
    offer(engine, limit=2)
    clock.forward(1)
    hold(engine, 2)
    with engine.store.write():
        engine.store.run(
            "INSERT INTO resource (blueprint, binding, shape, name, type, status, attributes, slot_locks, lease_locks, seats,"
            " used, open, fence, not_before, created_at, idle_since) SELECT blueprint, NULL, shape, 'h9', type, 'active',"
            " attributes, '[]', '[]', seats, 0, 1, 0, 0, created_at, idle_since FROM resource WHERE id = 1"
        )
        engine.store.run("UPDATE blueprint SET live = 3")
    assert findings(engine, "over-limit") == [True]


def test_a_lease_beyond_the_seats_that_there_were_already_is_a_broken_promise(engine: Engine, clock: Clock) -> None:
    offer(engine, seats=2, hosts=["h1"])
    hold(engine, 2)
    clock.forward(1)
    offer(engine, seats=1, hosts=["h1"])
    assert findings(engine, "over-seated") == [False]
    with engine.store.write():
        engine.store.run("UPDATE lease SET granted_at = granted_at + 2 WHERE id = 2")
    assert findings(engine, "over-seated") == [True]


def test_a_clock_that_was_set_back_makes_nothing_a_broken_promise(engine: Engine, clock: Clock) -> None:
    """What was there before the operator lowered a bound is older, whatever the clock says now."""
    offer(engine, seats=2, limit=3)
    hold(engine, 5)
    clock.forward(-3600)
    offer(engine, seats=1, limit=2)
    assert findings(engine, "over-limit") == [False]
    assert findings(engine, "over-seated") == [False, False]


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE lease SET status = 'destroyed' WHERE carries IS NOT NULL",
        "UPDATE lease SET carries = 99 WHERE carries IS NOT NULL",
        "UPDATE resource SET status = 'destroyed' WHERE id = (SELECT carries FROM lease WHERE carries IS NOT NULL)",
    ],
)
def test_what_stands_on_nothing_and_what_carries_nothing_are_broken_promises(engine: Engine, harm: str) -> None:
    offer(engine)
    hold(engine, 2)
    with engine.store.write():
        engine.store.run("UPDATE lease SET carries = 2 WHERE id = 1")
    assert findings(engine, "stands-on-nothing") == []
    with engine.store.write():
        engine.store.run(harm)
    assert findings(engine, "stands-on-nothing") == [True]
