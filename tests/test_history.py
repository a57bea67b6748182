"""The checker of histories: each rule is kept and broken by hand, then by a simulated allocator that is right or is not."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drydock.testing.history import (
    ACQUIRE,
    KILL,
    RELEASE,
    RENEW,
    VERIFY,
    WRITE,
    Operation,
    Outcome,
    Recorder,
    check,
    main,
    read,
)

OK, FAIL, LOST, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.LOST, Outcome.UNKNOWN


def op(
    process: str, kind: str, fence: int | None, called: float, returned: float | None, outcome: str = OK,
    ttl: float | None = None, resource: str | None = "h1",
) -> Operation:  # fmt: skip
    return Operation(process, kind, resource, fence, called, returned, outcome, ttl)


def killed(process: str, at: float) -> Operation:
    return Operation(process, KILL, None, None, at, at, OK)


def unheard(process: str, called: float) -> Operation:
    """An acquire whose process was killed before it came back."""
    return op(process, ACQUIRE, None, called, None, UNKNOWN, resource=None)


TWO_IN_TURN = [
    op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3),
    op("b", ACQUIRE, 2, 0, 2.5), op("b", RELEASE, 2, 4, 5),
]  # fmt: skip

#: histories that are as they must be
WELL = {
    "nothing": [],
    "two in turn": TWO_IN_TURN,
    "a release that may not have happened yet when the next is granted": [
        op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, None, UNKNOWN), op("b", ACQUIRE, 2, 0, 2.1),
    ],
    "granted when the holder was killed": [
        op("a", ACQUIRE, 1, 0, 1), killed("a", 2), op("b", ACQUIRE, 2, 0, 2.1),
    ],
    "granted after the call in which the holder died": [
        op("a", ACQUIRE, 1, 0, 1), op("a", WRITE, 1, 2, None, UNKNOWN), op("b", ACQUIRE, 2, 0, 2.1),
    ],
    "granted when a ttl may have passed": [
        op("a", ACQUIRE, 1, 0, 1, ttl=3), op("b", ACQUIRE, 2, 0, 3.1), op("a", RENEW, 1, 5, 6, LOST),
        op("a", WRITE, 1, 7, 8, LOST),
    ],
    "a release that failed, and was done again": [
        op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3, FAIL), op("a", RELEASE, 1, 4, 5),
        op("b", ACQUIRE, 2, 0, 4.5), op("b", RELEASE, 2, 5, 6),
    ],
    "a release of what a killed process was granted": [unheard("a", 0), op("operator", RELEASE, 1, 2, 3)],
    "released by somebody who is read first": [
        op("operator", RELEASE, 1, 2, 3), op("a", ACQUIRE, 1, 0, 1), op("a", VERIFY, 1, 4, 5, LOST),
    ],
    "renewed in time, and renewed again": [
        op("a", ACQUIRE, 1, 0, 1, ttl=3), op("a", RENEW, 1, 3, 4), op("a", RENEW, 1, 6, 6.5, ttl=9),
        op("a", RELEASE, 1, 15, 16),
    ],
    "renewed for as long as it had last": [
        op("a", ACQUIRE, 1, 0, 0.5, ttl=1), op("a", RENEW, 1, 1, 1.2, ttl=9), op("a", RENEW, 1, 5, 6),
        op("a", RELEASE, 1, 14, 15),
    ],
    "grants at once, in either order": [
        op("a", ACQUIRE, 2, 0, 5), op("b", ACQUIRE, 1, 0, 5), killed("a", 5), killed("b", 5),
    ],
    "writes at once, in either order": [op("a", WRITE, 2, 0, 5), op("b", WRITE, 1, 1, 6)],
    "nothing was free": [op("a", ACQUIRE, None, 0, 1, FAIL, resource=None)],
    "two resources at once": [op("a", ACQUIRE, 1, 0, 1), op("b", ACQUIRE, 1, 0, 1, resource="h2")],
}  # fmt: skip

#: histories that are not, and the rules that they break
ILL: dict[str, tuple[list[Operation], set[str]]] = {
    "two holders": (
        [op("a", ACQUIRE, 1, 0, 1), op("b", ACQUIRE, 2, 0, 2), op("a", RELEASE, 1, 3, 4), op("b", RELEASE, 2, 3, 4)],
        {"overlap"},
    ),
    "two holders, one of which is killed later": (
        [op("a", ACQUIRE, 1, 0, 1), op("b", ACQUIRE, 2, 0, 2), killed("a", 3)],
        {"overlap"},
    ),
    "two holders, one of which dies in a call later": (
        [op("a", ACQUIRE, 1, 0, 1), op("b", ACQUIRE, 2, 0, 2), op("a", WRITE, 1, 3, None, UNKNOWN)],
        {"overlap"},
    ),
    "two holders, one of which has a ttl": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=3), op("b", ACQUIRE, 2, 0, 2.9)],
        {"overlap"},
    ),
    "two holders, one of which renews later": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=3), op("b", ACQUIRE, 2, 0, 3.5), op("a", RENEW, 1, 3.8, 4)],
        {"overlap"},
    ),
    "two holders, one of which had renewed": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=3), op("a", RENEW, 1, 2, 3), op("b", ACQUIRE, 2, 0, 4.9)],
        {"overlap"},
    ),
    "two holders, since a failed release released": (
        [op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3, FAIL), op("b", ACQUIRE, 2, 0, 4)],
        {"overlap"},
    ),
    "a fence twice": (
        [op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3), op("b", ACQUIRE, 1, 4, 5), op("b", RELEASE, 1, 6, 7)],
        {"fence"},
    ),
    "a smaller fence for one who asked later": (
        [op("a", ACQUIRE, 2, 0, 1), killed("a", 1), op("b", ACQUIRE, 1, 2, 3), killed("b", 3)],
        {"fence"},
    ),
    "a smaller fence for one who held later": (
        [op("a", ACQUIRE, 2, 0, 1), op("a", RELEASE, 2, 2, 3), op("b", ACQUIRE, 1, 0, 4)],
        {"fence"},
    ),
    "a release of nothing": ([op("a", RELEASE, 1, 2, 3)], {"unmatched"}),
    "a release of what was asked for later": (
        [op("operator", RELEASE, 1, 2, 3), unheard("a", 4)],
        {"unmatched"},
    ),
    "two releases, and one grant that nobody heard of": (
        [unheard("a", 0), op("operator", RELEASE, 1, 2, 3), op("operator", RELEASE, 7, 2, 3)],
        {"unmatched"},
    ),
    "two releases of one grant": (
        [op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3), op("a", RELEASE, 1, 4, 5)],
        {"unmatched"},
    ),
    "renewed after the release": (
        [op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3), op("a", RENEW, 1, 4, 5)],
        {"unmatched"},
    ),
    "taken from one who had no ttl": ([op("a", ACQUIRE, 1, 0, 1), op("a", VERIFY, 1, 2, 3, LOST)], {"lost"}),
    "taken from one whose ttl ran": ([op("a", ACQUIRE, 1, 0, 1, ttl=9), op("a", RENEW, 1, 2, 3, LOST)], {"lost"}),
    "taken, and then not": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=2), op("a", VERIFY, 1, 2.5, 3, LOST), op("a", RELEASE, 1, 4, 5)],
        {"lost", "late"},
    ),
    "a write of the holder refused": ([op("a", ACQUIRE, 1, 0, 1), op("a", WRITE, 1, 2, 3, LOST)], {"lost"}),
    "renewed too late": ([op("a", ACQUIRE, 1, 0, 1, ttl=3), op("a", RENEW, 1, 4.1, 5)], {"late"}),
    "released too late": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=3), op("a", RENEW, 1, 2, 3), op("a", RELEASE, 1, 6.1, 7)],
        {"late"},
    ),
    "released too late, and a verification renews nothing": (
        [op("a", ACQUIRE, 1, 0, 1, ttl=3), op("a", VERIFY, 1, 3, 3.5), op("a", RELEASE, 1, 5, 6)],
        {"late"},
    ),
    "a stale write": ([op("b", WRITE, 2, 0, 1), op("a", WRITE, 1, 2, 3)], {"stale"}),
}  # fmt: skip


def rules(*arguments: object, **options: object) -> set[str]:
    return {violation.rule for violation in check(*arguments, **options)}  # type: ignore[arg-type]


@pytest.mark.parametrize("operations", WELL.values(), ids=WELL)
def test_what_may_happen_is_passed(operations: list[Operation]) -> None:
    assert check(operations) == []


@pytest.mark.parametrize(("operations", "broken"), ILL.values(), ids=ILL)
def test_what_must_not_happen_is_found(operations: list[Operation], broken: set[str]) -> None:
    assert rules(operations) == broken


@pytest.mark.parametrize(("operations", "broken"), ILL.values(), ids=ILL)
def test_what_must_not_happen_is_told_in_one_sentence_that_names_the_resource(
    operations: list[Operation], broken: set[str]
) -> None:
    for violation in check(operations):
        assert violation.sentence.startswith("h1 ")
        assert "\n" not in violation.sentence


def test_two_may_hold_two_seats_and_three_may_not() -> None:
    three = [op(process, ACQUIRE, fence, 0, fence) for fence, process in enumerate("abc", 1)]
    assert rules(three[:2], seats=2) == set()
    assert rules(three, seats=2) == {"overlap"}
    assert rules(three, seats={"h1": 3}) == set()


def test_with_two_seats_fences_grow_only_as_far_as_the_order_is_known() -> None:
    first, second = op("a", ACQUIRE, 2, 0, 1), op("b", ACQUIRE, 1, 0.5, 2)
    assert rules([first, second], seats=2) == set()
    assert rules([first, second._replace(called_at=1.5)], seats=2) == {"fence"}


def test_with_two_seats_the_writes_of_the_older_holder_may_be_refused() -> None:
    held = [op("a", ACQUIRE, 1, 0, 1), op("a", WRITE, 1, 2, 3, LOST)]
    assert rules(held, seats=2) == set()


def test_what_is_held_at_the_end_is_listed_and_nothing_else_is() -> None:
    held = [*TWO_IN_TURN, op("c", ACQUIRE, 3, 6, 7)]
    assert rules(held, final=[("h1", 3)]) == set()
    assert rules(held, final=[]) == {"lost"}
    assert rules(held, final=[("h1", 3), ("h1", 2)]) == {"kept"}
    assert rules(held, final=[("h1", 3), ("h2", 1)]) == {"unmatched"}
    assert rules([*held, unheard("d", 8)], final=[("h1", 3), ("h2", 1)]) == set()


def test_what_may_have_ended_need_not_be_listed() -> None:
    assert rules([op("a", ACQUIRE, 1, 0, 1), killed("a", 2)], final=[]) == set()
    assert rules([op("a", ACQUIRE, 1, 0, 1, ttl=3)], final=[]) == set()
    assert rules([op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, None, UNKNOWN)], final=[]) == set()


# ---- the file


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    times = iter(range(100))
    recorder = Recorder(str(tmp_path / "a"), "me", clock=lambda: float(next(times)))
    asked = recorder.call(ACQUIRE, ttl=2.5)
    recorder.returned(asked, OK, 'h "1"', 7)
    given = recorder.call(RELEASE, 'h "1"', 7)
    recorder.returned(given, FAIL)
    recorder.killed("you")
    recorder.call(RENEW, 'h "1"', 7, ttl=3)
    recorder.close()
    assert list(read([tmp_path / "a"])) == [
        Operation("me", ACQUIRE, 'h "1"', 7, 0.0, 1.0, OK, 2.5),
        Operation("me", RELEASE, 'h "1"', 7, 2.0, 3.0, FAIL),
        Operation("you", KILL, None, None, 4.0, 4.0, OK),
        Operation("me", RENEW, 'h "1"', 7, 5.0, None, UNKNOWN, 3),
    ]


def test_a_torn_last_line_is_passed_over_also_when_another_process_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    recorder = Recorder(str(path), "first")
    recorder.call(ACQUIRE)
    recorder.close()
    whole, line = path.read_bytes(), b'[1,"ok","h1",1,123.456]'
    for kept in range(len(line)):
        path.write_bytes(whole + line[:kept])
        assert [o.outcome for o in read([path])] == [UNKNOWN], kept
        second = Recorder(str(path), "second")
        second.returned(second.call(ACQUIRE), FAIL)
        second.close()
        assert [(o.process, o.outcome) for o in read([path])] == [("first", UNKNOWN), ("second", FAIL)], kept


def test_a_line_that_is_damaged_otherwise_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for damage in (b'[1,"acq\n[1,"acquire",null,null,null,1]\n', b'[1,"ok",null,null,1]\n', b"7\n", b'{"killed":"a"}\n',
                   b'[1,"acquire",null,null,null,1]\n[1,"fine","h1",1,2]\n'):  # fmt: skip
        path.write_bytes(b'{"process":"p"}\n' + damage)
        with pytest.raises(ValueError, match=r"a, line \d"):
            list(read([path]))


WRITER = """
import sys
from drydock.testing.history import Recorder

recorder = Recorder(sys.argv[1], sys.argv[2])
while True:
    for _ in range(100):
        recorder.returned(recorder.call("acquire"), "fail")
    print("100 more", flush=True)
"""


def test_a_history_survives_the_kill_of_its_writer(tmp_path: Path) -> None:
    """Killed while it writes, five times, and each time another one goes on in the same file."""
    path = tmp_path / "a"
    for life in "01234":
        command = [sys.executable, "-c", WRITER, str(path), life]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"100 more\n"
            writer.kill()
    operations = list(read([path]))
    for life in "01234":
        outcomes = [o.outcome for o in operations if o.process == life]
        assert outcomes[:100] == [FAIL] * 100
        assert outcomes.count(UNKNOWN) <= 1


def record(path: Path, operations: list[Operation]) -> None:
    times: list[float] = []
    recorder = Recorder(str(path), "a", clock=lambda: times.pop())
    for operation in operations:
        assert operation.returned_at is not None
        times.append(operation.called_at)
        number = recorder.call(operation.kind, operation.resource, operation.fence, ttl=operation.ttl)
        times.append(operation.returned_at)
        recorder.returned(number, operation.outcome)
    recorder.close()


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "well", [op("a", ACQUIRE, 1, 0, 1), op("a", RELEASE, 1, 2, 3)])
    record(tmp_path / "ill", [op("a", RELEASE, 1, 4, 5)])
    assert main([str(tmp_path / "well")]) == 0
    assert capsys.readouterr().out == "2 operations, 0 violations\n"
    assert main([str(tmp_path / "well"), str(tmp_path / "ill")]) == 1
    assert capsys.readouterr().out == "unmatched: h1 was released 2 times by a (fence 1)\n3 operations, 1 violations\n"
    assert main([str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_the_command_is_a_module(tmp_path: Path) -> None:
    record(tmp_path / "ill", [op("a", RELEASE, 1, 4, 5)])
    module = [sys.executable, "-m", "drydock.testing.history", str(tmp_path / "ill")]
    done = subprocess.run(module, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")


# ---- a simulated allocator


class Simulated(NamedTuple):
    """A history of an allocator that is right, and what it lists at the end."""

    operations: list[Operation]
    final: set[tuple[str, int]]


class Actor:
    """One life of one process: what it is about to do, and when its call was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = ""  # no call is open
        self.called = 0.0
        self.ttl: float | None = None
        self.effect: tuple[str, str | None, int | None] | None = None  # outcome, resource, fence
        self.holds: tuple[str, int] | None = None


class Allocator:
    """Grants, renews, releases and ends in one step each, somewhere between call and return; time is an argument."""

    def __init__(self, resources: list[str], seats: int) -> None:
        self.fences = dict.fromkeys(resources, 0)
        self.seats = seats
        self.held: dict[tuple[str, int], tuple[Actor, float, float]] = {}  # holder, ttl, end
        self.newest: dict[str, int] = {}

    def expire(self, now: float) -> None:
        self.held = {grant: row for grant, row in self.held.items() if row[2] > now}

    def acquire(self, actor: Actor, now: float) -> tuple[str, str | None, int | None]:
        self.expire(now)
        free = [r for r in self.fences if sum(name == r for name, _ in self.held) < self.seats]
        if not free:
            return (FAIL, None, None)
        name = free[0]
        self.fences[name] += 1
        ttl = math.inf if actor.ttl is None else actor.ttl
        self.held[name, self.fences[name]] = (actor, ttl, now + ttl)
        return (OK, name, self.fences[name])

    def use(self, actor: Actor, now: float) -> tuple[str, str | None, int | None]:
        self.expire(now)
        assert actor.holds is not None
        name, fence = actor.holds
        if actor.kind == WRITE:
            if self.newest.get(name, 0) > fence:
                return (LOST, name, fence)
            self.newest[name] = fence
            return (OK, name, fence)
        row = self.held.get((name, fence))
        if row is None:
            return (LOST, name, fence)
        if actor.kind == RELEASE:
            del self.held[name, fence]
        if actor.kind == RENEW:
            ttl = row[1] if actor.ttl is None else actor.ttl
            self.held[name, fence] = (actor, ttl, now + ttl)
        return (OK, name, fence)


def simulate(chance: random.Random, steps: int, processes: int, resources: int, seats: int) -> Simulated:
    allocator = Allocator([f"h{n}" for n in range(resources)], seats)
    actors = [Actor(f"{n}.0") for n in range(processes)]
    operations: list[Operation] = []
    lives = 0
    now = 0.0
    for _ in range(steps):
        now += chance.choice((0.001, 0.1, 0.5))
        slot = chance.randrange(processes)
        actor = actors[slot]
        if chance.random() < 0.03:
            operations += die(actor, now)
            if chance.random() < 0.7:  # the store finds out at once, or when the others come to it
                allocator.held = {g: row for g, row in allocator.held.items() if row[0] is not actor}
            lives += 1
            actors[slot] = Actor(f"{slot}.{lives}")
        elif not actor.kind:
            start(actor, chance, now)
        elif actor.effect is None:
            actor.effect = allocator.acquire(actor, now) if actor.kind == ACQUIRE else allocator.use(actor, now)
        else:
            operations.append(back(actor, now))
    alive = set(actors)
    final = {grant for grant, row in allocator.held.items() if row[0] in alive and row[2] > now}
    for actor in actors:
        if actor.kind:
            operations += die(actor, now)[1:]
    return Simulated(operations, final)


def start(actor: Actor, chance: random.Random, now: float) -> None:
    actor.called, actor.effect = now, None
    actor.kind = ACQUIRE if actor.holds is None else chance.choice((RELEASE, RELEASE, RENEW, VERIFY, WRITE))
    actor.ttl = chance.choice((None, None, 0.7, 3.0)) if actor.kind in (ACQUIRE, RENEW) else None


def back(actor: Actor, now: float) -> Operation:
    assert actor.effect is not None
    outcome, name, fence = actor.effect
    done = Operation(actor.name, actor.kind, name, fence, actor.called, now, outcome, actor.ttl)
    if actor.kind == ACQUIRE and outcome == OK:
        assert name is not None
        assert fence is not None
        actor.holds = (name, fence)
    elif actor.kind == RELEASE or (actor.kind != WRITE and outcome == LOST):
        actor.holds = None
    actor.kind, actor.effect = "", None
    return done


def die(actor: Actor, now: float) -> list[Operation]:
    told = [killed(actor.name, now)]
    if actor.kind:
        name, fence = actor.holds or (None, None)
        told.append(Operation(actor.name, actor.kind, name, fence, actor.called, None, UNKNOWN, actor.ttl))
    return told


seeds = st.integers(0, 2**32)


@st.composite
def histories(draw: Callable[[st.SearchStrategy[int]], int]) -> tuple[Simulated, int, random.Random]:
    chance = random.Random(draw(seeds))
    seats = draw(st.integers(1, 3))
    processes, resources = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    return simulate(chance, draw(st.integers(0, 400)), processes, resources, seats), seats, chance


def shuffled(operations: list[Operation], chance: random.Random) -> list[Operation]:
    """As they are read: file after file, each in its order."""
    names = sorted({operation.process for operation in operations})
    chance.shuffle(names)
    return [operation for name in names for operation in operations if operation.process == name]


def surely_held(operations: list[Operation]) -> list[tuple[Operation, float, float]]:
    """Grants that were released, and a time in which they were held for certain."""
    releases = {(o.resource, o.fence): o.called_at for o in operations if o.kind == RELEASE and o.outcome == OK}
    grants = [o for o in operations if o.kind == ACQUIRE and (o.resource, o.fence) in releases]
    times = [(o, o.returned_at or 0.0, releases[o.resource, o.fence]) for o in grants]
    return [(grant, begin, end) for grant, begin, end in times if begin < end]


@settings(max_examples=300, deadline=None)
@given(histories())
def test_a_right_allocator_always_passes(drawn: tuple[Simulated, int, random.Random]) -> None:
    (operations, final), seats, chance = drawn
    assert check(operations, seats=seats, final=final) == []
    assert check(shuffled(operations, chance), seats=seats, final=final) == []


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_planted_holder_too_many_is_always_found(drawn: tuple[Simulated, int, random.Random]) -> None:
    """Somebody else is granted each seat of a resource in the middle of a time in which it was surely held."""
    (operations, _), seats, chance = drawn
    for grant, begin, end in surely_held(operations)[:5]:
        intruders = [
            op(f"intruder {number}", kind, 10_000 + number, at, at, resource=grant.resource)
            for number in range(seats)
            for kind, at in ((ACQUIRE, (begin + end) / 2), (RELEASE, end))
        ]
        assert "overlap" in rules(shuffled([*operations, *intruders], chance), seats=seats)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_planted_fence_that_does_not_grow_is_always_found(drawn: tuple[Simulated, int, random.Random]) -> None:
    (operations, _), seats, chance = drawn
    grants = [(n, o) for n, o in enumerate(operations) if o.kind == ACQUIRE and o.outcome == OK]
    for _, earlier in grants:
        for position, later in grants:
            assert earlier.returned_at is not None
            if later.resource == earlier.resource and earlier.returned_at < later.called_at:
                planted = list(operations)
                planted[position] = later._replace(fence=chance.choice((earlier.fence, 0)))
                assert "fence" in rules(shuffled(planted, chance), seats=seats)
                return


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_planted_loss_is_always_found(drawn: tuple[Simulated, int, random.Random]) -> None:
    """One that is held for certain is missing in the list, or its holder is told that he lost it."""
    (operations, final), seats, chance = drawn
    sure = {(o.resource, o.fence): o for o in operations if o.kind == ACQUIRE and o.outcome == OK and o.ttl is None}
    dead = {o.process for o in operations if o.kind == KILL or o.returned_at is None}
    touched = {(o.resource, o.fence) for o in operations if o.kind == RENEW}
    for grant in sorted(final):
        if grant in sure and grant not in touched and sure[grant].process not in dead:
            assert "lost" in rules(operations, seats=seats, final=final - {grant})
            end = max(o.returned_at or o.called_at for o in operations) + 1
            told = op(sure[grant].process, VERIFY, grant[1], end, end, LOST, resource=grant[0])
            assert "lost" in rules(shuffled([*operations, told], chance), seats=seats)
