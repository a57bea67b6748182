"""Bugs planted on purpose, each a fault that a store of leases could really have, for the tests that must find them."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

from drydock.allocator import Lab
from drydock.request import Request
from drydock.slots import SlotLock
from drydock.store import base, presence
from drydock.store.base import Answer, Store
from drydock.store.sqlite import SqliteStore


def slot_locks_without_a_key(patch: pytest.MonkeyPatch) -> None:
    """A slot lock that somebody holds is no conflict: whoever inserts it last has it."""
    rows = SqliteStore.rows

    def forgiving(self: SqliteStore, statement: str, **parameters: Any) -> Any:
        if statement.startswith("INSERT INTO slot_lock"):
            statement = statement.replace("DO NOTHING", "(key) DO UPDATE SET holder = :holder")
        return rows(self, statement, **parameters)

    patch.setattr(SqliteStore, "rows", forgiving)


def commit_before_the_locks(patch: pytest.MonkeyPatch) -> None:
    """What is allocated is committed first, and its slot locks are taken in a second transaction."""
    ask_for = Lab.ask_for

    def late(self: Lab, store: Store, locks: Iterable[SlotLock], holder: str) -> Answer[list[str]]:
        store._commit()
        store._begin()
        store.run("SAVEPOINT attempt")
        return ask_for(self, store, locks, holder)

    patch.setattr(Lab, "ask_for", late)


def read_before_the_write_lock(patch: pytest.MonkeyPatch) -> None:
    """A plain BEGIN: the transaction reads first, and asks for the write lock when it comes to write."""
    begin = SqliteStore._begin

    def deferred(self: SqliteStore, **how: Any) -> None:
        execute = self._execute

        def plain(statement: str, *parameters: Any) -> Any:
            return execute("BEGIN" if statement == "BEGIN IMMEDIATE" else statement, *parameters)

        patch.setattr(self, "_execute", plain)
        try:
            begin(self, **how)
        finally:
            patch.setattr(self, "_execute", execute)

    patch.setattr(SqliteStore, "_begin", deferred)


def set_without_compare(patch: pytest.MonkeyPatch) -> None:
    """A status is changed whatever it is by now."""
    statement = base._move_statement

    def blind(table: str, columns: tuple[str, ...]) -> str:
        return statement(table, columns).replace(" AND status = :old", "")

    patch.setattr(base, "_move_statement", blind)


def nobody_is_woken(patch: pytest.MonkeyPatch) -> None:
    """What is handed over is not told to its new holder."""
    patch.setattr(base.Store, "wake", lambda *_: None)


def the_look_is_dated_late(patch: pytest.MonkeyPatch) -> None:
    """A waiter takes for seen whatever was committed until it sleeps."""
    wait = Request._wait

    def late(self: Request, again_at: float | None) -> None:
        self._seen = self.store.version()
        wait(self, again_at)

    patch.setattr(Request, "_wait", late)


def alive_by_process_number(patch: pytest.MonkeyPatch) -> None:
    """A connection is named after its process's number, and lives while a process of that number does."""

    def announce(path: str) -> str:
        return f"{os.getpid():012x}"

    def is_alive(path: str, name: str) -> bool:
        try:
            os.kill(int(name, 16), 0)
        except (ProcessLookupError, OverflowError):
            return False
        return True

    patch.setattr(presence, "announce", announce)
    patch.setattr(presence, "is_alive", is_alive)


def ttl_on_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """A ttl counts on the clock that anybody may set."""
    patch.setattr(base.Store, "uptime", property(lambda self: self.clock, lambda *_: None), raising=False)
