"""Why a request waits: its place, what is missing, who has it until when, and how long that may take, or nothing."""

from collections.abc import Sequence

import pytest
from conftest import Clock, apply

from drydock.candidates import candidates
from drydock.engine import Engine
from drydock.errors import NothingFree
from drydock.model import Demand, Terms
from drydock.waiting import MOST_LOOKED_AT, Kept, Waiting, everybody, explain

HOST = Demand("host")
POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2", "h3"]}}}
ONE = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}}


def hold(engine: Engine, owner: str = "t", count: int = 1, until: float | None = None, ttl: float | None = None) -> int:
    return engine.lease(HOST, owner=owner, count=count, wait_seconds=0, keep=True, until=until, ttl=ttl)[0].id


def ask(engine: Engine, count: int = 1, priority: int = 0, demand: Demand = HOST) -> list[int]:
    """A request of somebody who is away: it is in the queue, and nobody serves it."""
    with engine.store.write():
        ids = [engine.store.leases.add(demand, Terms(priority), "w", None).id for _ in range(count)]
        if count > 1:
            engine.store.leases.join(ids)
    return ids


def why(engine: Engine, ids: Sequence[int], demand: Demand = HOST) -> Waiting:
    return explain(engine.store, candidates(engine.store, demand), demand, ids)


def held_for(engine: Engine, clock: Clock, *seconds: float) -> None:
    """Past holds of so many seconds."""
    for length in seconds:
        id = hold(engine)
        clock.forward(length)
        engine.release(id)


# ---- place, holders, what is missing


def test_the_place_is_that_in_which_it_is_served(engine: Engine, clock: Clock) -> None:
    """A request for several counts once, and who is worth more comes first."""
    apply(engine, ONE)
    hold(engine)
    first, several, last = ask(engine), ask(engine, count=3), ask(engine)
    clock.forward(1)
    urgent = ask(engine, priority=1)
    assert [why(engine, ids).rank for ids in (urgent, first, several, last)] == [1, 2, 3, 4]
    assert [found.leases for found in everybody(engine.store)] == [tuple(i) for i in (urgent, first, several, last)]


def test_who_holds_it_since_and_until_when(engine: Engine, clock: Clock) -> None:
    """Whichever end comes first, and none where there is none."""
    apply(engine, POOL)
    since = clock.now
    anna = hold(engine, "anna", until=clock.now + 50)
    clock.forward(10)
    ben, cem = hold(engine, "ben", ttl=30, until=clock.now + 500), hold(engine, "cem")
    found = why(engine, ask(engine)).holders
    assert [(h.lease, h.owner, h.resource, h.name) for h in found] == [
        (anna, "anna", 1, "h1"), (ben, "ben", 2, "h2"), (cem, "cem", 3, "h3"),
    ]  # fmt: skip
    assert [h.since for h in found] == [since, clock.now, clock.now]
    assert found[0].ends_at == since + 50
    assert found[1].ends_at == pytest.approx(clock.now + 30, abs=20.0), "its ttl, which counts on the other clock"
    assert found[2].ends_at is None


def test_what_is_free_is_not_enough(engine: Engine) -> None:
    """Bindings nobody has used yet and idle resources count alike; what is switched off does not."""
    apply(engine, POOL)
    hold(engine)
    engine.release(hold(engine))
    several = ask(engine, count=3)
    assert (why(engine, several).free, why(engine, several).wanted) == (2, 3)
    with engine.store.write():
        engine.store.run("UPDATE binding SET enabled = 0 WHERE name = 'h3'")
    assert why(engine, several).free == 1


def test_what_is_free_is_kept_for_an_older_request_that_wants_more(engine: Engine) -> None:
    apply(engine, POOL)
    hold(engine)
    several, one = ask(engine, count=3), ask(engine)
    found = why(engine, one)
    assert (found.free, found.kept_for) == (2, (Kept(several[0], 3),))
    assert why(engine, several).kept_for == ()


def test_nothing_is_kept_for_who_could_not_use_it(engine: Engine) -> None:
    apply(
        engine,
        {"blueprint": {n: {"kind": "host-pool", "hosts": [f"{n}{i}" for i in range(3)]} for n in ("a", "b")}},
    )
    ask(engine, count=3, demand=Demand("host", ("a",)))
    demand = Demand("host", ("b",))
    assert why(engine, ask(engine, demand=demand), demand).kept_for == ()


def test_who_gives_up_is_told_what_was_kept(engine: Engine) -> None:
    """The older one is alive, since this process asks for both."""
    apply(engine, POOL)
    hold(engine)
    older = ask(engine, count=3)
    with engine.store.write():
        engine.store.run("UPDATE lease SET process = :me WHERE status = 'pending'", me=engine.store.process)
    with pytest.raises(NothingFree, match=f"2 free, kept for lease {older[0]}, which wants 3; 1 waiting ahead"):
        hold(engine)


# ---- the estimate


def test_without_past_holds_and_ends_nobody_knows(engine: Engine) -> None:
    apply(engine, ONE)
    hold(engine)
    assert why(engine, ask(engine)).estimate_seconds is None


def test_a_ttl_says_nothing_since_it_is_renewed(engine: Engine) -> None:
    apply(engine, ONE)
    hold(engine, ttl=60)
    assert why(engine, ask(engine)).estimate_seconds is None


def test_the_end_of_the_lease_is_known(engine: Engine, clock: Clock) -> None:
    apply(engine, ONE)
    hold(engine, until=clock.now + 90)
    first, second = ask(engine), ask(engine)
    clock.forward(30)
    assert why(engine, first).estimate_seconds == 60
    assert why(engine, second).estimate_seconds is None, "nobody knows how long the first will hold it"


def test_it_takes_as_long_as_it_took(engine: Engine, clock: Clock) -> None:
    """The median; each of those ahead takes as long."""
    apply(engine, ONE)
    held_for(engine, clock, 100, 60, 100_000)
    hold(engine)
    clock.forward(40)
    first, second = ask(engine), ask(engine)
    assert why(engine, first).estimate_seconds == 60
    assert why(engine, second).estimate_seconds == 160


def test_who_has_held_it_for_long_is_compared_with_those_who_held_it_longer(engine: Engine, clock: Clock) -> None:
    apply(engine, ONE)
    held_for(engine, clock, 10, 10, 10, 300)
    hold(engine)
    request = ask(engine)
    assert why(engine, request).estimate_seconds == 10
    clock.forward(100)
    assert why(engine, request).estimate_seconds == 200
    clock.forward(201)
    assert why(engine, request).estimate_seconds is None


def test_several_wait_for_the_last_of_what_they_need(engine: Engine, clock: Clock) -> None:
    """One host is free, and two are wanted by the first; the next has what is left, or comes after them."""
    apply(engine, POOL)
    hold(engine, until=clock.now + 100)
    hold(engine, until=clock.now + 500)
    two, one, three = ask(engine, count=2), ask(engine), ask(engine, count=3)
    assert why(engine, two).estimate_seconds == 100
    assert why(engine, one).estimate_seconds == 500
    assert why(engine, three).estimate_seconds is None


def test_other_things_tell_nothing(engine: Engine, clock: Clock) -> None:
    """How long arm64 hosts were held says nothing about the others."""
    hosts = [{"name": "h1", "attributes": {"arch": "arm64"}}, {"name": "h2", "attributes": {"arch": "x86_64"}}]
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": hosts}}})
    arm, intel = Demand("host", (), {"arch": "arm64"}), Demand("host", (), {"arch": "x86_64"})
    [lease] = engine.lease(arm, owner="t", wait_seconds=0, keep=True)
    clock.forward(60)
    engine.release(lease.id)
    for demand in (arm, intel):
        engine.lease(demand, owner="t", wait_seconds=0, keep=True)
    assert why(engine, ask(engine, demand=arm), arm).estimate_seconds == 60
    assert why(engine, ask(engine, demand=intel), intel).estimate_seconds is None


def test_far_back_there_is_a_place_and_no_estimate(engine: Engine, clock: Clock) -> None:
    apply(engine, ONE)
    held_for(engine, clock, 1)
    hold(engine)
    requests = [ask(engine) for _ in range(MOST_LOOKED_AT + 2)]
    assert why(engine, requests[-2]).estimate_seconds == MOST_LOOKED_AT + 1
    last = why(engine, requests[-1])
    assert (last.rank, last.estimate_seconds) == (MOST_LOOKED_AT + 2, None)
