"""One schedule: operations in threads of their own, on the real store, of which exactly one runs at a time.

Each stops before every statement and everything else that others could notice, and goes on when it is chosen. Who is chosen
is not decided here; see `explore`.
"""

import _thread
import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from ..engine import Engine
from ..errors import Conflict
from ..model import Finding
from ..store.sqlite import SqliteStore
from ..store.turnstile import Turnstile

START = 1_800_000_000.0
CRASH = "dies here"
#: how long whoever waits sleeps, and how often, before he is known to wait in vain
NAP_SECONDS, MOST_NAPS = 5.0, 4

Rows = tuple[tuple[Any, ...], ...]


class Kind(Enum):
    """What a step may do."""

    LOCAL = "nothing that others can see or change"
    READ = "reads what is committed"
    TRANSACTION = "begins a transaction that shuts out other writers"
    WRITE = "writes outside of such a transaction"
    LOOK = "asks who lives"
    HOOK = "changes the world outside the store"
    WAKE = "wakes somebody"
    WAIT = "waits to be woken"
    TICK = "moves a clock"


class Step(NamedTuple):
    """One line of a schedule."""

    actor: str
    text: str  #: the statement, or what else was done


class Violation(NamedTuple):
    """A promise that did not hold, and how that came about."""

    what: str
    schedule: tuple[Step, ...]


class Operation(NamedTuple):
    """What one of the threads does; `refusals` are errors that it may well end with."""

    name: str
    act: Callable[[Engine], object]
    refusals: tuple[type[Exception], ...] = (Conflict,)


class Diverged(Exception):
    """The same decisions did not lead to the same steps: something was not in the explorer's hand."""


class _Stop(BaseException):
    """Unwinds the thread of somebody who died, or whose schedule is given up."""


class World:
    """What lies outside the store: the time, who lives, and what hooks have done."""

    def __init__(self) -> None:
        self.now = START
        self.living: set[str] = set()
        self.built: set[str] = set()
        self.busy: dict[str, str] = {}  # objects that a hook is at work on: whose
        self.watcher: str | None = None
        self.listening: set[str] = set()
        self.woken: set[str] = set()

    def clock(self) -> float:
        if here.actor is not None:
            here.actor.was_answered(self.now)
        return self.now

    def uptime(self) -> float:
        return self.clock() - START + 1000.0

    def lose(self, name: str) -> None:
        """A process dies."""
        self.living.discard(name)
        self.listening.discard(name)
        if self.watcher == name:
            self.watcher = None
        for about in [about for about, who in self.busy.items() if who == name]:
            del self.busy[about]

    def state(self) -> object:
        sets = (self.living, self.built, self.listening, self.woken, self.busy.items())
        return (self.now, self.watcher, *map(frozenset, sets))


# ---- the store


class _OpenTurnstile(Turnstile):
    """Lets everybody pass."""

    def __init__(self) -> None:
        pass

    def enter(self, patience_seconds: float) -> None:
        pass

    def leave(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Rows:
    """What a cursor gives, fetched already."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows, self.rowcount = iter(rows), rowcount

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class ExploredStore(SqliteStore):
    """The real store, which asks before each statement whether it may. `actor` None: it always may."""

    world: World
    actor: "Actor | None" = None
    name: str = "operator"

    @classmethod
    def opened(cls, path: str, world: World) -> "ExploredStore":
        store = cls.open(path, clock=world.clock, uptime=world.uptime)
        assert isinstance(store, ExploredStore)
        assert store._turnstile is not None
        store._turnstile.close()
        store._turnstile = _OpenTurnstile()
        # Nothing here is meant to survive; and whoever waits is not to sleep, but not to be chosen.
        store.connection.execute("PRAGMA synchronous = OFF")
        store.connection.execute("PRAGMA busy_timeout = 0")
        store.world = world
        store._execute = store._step_and_execute  # type: ignore[assignment]
        return store

    def _step_and_execute(self, statement: str, parameters: Mapping[str, Any] = {}) -> Any:
        actor = self.actor
        if actor is None:
            return self.connection.execute(statement, parameters)
        actor.stop_before(actor.kind_of(statement), statement)
        try:
            cursor = self.connection.execute(statement, parameters)
            rows = cursor.fetchall()
        except Exception as error:
            actor.was_answered(repr(error))
            raise
        actor.was_answered((tuple(rows), cursor.rowcount))
        actor.executed(statement)
        return _Rows(rows, cursor.rowcount)

    @property
    def process(self) -> str:  # type: ignore[override]
        return self.name

    def dead_among(self, processes: Iterable[str]) -> set[str]:
        return {process for process in sorted(processes) if not self._lives(process)}

    def is_alive(self, process: str) -> bool:
        return self._lives(process)

    def _lives(self, process: str) -> bool:
        if self.actor is not None:
            self.actor.stop_before(Kind.LOOK, f"does {process} live?")
        alive = process in self.world.living
        if self.actor is not None:
            self.actor.was_answered(alive)
        return alive

    def listen(self) -> None:
        self.world.listening.add(self.name)

    def secure(self, granted: Collection[int] = ()) -> None:
        pass

    def _wake(self, process: str, secure: Sequence[int] = ()) -> None:
        if secure:
            return
        if self.actor is not None:
            self.actor.stop_before(Kind.WAKE, f"wakes {process}")
        if process in self.world.listening:
            self.world.woken.add(process)

    def wait_for_news(self, seconds: float) -> bool:
        assert self.actor is not None
        self.actor.stop_before(Kind.WAIT, "waits to be woken")
        woken = self.name in self.world.woken
        self.actor.was_answered(woken)
        self.world.woken.discard(self.name)
        self.actor.napped = False
        return woken

    def version(self) -> int:
        if self.actor is None:
            return 0
        self.actor.stop_before(Kind.READ, "reads the version")
        others = self.actor.run.commits - self.actor.commits
        self.actor.was_answered(others)
        return others

    def may_watch(self) -> bool:
        if self.actor is None:
            return False
        self.actor.stop_before(Kind.LOOK, "keeps watch?")
        self.world.watcher = self.world.watcher or self.name
        mine = self.world.watcher == self.name
        self.actor.was_answered(mine)
        return mine

    def stop_watching(self) -> None:
        if self.actor is not None and self.world.watcher == self.name:
            self.actor.stop_before(Kind.LOOK, "watches no more")
            self.world.watcher = None

    def health(self) -> list[Finding]:
        return []  # the file is not in question here


# ---- the actors


class Actor:
    """A thread with a connection of its own, which runs only while it has the baton."""

    def __init__(self, number: int, path: str, world: World) -> None:
        self.number, self.world = number, world
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.operation: Operation | None = None
        self.run: Run
        self.store: ExploredStore
        self._path = path
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def assign(self, run: "Run", operation: Operation, name: str) -> None:
        self.run, self.operation, self.name = run, operation, name
        self.kind = Kind.LOCAL
        self.text = ""
        self.answers = self.commits = 0
        self.napped = False  # slept until time was up
        self.started = self.over = self.dead = self.dying = False
        self.error: BaseException | None = None
        self.store.name = name
        self.store.damaged.clear()
        self.store.offered = 0  # as if it had just been opened: what another run has taught it leads astray

    def go(self) -> None:
        self.started = True
        self.baton.release()

    def close(self) -> None:
        self.operation = None
        self.baton.release()
        self._thread.join()

    # ---- in its own thread

    def _serve(self) -> None:
        try:
            self.store = ExploredStore.opened(self._path, self.world)
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be seen
            self._failed = error
            return
        finally:
            self._ready.set()
        here.world, here.actor, self.store.actor = self.world, self, self
        while True:
            self.baton.acquire()
            if self.operation is None:
                self.store.actor = None
                self.store.close()
                return
            self._work(self.operation)

    def _work(self, operation: Operation) -> None:
        engine = Engine(self.store, environment={}, sleep=lambda _: None)
        try:
            operation.act(engine)
        except _Stop:
            self._let_go()
        except BaseException as error:  # noqa: BLE001 - judged in the end
            self.error = error
            self._let_go()
        self.over = True
        self.run.leave()

    def _let_go(self) -> None:
        if self.store.connection.in_transaction:
            self.store.connection.execute("ROLLBACK")
        if self.run.holder is self:
            self.run.holder = None

    def stop_before(self, kind: Kind, text: str) -> None:
        """Go on from here when it is this actor's turn, or not at all."""
        run = self.run
        if self.dead or run.stopping:
            raise _Stop
        self.kind, self.text = kind, text
        run.arrive(self)
        if run.stopping:
            raise _Stop
        if self.dying:
            self._die()
        run.schedule.append(Step(self.name, text))

    def was_answered(self, answer: object) -> None:
        self.answers = hash((self.answers, answer))

    def _die(self) -> None:
        # For others it is one whether the connection is lost or rolled back, and this one is used again.
        self.dead = True
        self._let_go()
        self.world.lose(self.name)
        self.run.schedule.append(Step(self.name, CRASH))
        raise _Stop

    def kind_of(self, statement: str) -> Kind:
        verb = statement.split(None, 1)[0]
        if self.run.holder is self or verb in ("COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"):
            return Kind.LOCAL
        if verb == "BEGIN":
            return Kind.TRANSACTION if "IMMEDIATE" in statement else Kind.LOCAL
        return Kind.READ if verb in ("SELECT", "WITH", "PRAGMA") else Kind.WRITE

    def executed(self, statement: str) -> None:
        run, inside = self.run, self.store.connection.in_transaction
        if run.holder is self and not inside:
            run.holder = None
            if statement == "COMMIT":
                run.committed(self)
        elif self.kind in (Kind.TRANSACTION, Kind.WRITE):
            if inside:
                run.holder = self
            else:
                run.committed(self)

    @property
    def may_run(self) -> bool:
        """Whether its next step would not block."""
        if self.kind in (Kind.TRANSACTION, Kind.WRITE):
            return self.run.holder is None
        return self.kind is not Kind.WAIT or self.napped or self.name in self.world.woken


class Here(threading.local):
    """Who runs in this thread, for the hooks of explored kinds."""

    world: World | None = None
    actor: Actor | None = None


here = Here()


@contextlib.contextmanager
def at_work(about: str) -> Iterator[World]:
    """Around what a hook does to `about`, for kinds that are explored. Raises if another hook is at work on it."""
    world, actor = here.world, here.actor
    assert world is not None
    if actor is None:
        yield world
        return
    # Only right after a stop is anything of the world touched: so no order of these touches is left out.
    actor.stop_before(Kind.HOOK, f"hook begins on {about}")
    if about in world.busy:
        actor.run.violated(f"two hooks at once on {about}")
        raise _Stop
    world.busy[about] = actor.name
    actor.stop_before(Kind.HOOK, f"hook ends on {about}")
    world.busy.pop(about, None)
    yield world


def pass_time(engine: Engine, seconds: float) -> None:
    """An operation: time passes."""
    world, actor = here.world, here.actor
    assert world is not None
    if actor is not None:
        actor.stop_before(Kind.TICK, f"{seconds:g} seconds pass")
    world.now += seconds


# ---- one schedule


class Run:
    """One schedule while it is run. `pick` says who is next, or nobody, if this schedule is to be given up."""

    def __init__(
        self,
        actors: Sequence[Actor],
        pick: "Callable[[Run], Turn | None]",
        content: Rows,
        look: Callable[[ExploredStore], tuple[Rows, str]],
    ) -> None:
        self.actors, self.pick, self.look = actors, pick, look
        self.schedule: list[Step] = []
        self.holder: Actor | None = None  # who has a transaction that shuts out other writers
        self.last: Actor | None = None
        self.commits = 0
        self.content = content  # of the store, as committed
        self.stopping = self.stuck = False
        self.naps = 0
        self.violation: Violation | None = None
        self.failure: BaseException | None = None
        self._done = _thread.allocate_lock()

    def go(self) -> None:
        """Run it to its end."""
        self._done.acquire()
        self._next().go()
        self._done.acquire()
        if self.failure is not None:
            raise self.failure

    @property
    def unfinished(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.over]

    def arrive(self, actor: Actor) -> None:
        """An actor has come to a stop: give the baton to whoever is next, and wait for it."""
        chosen = self._next()
        if chosen is not actor:
            chosen.go()
            actor.baton.acquire()

    def leave(self) -> None:
        """An actor is done."""
        left = [actor for actor in self.unfinished if actor.started or not self.stopping]
        if left:
            chosen = self._next()
            if not self.stopping or chosen.started:
                chosen.go()
                return
        self._done.release()

    def _next(self) -> Actor:
        if not self.stopping:
            try:
                turn = self.pick(self)
            except BaseException as error:  # noqa: BLE001 - raised again by whoever started this
                self.failure, turn = error, None
            if turn is not None:
                chosen = self.actors[turn.actor]
                chosen.dying = turn.crash
                if chosen.started and not turn.crash:
                    self.last = chosen
                return chosen
            self.stopping = True
        return next((actor for actor in self.unfinished if actor.started), self.actors[0])

    def may_nap(self, *, crashed: bool) -> bool:
        """Where nobody is woken any more, time passes, if somebody died who might have woken them."""
        if not crashed or self.naps == MOST_NAPS or any(a.kind is not Kind.WAIT for a in self.unfinished):
            return False
        self.naps += 1
        for actor in self.unfinished:
            actor.world.now += NAP_SECONDS / len(self.unfinished)
            actor.napped = True
        return True

    def violated(self, what: str) -> None:
        if self.violation is None:
            self.violation = Violation(what, tuple(self.schedule))
        self.stopping = True

    def committed(self, actor: Actor) -> None:
        self.commits += 1
        actor.commits += 1
        actor.store.actor = None
        try:
            self.content, broken = self.look(actor.store)
        finally:
            actor.store.actor = actor
        if broken:
            self.violated(broken)
            raise _Stop


class Turn(NamedTuple):
    """Who is next, and whether to go on or to die."""

    actor: int
    crash: bool = False
