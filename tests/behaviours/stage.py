"""Where the scenarios are played: actors in threads of their own, gates to stop them at, and what hoax is told to do."""

import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from conftest import Cli, open_at

from drydock.allocator import Lab
from drydock.blueprint import Yield
from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.model import Demand, Lease, LeaseStatus, Resource, ResourceStatus
from drydock.request import Progress
from drydock.store.base import Store

from .promises import ALL, broken_promises

T = TypeVar("T", covariant=True)

KINDS = Path(__file__).parent / "kinds"
#: what nobody waits for unless a test hangs
PATIENCE_SECONDS = 30.0


class Gate:
    """Stops whoever calls it until it is opened; the test learns that somebody stands there."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, *_: object) -> None:
        self._arrived.release()
        assert self._opened.wait(PATIENCE_SECONDS), "nobody opened the gate"

    def reached(self) -> None:
        """Return when (one more) somebody stands here."""
        assert self._arrived.acquire(timeout=PATIENCE_SECONDS), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


class Call(NamedTuple):
    hook: str
    about: str
    outcome: str  #: "done", "later", or the class of what it raised


class Control:
    """What the hoax blueprint of this name is told to do, and what it was asked to do."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.fail_in: dict[
            str, Iterator[BaseException]
        ] = {}  #: what a hook raises, call by call, until there is no more
        self.yield_in: dict[str, float] = {}
        self.missing: object = ()  #: what a fleet answers
        self.done: list[str] = []  #: what a shed has done
        self.overlaps: list[str] = []
        self._gates: dict[str, Gate] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def hold(self, hook: str) -> Gate:
        """From now on stop every call of `hook` at the gate that is returned, until that is opened."""
        gate = self._gates[hook] = Gate()
        return gate

    def open_all(self) -> None:
        for gate in self._gates.values():
            gate.open()

    def count(self, hook: str, about: str | None = None, outcome: str = "done") -> int:
        return sum(c.hook == hook and about in (None, c.about) and c.outcome == outcome for c in list(self.calls))

    def play(self, hook: str, about: str) -> None:
        with self._lock:
            if about in self._busy and hook != "plans":
                self.overlaps.append(f"{hook} {about} was called while another hook ran for it")
            self._busy.add(about)
        outcome = "done"
        try:
            if hook in self._gates:
                self._gates[hook]()
            if hook in self.yield_in:
                raise Yield(self.yield_in[hook])
            if error := next(self.fail_in.get(hook, iter(())), None):
                raise error
        except BaseException as error:
            outcome = "later" if isinstance(error, Yield) else type(error).__name__
            raise
        finally:
            with self._lock:
                self._busy.discard(about)
                self.calls.append(Call(hook, about, outcome))


_controls: dict[str, Control] = defaultdict(Control)


def control(name: str) -> Control:
    return _controls[name]


class Actor(Generic[T]):
    """Somebody with an engine of their own, in a thread of their own, at work on one thing."""

    def __init__(
        self,
        stage: "Stage",
        work: Callable[[Engine], T],
        prepare: Callable[[Engine], object],
        sleep: Callable[[float], None],
    ) -> None:
        self._outcome: T | BaseException | None = None
        self._thread = threading.Thread(target=self._play, args=(stage, work, prepare, sleep), daemon=True)
        self._thread.start()

    def _play(
        self,
        stage: "Stage",
        work: Callable[[Engine], T],
        prepare: Callable[[Engine], object],
        sleep: Callable[[float], None],
    ) -> None:
        try:
            with contextlib.closing(stage.open()) as store:
                engine = Engine(store, environment=stage.environment, sleep=sleep)
                prepare(engine)
                self._outcome = work(engine)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self._outcome = error

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "an actor never came to an end"

    def result(self) -> T:
        self.end()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]

    def error(self) -> BaseException:
        self.end()
        assert isinstance(self._outcome, BaseException), self._outcome
        return self._outcome


class Stage:
    """One store; `engine` is the test's own."""

    def __init__(self, address: str, clock: Callable[[], float] | None) -> None:
        self.address, self.clock = address, clock
        self.uptime: Callable[[], float] | None = None
        self.environment = {"DRYDOCK_BLUEPRINTS": str(KINDS)}
        self.settled = True  #: what the test leaves behind must be at rest
        self.hooks_seen = True  #: no other process ran any
        self.spoilt = False  #: promises were broken on purpose
        self.actors: list[Actor[Any]] = []
        self.store = self.open()
        self.engine = Engine(self.store, environment=self.environment)

    def open(self) -> Store:
        store = open_at(self.address, self.clock)
        own = store.uptime
        store.uptime = lambda: (self.uptime or own)()
        return store

    @property
    def cli(self) -> Cli:
        cli = Cli(self.address)
        cli.environment.update(self.environment)
        return cli

    # ---- what is offered

    def offer(self, tables: Mapping[str, Any] = MappingProxyType({}), /, **blueprints: Mapping[str, Any]) -> None:
        """Apply these blueprints; where no kind is given it is hoax."""
        named = {name: {"kind": "hoax", **settings} for name, settings in blueprints.items()}
        self.engine.apply(parse_pool({**tables, "blueprint": named}, "pool"))

    # ---- who acts

    def actor(
        self,
        work: Callable[[Engine], T],
        prepare: Callable[[Engine], object] = lambda _: None,
        sleep: Callable[[float], None] = lambda _: None,
    ) -> Actor[T]:
        actor = Actor(self, work, prepare, sleep)
        self.actors.append(actor)
        return actor

    def leasing(
        self,
        type: str = "hoax",
        *,
        prepare: Callable[[Engine], object] = lambda _: None,
        sleep: Callable[[float], None] = lambda _: None,
        **options: Any,
    ) -> Actor[Lease]:
        """An actor that leases one thing."""
        return self.actor(lambda engine: lease(engine, type, **options), prepare, sleep)

    def lease(self, type: str = "hoax", **options: Any) -> Lease:
        """Lease one thing, here and now, without waiting."""
        return lease(self.engine, type, **{"wait": 0.0, **options})

    # ---- what came of it

    def lease_status(self, id: int) -> LeaseStatus:
        found = self.store.leases.get(id)
        assert found is not None
        return found.status

    def resource(self, id: int) -> Resource:
        found = self.store.resources.get(id)
        assert found is not None
        return found

    def live(self) -> list[Resource]:
        return self.store.resources.live()

    def ever(self) -> int:
        """How many resources there have ever been."""
        return len(self.store.resources.latest(ALL))

    def locks(self) -> dict[str, str]:
        return {row.key: row.holder for row in self.store.slot_locks.all()}

    def locks_of(self, holder: str) -> set[str]:
        return {key for key, whose in self.locks().items() if whose == holder}

    def events(self, name: str) -> list[dict[str, Any]]:
        """The data of every event of this name, with the ids it is about."""
        found = self.store.events.after(0, ALL)
        return [{"lease": e.lease, "resource": e.resource, **e.data} for e in found if e.event == name]

    def eventually(self, question: Callable[[], Any]) -> Any:
        """The first true answer; asked again after each commit of somebody else."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if answer := question():
                return answer
            self.store.wait_for_news(0.05)
        raise AssertionError("it never came true")

    def first_of(self, actors: list[Actor[T]]) -> Actor[T]:
        """The first of them that is done."""
        done: Actor[T] = self.eventually(lambda: next((actor for actor in actors if not actor.busy), None))
        return done

    def pending(self, number: int = 1) -> list[int]:
        """The requests that wait, as soon as there are so many."""

        def waiting() -> list[int]:
            return [held.id for held in self.store.leases.live() if held.status is LeaseStatus.PENDING]

        self.eventually(lambda: len(waiting()) == number)
        return waiting()

    def keep_promises(self) -> None:
        """Assert every global invariant."""
        if self.spoilt:
            return
        self.engine.tend()
        found = broken_promises(self.store, settled=self.settled)
        for name, told in _controls.items():
            found += told.overlaps
            if self.settled and self.hooks_seen:
                found += self._unbalanced(name, told)
        assert found == [], found

    def _unbalanced(self, name: str, told: Control) -> Iterator[str]:
        gone = Counter(
            f"resource:{r.id}"
            for r in self.store.resources.latest(ALL)
            if r.blueprint == name and r.status is ResourceStatus.DESTROYED
        )
        yield from (
            f"destroy was done {told.count('destroy', r)} times for {r}" for r in gone if told.count("destroy", r) != 1
        )
        yield from (f"activate was done twice for {r}" for r in gone if told.count("activate", r) > 1)
        grants = Counter(
            e["lease"] for e in self.events("lease.acquired") if self.resource(e["resource"]).blueprint == name
        )
        over = {lease.id for lease in self.store.leases.latest(ALL) if lease.status is LeaseStatus.DESTROYED}
        for id, number in grants.items():
            cleaned = told.count("destroy_lease", f"lease:{id}")
            if id in over and cleaned != number:
                yield f"lease:{id} was granted {number} times, destroy_lease was done {cleaned} times"

    def close(self) -> None:
        for told in _controls.values():
            told.open_all()
        # A test that failed may have left actors waiting for what will never come.
        for _ in range(100):
            if not any(actor.busy for actor in self.actors):
                return
            for held in self.store.leases.live():
                if held.status is LeaseStatus.PENDING:
                    self.engine.release(held.id)
            self.store.wait_for_news(0.1)

    def shut(self) -> None:
        self.store.close()
        _controls.clear()


def lease(engine: Engine, type: str = "hoax", **options: Any) -> Lease:
    """One lease; the options are those of `several`."""
    return several(engine, type, 1, **options)[0]


def several(
    engine: Engine, type: str, count: int, *, blueprint: tuple[str, ...] | str = (), wait: float | None = None,
    keep: bool = True, priority: int = 0, ttl: float | None = None, until: float | None = None, lab: Lab | None = None,
    owner: str = "tester", progress: Progress = lambda _: None, **attributes: Any,
) -> list[Lease]:  # fmt: skip
    names = (blueprint,) if isinstance(blueprint, str) else blueprint
    return engine.lease(
        Demand(type, names, attributes),
        owner=owner, count=count, wait_seconds=wait, keep=keep, priority=priority, ttl=ttl, until=until, lab=lab,
        progress=progress,
    )  # fmt: skip


def on(held: Lease) -> Resource:
    """The resource that a lease holds."""
    assert held.resource is not None
    return held.resource


def pausing(owner: Any, method: str, gate: Gate, *, before: bool = False) -> None:
    """Let this one object's `method` stop at `gate` when it is done, or `before` it begins."""
    original = getattr(owner, method)

    def paused(*args: Any, **named: Any) -> Any:
        if before:
            gate()
            return original(*args, **named)
        answer = original(*args, **named)
        gate()
        return answer

    setattr(owner, method, paused)
