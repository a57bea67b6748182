"""Every order in which the statements of two or three operations can come, on the real store; and that the explorer
would have found what is not there: faults are planted, and it must name them."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import planted
import pytest

from drydock.blueprint import Attributes, Builder, Plan, slot_lock
from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.errors import ConfigError
from drydock.model import Demand
from drydock.store.base import Store
from drydock.testing import yard
from drydock.testing.explore import Explorer, Report, broken_promises, explore, show
from drydock.testing.schedule import CRASH, Diverged, Operation, Step
from drydock.testing.yard import TRIPLES, YARDS, explorer, pairs, race

#: most runs for one pair; what needs more is left to the command, which has no bound
FEW = 40


def nothing(_: Engine) -> None:
    pass


class Plain(Builder):
    """Needs no hook."""

    type = "thing"

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        yield Plan("one", (slot_lock("one"),))


def died_on_the_way() -> Explorer:
    """Somebody makes room for a waiter, who has looked and does not sleep yet, and dies before he wakes him."""

    def set_up(engine: Engine) -> None:
        engine.apply(parse_pool({"blueprint": {"plain": {"kind": "plain", "limit": 1}}}, "plain"))
        engine.lease(Demand("thing"), owner="holder", wait_seconds=0, keep=True)

    wait = Operation("wait", lambda engine: engine.lease(Demand("thing"), owner="waiter", keep=True))
    destroy = Operation("destroy", lambda engine: engine.release_resource(1))
    return Explorer(set_up, [wait, destroy], kinds={"plain": Plain})


def explored(where: str, *names: str, **bounds: Any) -> Report:
    with explorer(YARDS[where], names) as found:
        return found.explore(**bounds)


def told(report: Report) -> str:
    return "" if report.shortest is None else show(report.shortest)


# ---- nothing is found


@pytest.mark.parametrize("names", pairs(), ids="+".join)
def test_two_operations_keep_every_promise_in_whatever_order_they_come(names: tuple[str, str]) -> None:
    assert told(explored("pool", *names, limit=3 * FEW)) == ""
    assert told(explored("works", *names, limit=FEW)) == ""
    assert told(explored("stories", *names, limit=FEW // 4)) == ""


@pytest.mark.parametrize("names", pairs(), ids="+".join)
def test_whoever_dies_at_whatever_step_the_next_one_brings_it_to_rest(names: tuple[str, str]) -> None:
    report = explored("pool", *names, crashes=1, limit=2 * FEW)
    assert told(report) == ""
    assert report.crashes > 0
    assert told(explored("works", *names, crashes=1, limit=FEW)) == ""
    assert told(explored("stories", *names, crashes=1, limit=FEW // 4)) == ""


@pytest.mark.parametrize("names", TRIPLES, ids="+".join)
def test_three_operations_keep_every_promise_with_one_preemption(names: tuple[str, ...]) -> None:
    for where in YARDS:
        report = explored(where, *names, preemptions=1, limit=3 * FEW)
        assert told(report) == ""


@pytest.mark.parametrize(
    ("names", "crashes"),
    [(("lease", "release"), 1), (("lease", "lease"), 1), (("renew", "expire"), 1), (("release", "destroy"), 1),
     (("wait", "release"), 1), (("lease", "lease", "release"), 0), (("wait", "wait", "release"), 0)],
    ids=str,
)  # fmt: skip
def test_some_are_explored_to_the_end(names: tuple[str, ...], crashes: int) -> None:
    report = explored("pool", *names, crashes=crashes)
    assert told(report) == ""
    assert report.complete
    assert report.schedules >= report.runs > 0


# ---- what it rests on


@pytest.mark.parametrize(
    ("names", "crashes"),
    [(("renew", "release"), 1), (("renew", "renew"), 1), (("renew", "destroy"), 0), (("release", "reclaim"), 0)],
    ids=str,
)
def test_the_runs_that_are_left_out_end_like_those_that_are_run(names: tuple[str, ...], crashes: int) -> None:
    fewer = explored("pool", *names, crashes=crashes)
    every = explored("pool", *names, crashes=crashes, reduce=False)
    assert fewer.complete
    assert every.complete
    assert fewer.ends == every.ends
    assert every.runs == every.schedules > fewer.schedules >= fewer.runs


def test_every_order_is_counted() -> None:
    """Two that each read twice on their own and write nothing: six orders, and their states in a grid of three by three."""
    looks = [Operation("look", lambda engine: (engine.store.offers.config(), engine.store.offers.config()))] * 2
    every = explore(nothing, looks, reduce=False)
    assert (every.schedules, every.runs) == (6, 6)
    fewer = explore(nothing, looks)
    assert fewer.schedules == 6
    assert fewer.runs < 6


def test_a_bound_on_preemptions_leaves_out_what_needs_more() -> None:
    looks = [Operation("look", lambda engine: (engine.store.offers.config(), engine.store.offers.config()))] * 2
    counts = [explore(nothing, looks, preemptions=most).schedules for most in (0, 1, 2)]
    assert counts == [2, 4, 6]


def test_what_was_read_before_tells_two_states_apart() -> None:
    """The lost update: both read, then both write one more than they read."""

    def add(engine: Engine) -> None:
        number = len(engine.store.offers.sources().get("n", {}).get("n", ""))
        with engine.store.write():
            engine.store.offers.save_source("n", {"n": "x" * (number + 1)})

    report = explore(nothing, [Operation("add", add)] * 3)
    assert report.schedules == 90
    assert {"x", "xx", "xxx"} == {match for end in report.ends for match in re.findall(r'"(x+)"', str(end))}


def test_what_the_store_holds_tells_two_states_apart() -> None:
    """Two that write without having read, and two that copy what was written last, if they come after both."""

    def write(engine: Engine, name: str, by: str) -> None:
        with engine.store.write():
            engine.store.offers.save_source(name, {"by": by})

    def copy(engine: Engine, name: str) -> None:
        write(engine, name, engine.store.offers.sources().get("n", {}).get("by", "nobody"))

    operations = [
        Operation("one", lambda engine: write(engine, "n", "one")),
        Operation("two", lambda engine: write(engine, "n", "two")),
        Operation("first", lambda engine: copy(engine, "first")),
        Operation("second", lambda engine: copy(engine, "second")),
    ]
    ends = {tuple(re.findall(r"\bby\W+(\w+)", str(end))) for end in explore(nothing, operations).ends}
    assert {("one",) * 3, ("two",) * 3, ("nobody", "one", "nobody"), ("one", "two", "two")} <= ends


def test_somebody_may_die_between_two_questions_in_one_transaction() -> None:
    def ask(engine: Engine) -> None:
        with engine.store.write():
            first = engine.store.is_alive("look")
            engine.store.offers.save_source("n", {"first": first, "second": engine.store.is_alive("look")})

    both = [Operation("ask", ask), Operation("look", lambda engine: engine.store.offers.config())]
    fewer, every = (explore(nothing, both, crashes=1, reduce=reduce) for reduce in (True, False))
    assert fewer.ends == every.ends
    assert len(fewer.ends) == 4, "both, the first, neither, and nothing when the one who asks dies"


def test_of_two_writers_one_waits_for_the_lock_and_that_is_no_error() -> None:
    def write(engine: Engine) -> None:
        with engine.store.write():
            engine.store.offers.changed()

    report = explore(nothing, [Operation("write", write)] * 2, reduce=False)
    assert (report.schedules, report.found) == (2, 0)


def test_a_crash_loses_the_transaction_and_nothing_of_it_runs_again() -> None:
    def write(engine: Engine) -> None:
        try:
            with engine.store.write():
                engine.store.offers.changed()
                engine.store.events.add("before")
        finally:
            with engine.store.write():
                engine.store.offers.changed()

    report = explore(nothing, [Operation("write", write)], crashes=1, reduce=False)
    table = {
        config for end in report.ends for rows in end for (id, config, *_) in rows if id == 1 and len(rows[0]) == 3
    }
    assert report.crashes == report.runs - 1
    assert len(report.ends) == 3, "nothing, the first and both"
    assert table >= {1, 2, 3}


def test_the_same_exploration_finds_the_same_each_time() -> None:
    def once() -> tuple[Any, ...]:
        report = explored("works", "lease", "release", crashes=1, limit=3 * FEW)
        return report.schedules, report.runs, report.ends

    assert once() == once()


def test_an_error_that_is_not_a_refusal_is_a_violation() -> None:
    def fail(engine: Engine) -> None:
        raise ConfigError("no")

    report = explore(nothing, [Operation("fail", fail)])
    assert report.shortest is not None
    assert report.shortest.what == "fail ended with ConfigError: no"


def test_what_nobody_takes_up_again_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that dies on its way is found when nobody ends what died."""
    monkeypatch.setattr("drydock.tending.Tender._bury", lambda *_: False)
    report = explored("pool", "lease", "release", crashes=1)
    assert report.shortest is None, "a lease that was kept outlives its process"
    report = explored("pool", "wait", "wait", "release", crashes=1, preemptions=0)
    assert "left behind after tending twice" in told(report)


# ---- the double allocation


def test_without_slot_locks_a_host_is_allocated_twice_and_the_shortest_way_is_shown() -> None:
    with race(slot_locks=False) as explorer:
        report = explorer.explore()
        shortest = report.shortest
        assert shortest is not None
        assert shortest.what.startswith('double-allocation: binding "h1" is allocated 2 times')
        assert explorer.replay(shortest.schedule) == shortest
    picture = show(shortest)
    assert [line for line in picture.splitlines() if line.startswith("lease")] == [f"{'lease':38}lease#2"]
    assert picture.count("insert resource") == 2
    # Both have chosen before either allocates.
    begin = next(number for number, step in enumerate(shortest.schedule) if step.text == "BEGIN IMMEDIATE")
    assert {step.actor for step in shortest.schedule[:begin]} == {"lease", "lease#2"}
    with race(slot_locks=False) as explorer:
        again = explorer.explore().shortest
    assert again is not None
    assert len(again.schedule) == len(shortest.schedule)


def test_with_slot_locks_no_order_allocates_a_host_twice() -> None:
    with race(slot_locks=True) as explorer:
        report = explorer.explore(crashes=1)
    assert report.complete
    assert told(report) == ""


def test_a_schedule_that_cannot_be_is_not_replayed() -> None:
    with race(slot_locks=True) as explorer:
        with pytest.raises(Diverged, match="lease cannot do now: COMMIT"):
            explorer.replay([Step("lease", "COMMIT")])
        assert explorer.replay([Step("lease", CRASH), Step("lease#2", CRASH)]) is None


# ---- planted faults


@pytest.mark.parametrize(
    ("plant", "where", "what"),
    [
        (planted.slot_locks_without_a_key, lambda: race(slot_locks=True), "double-allocation"),
        (planted.commit_before_the_locks, lambda: explorer(YARDS["pool"], ["lease", "lease"]), "slot-lock-not-held"),
        (planted.read_before_the_write_lock, lambda: explorer(YARDS["pool"], ["lease", "renew"]), "ended with StoreBusy"),
        (planted.set_without_compare, lambda: explorer(YARDS["works"], ["reclaim", "reclaim"]), "two hooks at once on h2"),
        (planted.nobody_is_woken, lambda: explorer(YARDS["pool"], ["wait", "wait", "release"]), "sleeps though"),
        (planted.the_look_is_dated_late, died_on_the_way, "sleeps though there is something for it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_planted_fault_is_found_and_its_schedule_shows_it_again(
    plant: Callable[[pytest.MonkeyPatch], None],
    where: Callable[[], Explorer],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashes = int(where is died_on_the_way)
    with where() as found:
        assert told(found.explore(crashes=crashes)) == ""
    plant(monkeypatch)
    with where() as found:
        shortest = found.explore(crashes=crashes).shortest
        assert shortest is not None
        assert what in shortest.what
        assert found.replay(shortest.schedule) == shortest
    monkeypatch.undo()
    with where() as found, contextlib.suppress(Diverged):  # what is right may do other steps
        assert found.replay(shortest.schedule) is None


# ---- the command


def test_the_command_prints_a_table_of_counts() -> None:
    run = [
        sys.executable,
        "-m",
        "drydock.testing.explore",
        "--yard",
        "pool",
        "--crash",
        "--pairs",
        "release+renew,lease+release",
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    head, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["yard", "operations", "schedules"]
    assert [row.split()[:2] for row in rows] == [["pool", "release+renew"], ["pool", "lease+release"]]
    assert all(re.search(r" none$", row) for row in rows)


def test_the_command_knows_its_operations() -> None:
    run = [sys.executable, "-m", "drydock.testing.explore", "--pairs", "lease+flee"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no operation flee; there are: lease, ")


def test_promises_can_be_looked_at_one_by_one(store: Store) -> None:
    assert broken_promises(store, "double-allocation") == ""


@pytest.fixture
def store(engine: Engine) -> Store:
    return engine.store


def test_each_operation_is_explored_with_each() -> None:
    assert {frozenset(pair) for pair in pairs()} == {
        frozenset((a, b)) for a in yard.OPERATIONS for b in yard.OPERATIONS
    }
