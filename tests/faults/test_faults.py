"""A fault at any statement of any operation: all or nothing, nothing stays locked, and trying again is enough."""

import contextlib
import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from behaviours.promises import broken_promises
from behaviours.stage import KINDS
from conftest import Clock

from drydock import discovery
from drydock.cli import EXIT_CODES
from drydock.discovery import find_kinds
from drydock.engine import Engine
from drydock.errors import DrydockError, StoreError
from drydock.store.sqlite import SqliteStore

from .faulty import FAULTS, UNKNOWN_COMMIT, Fault, Faulty
from .operations import OPERATIONS, Operation

ENVIRONMENT = {"DRYDOCK_BLUEPRINTS": str(KINDS)}
Content = dict[str, list[tuple[Any, ...]]]


class Bench:
    """One store on which one operation is tried again and again, each time from the same start."""

    def __init__(self, path: Path, clock: Clock, operation: Operation) -> None:
        self.operation = operation
        self.store, self.other = (SqliteStore.open(str(path), clock=clock) for _ in range(2))
        self.other.patience_seconds = 0.0
        self.store.uptime = lambda: 1000.0
        self.given = operation.given(self.engine())
        self.start = sqlite3.connect(":memory:")
        self.store.connection.backup(self.start)
        self.faulty = Faulty(self.store)
        self._kept: set[str] = set()
        self.missed = 0  # faults that never came: who waits looks more or less often as time goes by
        self.statements, self.stages, self.shape = self._undisturbed()

    def close(self) -> None:
        self.start.close()
        self.store.close()
        self.other.close()

    def engine(self) -> Engine:
        return Engine(self.store, environment=ENVIRONMENT, sleep=lambda _: None)

    def _undisturbed(self) -> tuple[list[str], list[Content], list[object]]:
        stages = [content(self.other)]
        commit = self.store._commit

        def noting() -> None:
            commit()
            stages.append(content(self.other))

        self.store._commit = noting  # type: ignore[method-assign]
        self.faulty.arm(None, 0, for_ever=False)
        outcome = self.act(self.engine())
        assert type(outcome) is (self.operation.gives_up or type(None)), outcome
        del self.store._commit
        statements = list(self.faulty.statements)
        assert self.broken_promises() == []
        self.engine().tend()
        return statements, stages, shape(self.store)

    def act(self, engine: Engine) -> BaseException | None:
        try:
            self.operation.act(engine, self.given)
        except BaseException as error:  # noqa: BLE001 - judged by the caller
            return error
        return None

    def disturbed(self, fault: Fault, at: int, *, for_ever: bool) -> Iterator[str]:
        """Everything that is wrong after this fault."""
        self.start.backup(self.store.connection)
        engine = self.engine()
        self.faulty.arm(fault, at, for_ever=for_ever)
        outcome = self.act(engine)
        came = len(self.faulty.statements) > at
        self.faulty.disarm()
        if not came:
            self.missed += 1
            return
        now = content(self.other)
        yield from self._misjudged(fault, outcome, now)
        if self.store.connection.in_transaction:
            yield "a transaction is open"
            self.store.connection.execute("ROLLBACK")
        yield from self._locked_out()
        if self.operation.takes:
            yield from self._left_behind(engine, outcome)
        elif not self.operation.mends and now not in self.stages:
            yield f"it is neither as before nor as after any commit: {difference(now, self.stages)}"
        yield from self.broken_promises()
        if outcome is not None or not self.operation.takes:  # else it has tried again itself, and would take another
            again = self.act(engine)
            if type(again) is not (self.operation.gives_up or type(None)):
                yield f"tried again, it raises {again!r}"
        engine.tend()
        if shape(self.store) != self.shape:
            yield f"tried again, it comes to something else: {[x for x in shape(self.store) if x not in self.shape]}"
        yield from self.broken_promises()

    def _misjudged(self, fault: Fault, outcome: BaseException | None, now: Content) -> Iterator[str]:
        if outcome is None:
            if not self.operation.mends and now != self.stages[-1]:
                yield f"no error, though it was not done: {difference(now, self.stages[-1:])}"
        elif type(outcome) is self.operation.gives_up:
            pass
        elif type(outcome) is not fault.error:
            yield f"it raises {outcome!r}"
        elif EXIT_CODES[StoreError] != 7 or isinstance(outcome.__cause__, DrydockError):
            yield f"it raises {outcome!r} from {outcome.__cause__!r}"

    def _left_behind(self, engine: Engine, outcome: BaseException | None) -> Iterator[str]:
        if outcome is None:
            return
        engine.tend()  # what it could not give back, it gives back when it next looks
        held = [held.id for held in self.store.leases.live()]
        if held != [id for id, status, *_ in self.stages[0]["lease"] if status != "destroyed"]:
            yield f"leases {held} are held after {outcome!r}"

    def _locked_out(self) -> Iterator[str]:
        try:
            with self.other.write():
                pass
        except DrydockError as error:
            yield f"another connection is shut out: {error!r}"

    def broken_promises(self) -> list[str]:
        # Most faults leave one of a few states, so that each is looked at once.
        now = str(content(self.other))
        if now in self._kept:
            return []
        found = broken_promises(self.other, settled=False)
        if not found:
            self._kept.add(now)
        return found


def content(store: SqliteStore) -> Content:
    """All that there is, history included."""
    tables = store.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'")
    return {table: store.rows(f"SELECT * FROM {table}") for (table,) in tables}


def difference(now: Content, stages: list[Content]) -> object:
    """What is there more and less than in that stage that is most like it."""

    def apart(stage: Content) -> list[tuple[str, Any]]:
        return [
            *(("+ " + table, row) for table in now for row in now[table] if row not in stage[table]),
            *(("- " + table, row) for table in now for row in stage[table] if row not in now[table]),
        ]

    return min((apart(stage) for stage in stages), key=len)


def shape(store: SqliteStore) -> list[object]:
    """What somebody sees who sees neither numbers nor history."""
    names = {f"resource:{r.id}": r.name for r in store.resources.live()}
    names |= {f"lease:{held.id}": held.resource.name if held.resource else "" for held in store.leases.live()}
    seen = [
        *(("lease", held.status, held.owner, held.resource and held.resource.name) for held in store.leases.live()),
        *(("resource", r.name, r.status, r.used, r.blueprint, r.attributes) for r in store.resources.live()),
        *(("lock", row.key.split("(")[0], names[row.holder]) for row in store.slot_locks.all()),
        *(b._replace(id=0) for b in store.offers.blueprints()),
        *((b._replace(resource=None), names.get(f"resource:{b.resource}")) for b in store.offers.bindings()),
    ]
    return sorted(seen, key=str)


@pytest.fixture(autouse=True)
def _found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try has an engine of its own; what kinds there are is looked up for the first alone."""
    found = {name: kind._replace(load=cache(kind.load)) for name, kind in find_kinds(ENVIRONMENT).items()}
    monkeypatch.setattr(discovery, "find_kinds", lambda _: found)


@pytest.fixture
def bench(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bench]:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "normal")
    with contextlib.closing(Bench(path, clock, OPERATIONS[request.param])) as bench:
        yield bench


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("bench", OPERATIONS, indirect=True)
def test_a_fault_at_any_statement(bench: Bench, fault: Fault) -> None:
    """Once, and, if such a fault lasts, from there on."""
    found = [
        f"{fault}{' from there on' if for_ever else ''} at {at}, {statement[:60]}: {wrong}"
        for at, statement in enumerate(bench.statements)
        for for_ever in (False, True)[: 1 + fault.lasts]
        for wrong in bench.disturbed(fault, at, for_ever=for_ever)
    ]
    assert found == []
    assert bench.missed <= len(bench.statements) // 10


OUTLIVES = ("lease", "lease of two")


@pytest.mark.parametrize("bench", [name for name in OPERATIONS if name not in OUTLIVES], indirect=True)
def test_a_commit_that_nobody_can_know_of(bench: Bench) -> None:
    """It was done, and only its answer was lost."""
    assert unknown_commits(bench) == []


@pytest.mark.parametrize("bench", OUTLIVES, indirect=True)
def test_a_lease_that_outlives_its_process_stays_if_nobody_can_know_of_it(bench: Bench) -> None:
    """Nothing tells it from somebody else's. It can be seen, and be given back by hand."""
    assert len(unknown_commits(bench)) > 0
    engine = bench.engine()
    for held in engine.store.leases.live():
        engine.release(held.id)
    assert bench.broken_promises() == []
    assert bench.act(engine) is None


def unknown_commits(bench: Bench) -> list[str]:
    return [
        f"at {at}: {wrong}"
        for at, statement in enumerate(bench.statements)
        if statement == "COMMIT"
        for wrong in bench.disturbed(UNKNOWN_COMMIT, at, for_ever=False)
    ]
