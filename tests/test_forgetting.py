"""What is over is forgotten after a while, and nothing else is."""

from collections.abc import Callable

import pytest
from conftest import Clock, apply

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import ConfigError, NotFound
from drydock.forgetting import DEFAULT_KEEP, KEEP, ROWS_A_STEP, Forgetting, keep_seconds
from drydock.model import Demand

DAY = 86_400.0
POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}}


def lease(engine: Engine) -> int:
    [one] = engine.lease(Demand("host"), owner="t", wait_seconds=0, keep=True)
    return one.id


def forget(engine: Engine, days: float = 30) -> int:
    """One whole pass; return how many steps it took."""
    forgetting, steps = Forgetting(engine.store, days * DAY), 1
    while forgetting.step():
        steps += 1
    return steps


def counts(engine: Engine) -> list[int]:
    return [engine.store.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("lease", "resource", "event")]


def broken(engine: Engine) -> list[str]:
    return [finding.sentence for finding in examine(engine.store) if finding.broken]


def test_what_is_over_is_forgotten_when_it_is_old_enough(engine: Engine, clock: Clock) -> None:
    apply(engine, POOL)
    first = lease(engine)
    engine.release(first)
    engine.release_resource(1)
    clock.forward(30 * DAY - 1)
    before = counts(engine)
    forget(engine)
    assert counts(engine) == before
    clock.forward(1)
    forget(engine)
    assert counts(engine) == [0, 0, 0]
    with pytest.raises(NotFound):
        engine.release(first)
    assert broken(engine) == []


def test_no_id_is_given_again(engine: Engine, clock: Clock) -> None:
    """Not even when the newest of all is dropped; and the fence of the host goes on growing."""
    apply(engine, POOL)
    [held] = engine.lease(Demand("host"), owner="t", wait_seconds=0, keep=True)
    engine.release(held.id)
    engine.release_resource(1)
    [event] = engine.store.events.latest(1)
    clock.forward(31 * DAY)
    forget(engine)
    assert counts(engine) == [0, 0, 0]
    [next] = engine.lease(Demand("host"), owner="t", wait_seconds=0, keep=True)
    assert next.id == held.id + 1
    assert next.resource is not None
    assert (next.resource.id, next.resource.name) == (2, "h1")
    assert (held.fence, next.fence) == (1, 2)
    assert engine.store.events.latest(1)[0].id > event.id


def test_what_lives_is_kept_however_old_and_so_is_what_it_stands_on(engine: Engine, clock: Clock) -> None:
    """A lease that ended long ago on a resource that still lives goes; the one that lives stays, only its events go."""
    apply(engine, POOL)
    alive, over = lease(engine), lease(engine)
    engine.release(over)
    clock.forward(400 * DAY)
    forget(engine)
    assert [one.id for one in engine.store.leases.latest(10)] == [alive]
    assert [one.name for one in engine.store.resources.latest(10)] == ["h1", "h2"]
    assert engine.store.events.latest(10) == []
    assert broken(engine) == []
    assert engine.verify(alive).fence == 1
    engine.release(alive)
    assert lease(engine) == over + 1


def test_the_living_do_not_keep_the_old_behind_them(engine: Engine, clock: Clock) -> None:
    """More of them than one step looks at come first."""
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"], "seats": "unlimited"}}})
    alive = [lease(engine) for _ in range(ROWS_A_STEP + 1)]
    engine.release(lease(engine))
    clock.forward(31 * DAY)
    forget(engine)
    assert [one.id for one in engine.store.leases.latest(1000)] == alive


def test_a_lease_that_ended_lately_is_kept_however_old_it_is(engine: Engine, clock: Clock) -> None:
    apply(engine, POOL)
    id = lease(engine)
    clock.forward(40 * DAY)
    engine.release(id)
    forget(engine)
    assert [one.id for one in engine.store.leases.latest(10)] == [id]
    assert [event.event for event in engine.store.events.latest(10)] == ["lease.released"]


def test_a_row_from_the_future_hides_nothing_that_follows(engine: Engine, clock: Clock) -> None:
    """A clock that was a year ahead for a moment left it there."""
    apply(engine, POOL)
    clock.forward(365 * DAY)
    engine.release(lease(engine))
    clock.forward(-365 * DAY)
    engine.release(lease(engine))
    newest = engine.store.leases.latest(1)[0].id
    clock.forward(31 * DAY)
    forget(engine)
    assert [one.id for one in engine.store.leases.latest(10)] == [newest - 1]


def test_one_step_looks_at_few_rows_and_a_pass_ends(engine: Engine, clock: Clock) -> None:
    with engine.store.write():
        for _ in range(3 * ROWS_A_STEP):
            engine.store.events.add("old")
    clock.forward(31 * DAY)
    with engine.store.write():
        engine.store.events.add("young")
    forgetting = Forgetting(engine.store, 30 * DAY)
    for left in (2, 1, 0):
        assert forgetting.step()
        assert counts(engine)[2] == left * ROWS_A_STEP + 1
    assert not forgetting.step()
    assert [event.event for event in engine.store.events.latest(10)] == ["young"]


def test_whoever_tends_makes_one_small_step(engine: Engine, connect: Callable[..., Engine], clock: Clock) -> None:
    with engine.store.write():
        for _ in range(2 * ROWS_A_STEP):
            engine.store.events.add("old")
    clock.forward(31 * DAY)
    other = connect()
    other.tend()
    assert counts(engine)[2] == ROWS_A_STEP
    other.tend()
    assert counts(engine)[2] == ROWS_A_STEP, "not again so soon"


@pytest.mark.usefixtures("path")
def test_a_store_that_cannot_be_written_keeps_nobody_from_what_he_came_for(engine: Engine, clock: Clock) -> None:
    with engine.store.write():
        engine.store.events.add("old")
    clock.forward(31 * DAY)
    engine.store.run("PRAGMA query_only = ON")
    assert engine.tend() is False
    engine.store.run("PRAGMA query_only = OFF")
    assert counts(engine)[2] == 1


def test_how_long_is_said_in_the_environment() -> None:
    assert keep_seconds({}) == keep_seconds({KEEP: DEFAULT_KEEP}) == 30 * DAY
    assert keep_seconds({KEEP: "12h"}) == DAY / 2
    assert keep_seconds({KEEP: "forever"}) is None
    for wrong in ("", "0", "59s", "-1d", "never", "1 day", "4000d"):
        with pytest.raises(ConfigError, match=KEEP):
            keep_seconds({KEEP: wrong})


def test_for_ever_is_for_ever(engine: Engine, clock: Clock) -> None:
    with engine.store.write():
        engine.store.events.add("old")
    clock.forward(10_000 * DAY)
    forgetting = Forgetting(engine.store, None)
    assert not forgetting.step()
    assert counts(engine)[2] == 1
