"""A database that fails when it is told to, at one statement or from there on, as SQLite fails."""

import sqlite3
from typing import Any, NamedTuple

from drydock.errors import StoreBusy, StoreError, StoreFull
from drydock.store.sqlite import SqliteStore


class Fault(NamedTuple):
    """What SQLite raises. `undoes`: it has given up the whole transaction, too, as it may for such an error."""

    name: str
    code: int
    message: str
    undoes: bool = False
    lasts: bool = False  #: it may go on, so that what follows fails as well
    error: type[StoreError] = StoreError  #: what it must become
    after: bool = False  #: of a COMMIT: it was done all the same, only nobody can know

    def __str__(self) -> str:
        return self.name


FAULTS = (
    Fault("busy", sqlite3.SQLITE_BUSY, "database is locked", error=StoreBusy),
    Fault("read-only", sqlite3.SQLITE_READONLY, "attempt to write a readonly database", lasts=True),
    Fault("full", sqlite3.SQLITE_FULL, "database or disk is full", undoes=True, lasts=True, error=StoreFull),
    Fault("I/O error", sqlite3.SQLITE_IOERR_WRITE, "disk I/O error", undoes=True),
)
UNKNOWN_COMMIT = Fault("done, but I/O error", sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error", after=True)


class Faulty:
    """Stands between a store and its connection, and counts the statements that pass.

    `ROLLBACK` passes always: in a log that was never committed there is nothing that SQLite would have to write.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._connection, self._execute = store.connection, store._execute
        store._execute = self
        self.statements: list[str] = []
        self.disarm()

    def disarm(self) -> None:
        self._fault: Fault | None = None
        self._at, self._for_ever = 0, False

    def arm(self, fault: Fault | None, at: int, *, for_ever: bool) -> None:
        """Fail at the statement with this number, counted from now and from 0; perhaps at all that follow, too."""
        self._fault, self._at, self._for_ever = fault, at, for_ever
        self.statements = []

    def __call__(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "ROLLBACK":
            return self._execute(statement)
        number = len(self.statements)
        self.statements.append(statement)
        fault = self._fault
        if fault is None or number < self._at or (number > self._at and not self._for_ever):
            return self._execute(statement, *parameters)
        if fault.after and statement == "COMMIT":
            self._execute(statement)
        if fault.undoes and self._connection.in_transaction:
            self._execute("ROLLBACK")
        error = sqlite3.OperationalError(fault.message)
        error.sqlite_errorcode = fault.code
        raise error
