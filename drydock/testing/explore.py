"""Run a few operations in every order in which their SQL statements can come, on the real store code.

    python -m drydock.testing.explore --pairs all --crash

Each operation has a thread, an `Engine` and a connection of its own, and stops before each statement, before it asks
whether a process lives, and where a hook begins and ends; a baton lets exactly one go on. What was decided at each stop
is kept, and the schedule is run again from the start with the last decision changed, until none is left: a depth-first
search with replay, as in VeriSoft (Godefroid, POPL 1997), CHESS (Musuvathi et al., OSDI 2008), and loom and shuttle of the
Rust world. A bound on preemptions is that of CHESS.

A `BEGIN IMMEDIATE` that would block is not an error but cannot be chosen until the writer is done. With crashes, the search
also tries at each stop what happens when that process dies there: its transaction is lost, it runs no more, and others
see that it is dead. One crash in each schedule.

After each commit the promises that `doctor` knows must hold, and when all are done or dead, `Engine.tend` must bring to
rest whatever was left, and they must hold again.

What stands still here: the clocks, unless an operation moves them, and never inside a transaction. The turnstile lets
everybody pass, because it is there for fairness: what is shown here is shown of SQLite's own lock alone.

**Why fewer runs are enough.**

* A transaction that began with BEGIN IMMEDIATE is one step. Others can only read meanwhile, or wait for the lock; and
  they read what was committed before it began (WAL gives each reader a snapshot), so each such read might as well have
  come before it. The one thing that it can notice of them is that they died, so a crash of the others is tried wherever
  it asks whether somebody lives. Its own crash is tried before it begins and before its COMMIT: in between, nothing of
  it is visible, and all of it is lost.
* What an operation will do follows from what it was answered until now, from the store and from the world. So when a run
  comes to a point where all of that is as it was at a point of an earlier run, what can follow has been tried, and the
  run is given up (state matching; the answers stand for the state of a thread, which cannot be looked at). `schedules`
  counts all the schedules that are covered so, not the runs that it took.

`reduce=False` runs every order all the same, to see on small operations that both find the same.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import discovery
from ..doctor import examine
from ..engine import Engine
from ..errors import Conflict
from ..model import LeaseStatus
from ..store.base import Store
from .schedule import (
    CRASH,
    START,
    Actor,
    Diverged,
    ExploredStore,
    Kind,
    Operation,
    Rows,
    Run,
    Step,
    Turn,
    Violation,
    World,
    here,
)

#: until hooks that failed are due again
SETTLE_SECONDS = 60.0
#: tables that no operation reads and that only grow
_TOLD = ("event",)
#: of a column of a schedule that is shown
WIDTH = 38


@dataclass
class Report:
    """What an exploration found."""

    schedules: int = 0  #: that are covered
    runs: int = 0  #: that this took, of which those that met no known state were run to their end
    crashes: int = 0  #: runs in which somebody died
    seconds: float = 0.0
    complete: bool = True  #: False: stopped by `limit`, and then `schedules` counts too few
    found: int = 0  #: runs that ended with a violation
    ends: set[Rows] = field(default_factory=set)  #: the different contents that the store had at the end
    violations: dict[str, Violation] = field(default_factory=dict)  #: the shortest schedule to each

    @property
    def shortest(self) -> Violation | None:
        return min(self.violations.values(), key=lambda v: (len(v.schedule), _switches(v.schedule)), default=None)

    def _add(self, violation: Violation) -> None:
        known = self.violations.get(violation.what)
        if known is None or _length(violation) < _length(known):
            self.violations[violation.what] = violation


def _length(violation: Violation) -> tuple[int, int]:
    return len(violation.schedule), _switches(violation.schedule)


def _switches(schedule: Sequence[Step]) -> int:
    return sum(a.actor != b.actor for a, b in pairwise(schedule))


@dataclass
class _Node:
    """A decision: in which state, what could be chosen, what was, and how many schedules are below so far."""

    state: object
    options: list[Turn]
    chosen: int = 0
    schedules: int = 0


class _Search:
    """Decides depth first: as in the last run, but for the last decision that can still be changed."""

    def __init__(self, *, reduce: bool, crashes: int, preemptions: int | None) -> None:
        self.reduce, self.crashes, self.preemptions = reduce, crashes, preemptions
        self.nodes: list[_Node] = []
        self.known: dict[object, int] = {}  # states that were left behind: how many schedules go on from there
        self.schedules = 0
        self._start()

    def _start(self) -> None:
        self.depth = self.crashed = self.preempted = 0
        self.met: int | None = None  # that this run came to a known state: how many schedules go on from there

    def next(self) -> bool:
        """Note how the last run ended, and prepare the next; False if there is none."""
        below = 1 if self.met is None else self.met
        while self.nodes:
            node = self.nodes[-1]
            node.schedules += below
            node.chosen += 1
            if node.chosen < len(node.options):
                self._start()
                return True
            if self.reduce:
                self.known[node.state] = node.schedules
            below = node.schedules
            self.nodes.pop()
        self.schedules = below
        return False

    def pick(self, run: Run) -> Turn | None:
        options = self._options(run)
        if not options and run.may_nap(crashed=bool(self.crashed)):
            options = self._options(run)
        if not options:
            run.stuck = True
            return None
        turn = options[0]
        if len(options) > 1:
            state = self._state(run)
            if self.depth == len(self.nodes):
                self.met = self.known.get(state)
                if self.met is not None:
                    return None
                self.nodes.append(_Node(state, options))
            node = self.nodes[self.depth]
            self.depth += 1
            if (node.state, node.options) != (state, options):
                raise Diverged(f"decision {self.depth} came at another point than before, at {run.schedule[-1:]}")
            turn = options[node.chosen]
        self.preempted += self._is_preemption(run, turn)
        self.crashed += turn.crash
        return turn

    def _options(self, run: Run) -> list[Turn]:
        living = run.unfinished
        may_die = self.crashed < self.crashes
        holder = run.holder
        if self.reduce and holder is not None:
            options = [Turn(holder.number)]
            if may_die and holder.kind is Kind.LOOK:
                options += [Turn(actor.number, crash=True) for actor in living if actor is not holder]
            elif may_die and holder.text == "COMMIT":
                options.append(Turn(holder.number, crash=True))
            return options
        local = next((a for a in living if not a.started or (self.reduce and a.kind is Kind.LOCAL)), None)
        if local is not None:
            return [Turn(local.number)]
        living.sort(key=lambda actor: actor is not run.last)
        options = [Turn(actor.number) for actor in living if actor.may_run]
        if self.preemptions is not None and self.preempted >= self.preemptions:
            options = [turn for turn in options if not self._is_preemption(run, turn)]
        if options and may_die:
            options += [Turn(actor.number, crash=True) for actor in living]
        return options

    def _is_preemption(self, run: Run, turn: Turn) -> bool:
        last = run.last
        if turn.crash or last is None or turn.actor == last.number or not run.actors[turn.actor].started:
            return False
        return not last.over and last.kind is not Kind.LOCAL and last.may_run

    def _state(self, run: Run) -> object:
        bounded = None if self.preemptions is None else (self.preempted, run.last and run.last.number)
        actors = tuple((a.answers, a.over, a.napped) for a in run.actors)
        return hash((actors, run.content, run.actors[0].world.state(), run.naps, self.crashed, bounded))


# ---- all schedules


class Explorer:
    """Explores operations on what `set_up` makes of an empty store. A context manager; see `explore`."""

    def __init__(
        self,
        set_up: Callable[[Engine], object],
        operations: Sequence[Operation],
        *,
        kinds: Mapping[str, discovery.KindClass] = {},
        invariants: Callable[[Store], str] = lambda store: broken_promises(store),
    ) -> None:
        self.set_up, self.operations, self.kinds, self.invariants = set_up, operations, kinds, invariants
        self.world = World()
        self._memory = contextlib.ExitStack()
        self._sound: dict[Rows, str] = {}
        self._restful: set[tuple[Any, ...]] = set()

    def __enter__(self) -> "Explorer":
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="explore-", dir=_fast_folder()))
            stack.enter_context(_own_time(self.world))
            stack.enter_context(_only(self.kinds))
            path = str(Path(folder) / "drydock.db")
            self.judge = stack.enter_context(contextlib.closing(ExploredStore.opened(path, self.world)))
            self.world.living.add(self.judge.name)
            here.world = self.world
            stack.callback(setattr, here, "world", None)
            self.set_up(self._engine())
            # The one moment that SQLite tells itself.
            self.judge.connection.execute("UPDATE store SET created_at = ?", (START,))
            self._keep()
            names = _names(operation.name for operation in self.operations)
            self.names = names
            self.actors = []
            for number in range(len(self.operations)):
                actor = Actor(number, path, self.world)
                stack.callback(actor.close)
                self.actors.append(actor)
            self._memory = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    def explore(
        self, *, crashes: int = 0, preemptions: int | None = None, reduce: bool = True, limit: int | None = None
    ) -> Report:
        """Run all schedules: with at most so many crashes and preemptions in each, at most `limit` of them."""
        report = Report()
        search = _Search(reduce=reduce, crashes=crashes, preemptions=preemptions)
        started = time.perf_counter()
        while True:
            run = self._run(search.pick)
            report.runs += 1
            report.crashes += search.crashed
            if search.met is None:
                violation = run.violation or self._judge(run)
                report.ends.add(run.content)
                if violation is not None:
                    report.found += 1
                    report._add(violation)
            if not search.next():
                break
            if limit is not None and report.runs >= limit:
                report.complete = False
                break
        report.schedules = search.schedules or sum(node.schedules for node in search.nodes)
        report.seconds = time.perf_counter() - started
        return report

    def replay(self, schedule: Sequence[Step]) -> Violation | None:
        """Run this schedule, and return what it violates. Raises `Diverged` if it cannot be run."""
        left, texts = list(schedule), {step.text for step in schedule}

        def pick(run: Run) -> Turn | None:
            if not any(actor.may_run for actor in run.unfinished) and run.may_nap(crashed=CRASH in texts):
                pass
            unborn = next((actor for actor in run.unfinished if not actor.started), None)
            if unborn is not None:
                return Turn(unborn.number)
            if not left:
                run.stuck = not any(actor.may_run for actor in run.unfinished)
                return None
            step = left.pop(0)
            actor = run.actors[self.names.index(step.actor)]
            if actor.over or not (step.text == CRASH or (actor.text == step.text and actor.may_run)):
                raise Diverged(f"{step.actor} cannot do now: {step.text}")
            return Turn(actor.number, crash=step.text == CRASH)

        run = self._run(pick)
        if run.violation is not None or (run.stopping and not run.stuck):
            return run.violation
        return self._judge(run)

    # ---- one run

    def _run(self, pick: Callable[[Run], Turn | None]) -> Run:
        self._restore()
        run = Run(self.actors, pick, self._content_kept, self._look)
        for actor, operation, name in zip(self.actors, self.operations, self.names, strict=True):
            actor.assign(run, operation, name)
        out = sys.stdout
        try:
            run.go()
        finally:
            sys.stdout = out  # hooks redirect it, and interleaved they do not put it back
        return run

    def _engine(self) -> Engine:
        return Engine(self.judge, environment={}, sleep=lambda _: None)

    def _judge(self, run: Run) -> Violation | None:
        """When all are done or dead: did they end well, and does what they left come to rest?"""
        schedule = tuple(run.schedule)
        for actor in run.actors:
            if actor.error is not None and not isinstance(actor.error, actor.operation.refusals):  # type: ignore[union-attr]
                told = str(actor.error).replace(self.judge.path, "drydock.db")
                return Violation(f"{actor.name} ended with {type(actor.error).__name__}: {told}", schedule)
        waiting = [actor.name for actor in run.actors if run.stuck and actor.kind is Kind.WAIT and not actor.dead]
        # What follows is a function of these alone, and many schedules end alike.
        state = (run.content, self.world.state(), tuple(waiting))
        if state in self._restful:
            return None
        if run.stuck and not waiting:
            return Violation("nobody can go on", schedule)
        what = self._waits_in_vain(waiting) or self._recover()
        if what:
            return Violation(what, schedule)
        self._restful.add(state)
        return None

    def _waits_in_vain(self, waiting: Sequence[str]) -> str:
        """Does anybody wait though he was granted, or though there is something for him?"""
        ids = {id: name for id, name in self.judge.leases.bound() if name in waiting}
        leases = {id: self.judge.leases.get(id) for id in ids}
        for id, lease in leases.items():
            if lease is None or lease.status is not LeaseStatus.PENDING:
                return f"{ids[id]} sleeps though its lease:{id} is {lease and lease.status}"
        for id, lease in leases.items():
            assert lease is not None
            with contextlib.suppress(Conflict):
                self._engine().lease(lease.demand, owner="judge", wait_seconds=0, keep=True)
                return f"{ids[id]} sleeps though there is something for it"
            now = self.judge.leases.get(id)
            if now is None or now.status is not LeaseStatus.PENDING:
                return f"{ids[id]} sleeps though there was something for it"
        for name in waiting:
            self.world.lose(name)
        return ""

    def _recover(self) -> str:
        self.world.now += SETTLE_SECONDS
        engine = self._engine()
        engine.tend()
        engine.tend()
        left = [f"lease:{id} is {status}" for id, status, *_ in self.judge.leases.moving()]
        left += [f"resource:{id} is {status}" for id, status, *_ in self.judge.resources.moving()]
        left += [
            f"lease:{id} is bound to {who}" for id, who in self.judge.leases.bound() if not self.judge.is_alive(who)
        ]
        if left:
            return "left behind after tending twice: " + ", ".join(left)
        if engine.tend():
            return "tending goes on and on"
        names = {resource.name for resource in self.judge.resources.live()}
        if self.world.built - names:
            return "built and forgotten: " + ", ".join(sorted(self.world.built - names))
        broken = self._look(self.judge)[1]
        return f"after tending, {broken}" if broken else ""

    def _look(self, store: ExploredStore) -> tuple[Rows, str]:
        """What the store holds, and which promises that breaks."""
        content = self._content(store)
        known = self._sound.get(content)
        if known is None:
            known = self._sound[content] = self.invariants(store)
        return content, known

    # ---- the content of the store

    def _keep(self) -> None:
        every = self.judge.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        self._tables = [
            name for (name,) in every if not name.startswith("_")
        ]  # that one tells when the schema was made
        self._kept = {name: self._table(self.judge, name) for name in self._tables}
        self._content_kept, broken = self._look(self.judge)
        assert not broken, broken
        self._kept_world = (self.world.now, frozenset(self.world.living), frozenset(self.world.built))

    def _restore(self) -> None:
        now, living, built = self._kept_world
        self.world.now, self.world.living, self.world.built = now, {*living, *self.names}, set(built)
        self.world.busy.clear()
        self.world.listening.clear()
        self.world.woken.clear()
        self.world.watcher = None
        execute = self.judge.connection.execute
        changed = [name for name in self._tables if self._table(self.judge, name) != self._kept[name]]
        execute("PRAGMA foreign_keys = OFF")
        execute("BEGIN IMMEDIATE")
        # The running numbers last: inserting the rows has moved them.
        for name in sorted(changed, key="sqlite_sequence".__eq__):
            execute(f"DELETE FROM {name}")
            rows = self._kept[name]
            if rows:
                places = ", ".join("?" * len(rows[0]))
                self.judge.connection.executemany(f"INSERT INTO {name} VALUES ({places})", rows)
        execute("COMMIT")
        execute("PRAGMA foreign_keys = ON")

    def _content(self, store: ExploredStore) -> Rows:
        tables = (self._table(store, name) for name in self._tables if name not in _TOLD)
        return tuple(tuple(row for row in rows if row[0] not in _TOLD) for rows in tables)

    def _table(self, store: ExploredStore, name: str) -> Rows:
        return tuple(store.connection.execute(f"SELECT * FROM {name}").fetchall())


def explore(
    set_up: Callable[[Engine], object],
    operations: Sequence[Operation],
    *,
    kinds: Mapping[str, discovery.KindClass] = {},
    crashes: int = 0,
    preemptions: int | None = None,
    reduce: bool = True,
    limit: int | None = None,
) -> Report:
    """Explore `operations` on what `set_up` makes of an empty store; `kinds` are known besides those installed."""
    with Explorer(set_up, operations, kinds=kinds) as explorer:
        return explorer.explore(crashes=crashes, preemptions=preemptions, reduce=reduce, limit=limit)


def broken_promises(store: Store, *rules: str) -> str:
    """What `doctor` finds broken, or only what breaks one of these rules."""
    found = (finding for finding in examine(store) if finding.broken and (not rules or finding.rule in rules))
    return "; ".join(f"{finding.rule}: {finding.sentence}" for finding in found)


def _names(operations: Iterable[str]) -> list[str]:
    names: list[str] = []
    for name in operations:
        number = sum(1 for other in names if other.split("#")[0] == name)
        names.append(f"{name}#{number + 1}" if number else name)
    return names


def _fast_folder() -> str | None:
    memory = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    return str(memory) if memory.is_dir() else None


class _OwnTime(ModuleType):
    """The module `time`, but that its clock is the one of `world`."""

    world: World

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.world.uptime()


@contextlib.contextmanager
def _own_time(world: World) -> Iterator[None]:
    # Pauses and patience are counted on a clock that nobody hands in; how fast this machine is must decide nothing.
    own = _OwnTime("time")
    own.world = world
    rooms = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("drydock.") and name != __name__ and getattr(module, "time", None) is time
    ]
    for module in rooms:
        setattr(module, "time", own)  # noqa: B010
    try:
        yield
    finally:
        for module in rooms:
            setattr(module, "time", time)  # noqa: B010


@contextlib.contextmanager
def _only(kinds: Mapping[str, discovery.KindClass]) -> Iterator[None]:
    """Kinds are found once, not in every schedule; `kinds` are found too."""
    find = discovery.find_kinds
    loaded = {name: found.load() for name, found in find({}).items()} | dict(kinds)
    known = {name: discovery.FoundKind(name, "explored", lambda kind=kind: kind) for name, kind in loaded.items()}  # type: ignore[misc]
    discovery.find_kinds = lambda _=None: known  # type: ignore[assignment]
    try:
        yield
    finally:
        discovery.find_kinds = find


# ---- for people


def show(violation: Violation) -> str:
    """The schedule in columns, one for each actor, with each statement as short as it can be understood."""
    names = sorted({step.actor for step in violation.schedule})
    lines: list[tuple[str, list[str]]] = []
    for actor, text in violation.schedule:
        what = _shortened(text)
        if lines and lines[-1][0] == actor and lines[-1][1][0] == what[0]:
            lines[-1][1].extend(word for word in what[1:] if word not in lines[-1][1])
        else:
            lines.append((actor, what))
    rows = ["".join(name.ljust(WIDTH) for name in names).rstrip()]
    for actor, (verb, *words) in lines:
        line = f"{verb} {', '.join(words)}" if words else verb
        line = line if len(line) < WIDTH - 1 else line[: WIDTH - 3] + "…"
        rows.append(" " * WIDTH * names.index(actor) + line)
    return "\n".join([violation.what, "", *rows, f"({len(violation.schedule)} steps)"])


def _shortened(text: str) -> list[str]:
    """What is done, and with which tables."""
    words = text.replace("(", " ").replace(")", " ").split()
    verb = words[0]
    if verb in ("SELECT", "WITH"):
        tables = [after for word, after in pairwise(words) if word in ("FROM", "JOIN")]
        return ["read", *(table for table in dict.fromkeys(tables) if table not in ("slot", "SELECT"))]
    if verb == "PRAGMA":
        return ["read", "version"]
    place = {"INSERT": 2, "UPDATE": 1, "DELETE": 2}.get(verb)
    return [text] if place is None else [verb.lower(), words[place]]


if __name__ == "__main__":
    # Imported by name, or there would be two of everything here.
    from drydock.testing.yard import main

    main()
