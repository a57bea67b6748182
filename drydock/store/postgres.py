"""PostgreSQL: one database, many processes of many machines.

Writers stand in line here as they do at SQLite's turnstile: each transaction first takes one advisory lock of the
server's, which ends with the transaction, so that nothing leaks through a pooler and nobody has to begin anew for having
met somebody. What is promised does not rest on that line: unique rows and compare-and-set hold under READ COMMITTED
without it.

A transaction is one pipeline, and begins with the first statement in it, in the same journey: what gives no rows travels
with the next statement that does, or with the commit. The server's clock is read where a transaction begins, and is the
only clock in it.
"""

import json
import os
import re
import select
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from random import uniform
from typing import Any, NoReturn

import psycopg
from psycopg import pq

from ..errors import (
    ConfigError,
    DrydockError,
    Refused,
    StatusChanged,
    StoreAway,
    StoreBusy,
    StoreDamaged,
    StoreError,
    printable,
    quoted,
)
from ..model import Finding
from ..uptime import uptime
from .base import STATE, Answer, Row, Store
from .heart import Heart
from .machine import Machine
from .postgres_address import without_password
from .postgres_errors import translate
from .postgres_health import findings
from .postgres_schema import CHANGES, SCHEMA, VERSION
from .postgres_session import IDLE_SECONDS, Connection
from .statuses import LEASE_MOVING, RESOURCE_MOVING

OLDEST = 140000
#: a process that has not been heard of for so long is dead
LIFE_SECONDS = 30.0
#: and its row is dropped after so long
LONG_DEAD_SECONDS = 3600.0
#: a server that was reached and is away is tried for so long; one that was never reached, for less
PATIENCE_SECONDS = 30.0
FIRST_PATIENCE_SECONDS = 5.0
RETRY_SECONDS = 0.1
#: a writer waits for its turn for so long
TURN_SECONDS = 10.0
#: what a session calls itself that may take longer
LONG = "drydock, for long"
#: behind a pooler nobody can be woken: who waits looks so often
LOOK_EVERY_SECONDS = 0.1

MOST_KNOWN = 10_000
#: so many transactions, and so many more for each who waits, use one part of the index of the queue
GENERATION, GENERATION_PER_WAITER = 1000, 4
#: nobody writes so many while a server is tried again
EVENTS_LOOKED_AT = 1_000_000

#: but for what may take its time
LONG_SECONDS = 3600.0


_NAME = re.compile(r"[0-9a-f.]{3,60}")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z_0-9]*)")
#: what a change of status that came too late says: what the status is
_TOO_LATE = re.compile('"status:([a-z]+)"')
_CLOCK = "EXTRACT(EPOCH FROM clock_timestamp())::float8"
_STARTED = "EXTRACT(EPOCH FROM pg_postmaster_start_time())::float8"
_BEAT = f"INSERT INTO {SCHEMA}.process (name, beat) VALUES ($1, {_CLOCK}) ON CONFLICT (name) DO UPDATE SET beat = EXCLUDED.beat"
#: A process whose row is gone is dead. So who could not tell that he lives, since the server was down, has an hour to do so.
_LONG_DEAD = f"GREATEST(beat, {_STARTED}) < {_CLOCK} - :long"
#: who holds what is not over, or was at work on it: that they are dead is still to be found out
_NAMED = (
    "SELECT process FROM lease WHERE process IS NOT NULL AND status <> 'destroyed'"
    f" UNION SELECT worker FROM lease WHERE {LEASE_MOVING} AND worker IS NOT NULL"
    f" UNION SELECT worker FROM resource WHERE {RESOURCE_MOVING} AND worker IS NOT NULL"
)
_MAY_MAKE = (
    "SELECT CASE WHEN to_regnamespace($1) IS NULL THEN has_database_privilege(current_database(), 'CREATE')"
    " ELSE has_schema_privilege($1, 'CREATE') END"
)

_BEGAN = STATE.replace(
    "FROM store",
    f", set_config('drydock.now', ({_CLOCK})::text, true)::float8, nextval('change'), next_generation_at, pg_current_xact_id()::text FROM store",
).replace("config", "version, config", 1)
#: Let all who wait move on in the index of the queue. It pays once there are more dead entries than waiters; whoever was
#: left behind is taken along, too.
_MOVE_ON = (
    "WITH moved AS (UPDATE lease SET generation = (SELECT generation + 1 FROM store) WHERE status = 'pending' RETURNING 1)"
    " UPDATE store SET generation = generation + 1,"
    f" next_generation_at = CAST(:change AS BIGINT) + {GENERATION} + {GENERATION_PER_WAITER} * (SELECT count(*) FROM moved)"
)
#: the clock of the transaction, for a statement that is sent before the answer to that has come
_NOW = "current_setting('drydock.now')::float8"
_WRITING, _READING = b"BEGIN", b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The clock is read before the turn comes: what the queue takes must not count as the clock's being ahead.
_TURN = f"SELECT {_CLOCK}, pg_advisory_xact_lock($1)"
#: the commit that follows does not wait for the disk
_HASTY = b"SELECT set_config('synchronous_commit', 'off', true)"


#: its text and values
_Statement = tuple[bytes, list[Any]]
#: the moment at which a transaction begins, until it has begun
_UNKNOWN = object()


class PostgresStore(Store):
    """See `open`."""

    wakes_surely = True
    may_forget = True
    walks_through_the_dead = True

    def __init__(self, url: str) -> None:
        super().__init__(self._now, self._now)
        self.boot = "server"  # it is the server's clock that counts, on whichever machine
        self.url = url
        self.address = without_password(url)
        self._where = quoted(self.address)
        self.patience_seconds = PATIENCE_SECONDS
        self._lock = threading.RLock()  # held by whoever uses the connection: for a statement, or for a transaction
        self._connection: Connection | None = None
        self._given_up_after = 0.0  # it was away for as long as we were patient then
        self._started: float | None = None  # when the server was started
        self._pooled = False
        self._turn = 0  # the key of the advisory lock
        self._pid = os.getpid()
        self._begins: bytes | None = None  # how the first statement in a transaction is to open it
        self._transaction: ExitStack | None = None
        self._pipeline: psycopg.Pipeline | None = None
        #: the changes of a status that were sent and may be unanswered: table, id, and from what
        self._moves: list[tuple[psycopg.Cursor[Row], str, int, Any]] = []
        self._moment: float | None = None  # the server's clock in the transaction that is open
        self._ahead = 0.0  # so far, at most, is the server's clock before our uptime
        self._offered, self._crowded = 0, False
        self._change = 0
        self._xid = ""
        self._machine: Machine | None = None
        self._process: str | None = None
        self._heart: Heart | None = None
        self._told = False  # the server knows our name
        self._told_at = 0.0  # our uptime before we last told it that we live
        self._alive_until: dict[str, float] = {}  # others; until then they need not be asked about again
        self._listening = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._closed = False

    @classmethod
    def open(cls, url: str, *, read_only: bool = False) -> "PostgresStore":
        """Open the store in the database that `url` names, making its tables or bringing them up to date if need be.

        With `read_only` nothing is made or changed. Raises `ConfigError` for a URL that cannot be meant, `Refused` for
        a server that is not safe to use, `StoreError` for one that cannot be used, `StoreDamaged` for tables that are
        not ours.
        """
        store = cls(url)
        try:
            store._reach(FIRST_PATIENCE_SECONDS)
            store._make_ready(read_only=read_only)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def find(cls, url: str) -> "tuple[str, PostgresStore | None]":
        """Its address, and the store to be read; None: there is none, and one can be made. Raises where none can be."""
        store = cls(url)
        try:
            store._reach(FIRST_PATIENCE_SECONDS)
            if store._made() is not None:
                store._make_ready(read_only=True)
                return store.address, store
            if not store._ask(_MAY_MAKE, [SCHEMA])[0][0]:
                raise StoreError(
                    f"{store._where} has no store, and its user may not make one; see: GRANT CREATE ON DATABASE"
                )
        except BaseException:
            store.close()
            raise
        store.close()
        return store.address, None

    # ---- the connection

    def _reach(self, patience_seconds: float | None = None) -> Connection:
        """The connection, made anew if it was lost; a server that is away is tried again for a while."""
        if self._pid != os.getpid():
            raise StoreError("this connection was opened before a fork; the child must open its own")
        if self._closed:
            raise StoreError(f"the connection to {self._where} is closed")
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        if patience_seconds is None:  # nobody is patient twice
            patience_seconds = self.patience_seconds if self.patience_seconds > self._given_up_after else 0.0
            self._given_up_after = self.patience_seconds
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                return self._connect()
            except StoreAway as away:
                if time.monotonic() > deadline:
                    raise StoreError(str(away)) from away
                time.sleep(RETRY_SECONDS * uniform(0.5, 1.5))  # noqa: S311 - so that not all come back at once

    def _connect(self) -> Connection:
        with self._translated():
            connection = Connection.to(self.url, lambda: self.patience_seconds)
            try:
                self._look_over(connection)
                if self._told:
                    self._beat(connection)
                if self._listening and not self._pooled:
                    connection.execute(f'LISTEN "{_channel(self.process)}"')
                    self._tell_news()  # what was told meanwhile was told to nobody
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        self._given_up_after = 0.0
        return connection

    def _look_over(self, connection: Connection) -> None:
        if connection.info.server_version < OLDEST:
            version = connection.info.server_version // 10000
            raise StoreError(f"PostgreSQL {version} is too old; Drydock needs {OLDEST // 10000} or newer")
        asked_at = uptime()
        row = connection.execute(
            "SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('synchronous_commit'),"
            f" {_CLOCK}, hashtext(current_database() || '.{SCHEMA}')::bigint, {_STARTED}"
        ).fetchone()
        assert row is not None
        backend, standby, durability, now, self._turn, started = row
        if standby:
            raise StoreError(f"{self._where} is a standby, which cannot be written; give its primary")
        if durability == "off":
            raise Refused(
                f"{self._where} has synchronous_commit = off, so that a grant could be forgotten; switch it on for this database"
            )
        self._ahead = now - asked_at
        self._started = started
        # What a pooler says of the backend is its own invention. Behind it nothing may be left on a session.
        self._pooled = self.guesses = backend != connection.info.backend_pid
        if self._pooled:
            connection.prepare_threshold = None
        else:
            connection.prepare_threshold, connection.prepared_max = 1, 300
            connection.set_up()
            connection.add_notify_handler(lambda _: self._tell_news())

    def _own(self) -> Connection:
        """The connection of the transaction, which this opens unless it is. Never another one: what is lost with it is lost."""
        self._open_now()
        connection = self._connection
        if connection is None or connection.closed:
            raise StoreAway(f"{self._where} went away; nothing was changed")
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if told := _TOO_LATE.search(str(error)):
                moves, self._moves = self._moves, []
                for sent, table, id, old in moves:
                    if sent.statusmessage is None:
                        raise StatusChanged(table, id, (old,), None if told[1] == "gone" else told[1]) from error
            connection = self._connection
            # An error in a pipeline makes the driver believe that what came after it was prepared.
            if connection is not None and isinstance(error, psycopg.errors.InvalidSqlStatementName):
                connection.close()
            lost = connection is None or connection.closed
            raise translate(error, self._where, lost=lost, patience_seconds=TURN_SECONDS) from error
        except UnicodeEncodeError as error:
            raise ConfigError(f"text that is no Unicode: {quoted(error.object)}") from error

    # ---- the tables

    def _make_ready(self, *, read_only: bool) -> None:
        version = self._made()
        if version is None and read_only:
            raise StoreError(f"there is no store at {self._where} yet; make it with: drydock apply FILE")
        if 0 <= (version or 0) < VERSION and not read_only:
            self._migrate()
            version = self._made()
        self._check_version(abs(version or 0))  # a frozen store has a minus before its version
        self._machine = Machine(self._ask(f"SELECT name FROM {SCHEMA}.store", [])[0][0])
        self.hooks_folder = self._machine.hooks_folder

    def _made(self) -> int | None:
        """How many of the changes were made; None: there are no tables."""
        if not self._ask("SELECT to_regclass($1) IS NOT NULL", [f"{SCHEMA}.store"])[0][0]:
            return None
        return int(self._ask(f"SELECT version FROM {SCHEMA}.store", [])[0][0])

    def _migrate(self) -> None:
        with self._lock, self._translated():
            connection = self._reach()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock($1)", [self._turn])
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                connection.execute(f"SET LOCAL search_path = {SCHEMA}")
                connection.execute("SET LOCAL statement_timeout = 0")
                [there] = connection.execute("SELECT to_regclass('store') IS NOT NULL").fetchone() or [False]
                # Somebody may have been faster.
                [made] = (there and connection.execute("SELECT version FROM store").fetchone()) or [0]
                for change in CHANGES[made:]:
                    for statement in change.split(";\n"):
                        if statement.strip():
                            connection.execute(statement.encode())
                connection.execute("UPDATE store SET version = $1", [max(VERSION, made)])

    def _check_version(self, version: int) -> None:
        if version != VERSION:
            remedy = "upgrade drydock" if version > VERSION else "bring it up to date with: drydock leases"
            raise StoreDamaged(f"{self._where} has schema {version}, this drydock uses {VERSION}: {remedy}")

    # ---- statements

    def rows(self, statement: str, **parameters: Any) -> list[Row]:
        return self.ask(statement, **parameters)()

    def ask(self, statement: str, **parameters: Any) -> Answer[list[Row]]:
        text, names = _numbered(statement, _UNKNOWN in parameters.values())
        values = [parameters[name] for name in names]
        if self._begins:
            rows = self._open_in_turn(self._begins, (text, values))
            return lambda: rows
        if self._transaction is None:
            rows = self._ask(text, values)
            return lambda: rows
        with self._translated():
            sent = self._own().execute(text, values)
        return partial(self._answer, sent)

    def _answer(self, sent: psycopg.Cursor[Row]) -> list[Row]:
        with self._translated():
            found = sent.fetchall()
        self._moves.clear()  # all that was sent before is answered, too
        return found

    def run(self, statement: str, **parameters: Any) -> None:
        text, names = _numbered(statement)
        with self._translated():
            self._own().execute(text, [parameters[name] for name in names])

    def ask_change(self, statement: str, **parameters: Any) -> Answer[bool]:
        rows = self.ask(f"{statement} RETURNING 1", **parameters)
        return lambda: bool(rows())

    def _move(self, table: str, id: int, old: Any, statement: str, values: dict[str, Any]) -> None:
        # The server is told what must be: then nobody has to wait for its answer before going on.
        text, names = _numbered(
            f"WITH moved AS ({statement} RETURNING 1) SELECT CASE WHEN EXISTS (SELECT FROM moved) THEN 1"
            f" ELSE ('status:' || COALESCE((SELECT status FROM {table} WHERE id = :id), 'gone'))::int END"
        )
        with self._translated():
            sent = self._own().execute(text, [values[name] for name in names])
        self._moves.append((sent, table, id, old))

    def change(self, statement: str, **parameters: Any) -> int:
        text, names = _numbered(statement)
        with self._translated():
            answer = self._own().execute(text, [parameters[name] for name in names])
            assert self._pipeline is not None
            self._pipeline.sync()
            return answer.rowcount

    def _ask(self, text: bytes | str, values: list[Any]) -> list[Row]:
        """Ask outside of any transaction, and again if the connection was lost over it."""
        query = text.encode() if isinstance(text, str) else text

        def ask() -> list[Row]:
            with self._lock:
                connection = self._reach()
                with self._translated():
                    if not self._pooled:
                        return connection.execute(query, values).fetchall()
                    with connection.pipeline():
                        connection.execute("BEGIN")
                        connection.set_up(transaction=True)
                        answer = connection.execute(query, values)
                        connection.execute("COMMIT")
                        return answer.fetchall()

        return self.insist(ask)

    # ---- transactions

    def _begin(self, *, asks: bool = False) -> None:
        self.committed = False
        if self._process is None and self._machine is not None:
            self._process = self._machine.announce()
        self._begins = _WRITING

    @property
    def offered(self) -> int:
        self._open_now()
        return self._offered

    @offered.setter
    def offered(self, config: int) -> None:
        self._offered = config

    @property
    def crowded(self) -> bool:
        self._open_now()
        return self._crowded

    @crowded.setter
    def crowded(self, crowded: bool) -> None:
        self._crowded = crowded

    @property
    def seems_crowded(self) -> bool:
        return self._crowded

    def _open_now(self) -> None:
        if self._begins:
            self._open_in_turn(self._begins)

    def _open_in_turn(self, begins: bytes, first: _Statement | None = None) -> list[Row]:
        deadline = time.monotonic() + TURN_SECONDS
        while True:
            try:
                return self.insist(lambda: self._open(begins, first))
            except StoreBusy:
                if not self._put_out() and time.monotonic() >= deadline:
                    raise

    def _put_out(self) -> bool:
        """End the session of who has the turn, if the server has waited for him for too long: he was stopped, or his
        wire is dead. The server would not: in the middle of a pipeline none of its timeouts runs."""
        with suppress(DrydockError):  # the sessions of another user are not ours to end
            return bool(
                self._ask(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                    " WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND ((classid::bigint << 32) | objid::bigint) = $1"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    " AND wait_event = 'ClientRead' AND query_start < clock_timestamp() - make_interval(secs => $2)"
                    " AND application_name <> $3",
                    [self._turn, IDLE_SECONDS, LONG],
                )
            )
        return False

    def _begin_reading(self) -> None:
        self._begins = _READING

    def _open(self, begins: bytes, first: _Statement | None) -> list[Row]:
        """Begin a transaction, and keep the connection until it ends. Return the rows of its first statement. All of this is
        one journey to the server."""
        transaction = ExitStack()
        transaction.enter_context(self._lock)
        self._transaction, self._begins = transaction, None
        self._moves.clear()
        try:
            connection = self._reach()
            with self._translated():
                self._pipeline = transaction.enter_context(connection.pipeline())
                asked_at = uptime()
                connection.execute(begins)
                if self._pooled:
                    connection.set_up(transaction=True)
                if begins == _READING:
                    began = connection.execute(f"SELECT {_CLOCK}")
                    sent = connection.execute(*first) if first else None
                    [self._moment] = began.fetchone() or [None]
                else:
                    turn = connection.execute(_TURN, [self._turn])
                    if not self._told:
                        connection.execute(_BEAT, [self.process])
                    began = connection.execute(_BEGAN)
                    sent = connection.execute(*first) if first else None
                    self._has_begun(began)
                    self._ahead = (turn.fetchone() or [0.0])[0] - asked_at
                    if not self._told:
                        self._told_at = asked_at
                rows = sent.fetchall() if sent else []
        except BaseException:
            self._abandon()
            self._begins = begins  # nothing was done, and what follows may try again
            raise
        return rows

    def _has_begun(self, began: psycopg.Cursor[Row]) -> None:
        """Take in what a writing transaction learns as it begins."""
        try:
            row = began.fetchone()
        except psycopg.Error:
            if began.pgresult is not None and (row := began.fetchone()):
                self._check_version(abs(row[0]))  # why else the first statement failed is for its caller to know
            raise
        if row is None:
            raise StoreDamaged(f"{self._where} is incomplete (its table store is empty); restore a backup")
        version, self._offered, self._crowded, self._moment, self._change, next_generation_at, self._xid = row
        if version == -VERSION:
            self._refuse_frozen()
        else:
            self._check_version(version)
            if self._change >= next_generation_at:
                self.run(_MOVE_ON, change=self._change)

    def _commit(self) -> None:
        if self._begins and not self._awake:  # nothing was done in it
            self._begins, self.committed = None, True
            return
        self._open_now()
        moment, started = self._moment, self._started
        try:
            with self._translated():
                connection = self._own()
                for process in self._awake:
                    if _NAME.fullmatch(process):  # a damaged row may hold anything
                        connection.execute("SELECT pg_notify($1, '')", [_channel(process)])
                if self.hasty:
                    connection.execute(_HASTY)
                connection.execute("COMMIT")
                self._end()
        except BaseException as error:
            self._undo()
            self._drop_unless_idle()
            self.committed = self._was_kept(error, moment, started)
            if not self.committed or not isinstance(error, StoreAway):
                raise
        self.committed = True
        self._awake = {}
        if not self._told:
            self._told = True
            self._heart = self._heart or Heart(self.beat, LIFE_SECONDS / 3)

    def secure(self, granted: Collection[int] = ()) -> None:
        pass  # nobody sees what is not written out yet, but for what was hasty

    def _look_around(self) -> None:
        pass  # the server has kept it

    def _was_kept(self, error: BaseException, moment: float | None, started: float | None) -> bool:
        """What became of a transaction whose commit may have been sent and was not answered: the server remembers.

        A server that crashed gives the numbers of transactions that left no trace to others. Then only what ours has
        written tells: the history, by the moment. One that wrote nothing there may be done again.
        """
        deadline = time.monotonic() + self.patience_seconds
        while True:
            with suppress(StoreError):
                [(status, since)] = self._ask(
                    f"SELECT CASE WHEN $1::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status($1::xid8) END, {_STARTED}",
                    [self._xid],
                )
                if since != started:
                    return status == "committed" and self._is_in_history(moment)
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            if time.monotonic() > deadline:
                break
            time.sleep(RETRY_SECONDS)
        raise StoreError(
            f"{self._where} went away in the moment of a commit and is not back, so whether it was done is not known;"
            " see: drydock leases"
        ) from error

    def _is_in_history(self, moment: float | None) -> bool:
        return bool(
            self._ask(
                f"SELECT 1 FROM {SCHEMA}.event WHERE id > (SELECT max(id) FROM {SCHEMA}.event) - $2 AND at = $1 LIMIT 1",
                [moment, EVENTS_LOOKED_AT],
            )
        )

    def _roll_back(self) -> None:
        self._undo()

    def _undo(self) -> None:
        self._begins = None
        self._abandon()

    def _abandon(self) -> None:
        if self._transaction is None:
            return
        connection = self._connection
        try:
            with suppress(psycopg.Error):
                if connection is not None and not connection.closed:
                    self._resume()
                    connection.execute("ROLLBACK")
        finally:
            with suppress(psycopg.Error):
                self._end()
            self._drop_unless_idle()

    def _drop_unless_idle(self) -> None:
        connection = self._connection
        if connection is not None and connection.info.transaction_status != pq.TransactionStatus.IDLE:
            connection.close()

    def _end(self) -> None:
        """Wait for all answers, and let others have the connection."""
        self._moment = self._pipeline = None
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.close()

    def _resume(self) -> None:
        """An error shuts the pipeline until both sides know where it was; that costs a journey."""
        if self._pipeline is not None:
            with suppress(psycopg.Error):
                self._pipeline.sync()

    def confirm(self) -> None:
        with self._translated():
            self._own()
            assert self._pipeline is not None
            self._pipeline.sync()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        with super().attempt():
            try:
                yield
            except BaseException:
                self._resume()
                raise

    # ---- moving house

    def columns(self, table: str) -> list[str]:
        found = self.rows(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0"
            " AND NOT attisdropped AND attname <> 'generation' ORDER BY attnum",
            table=table,
        )
        return [name for (name,) in found]

    def is_frozen(self) -> bool:
        return bool(self.rows(f"SELECT version < 0 FROM {SCHEMA}.store")[0][0])

    def set_frozen(self, frozen: bool) -> None:
        self.run("UPDATE store SET version = :version", version=-VERSION if frozen else VERSION)

    def take_time(self) -> None:
        self._own().patience_seconds = lambda: LONG_SECONDS
        self.run(f"SET LOCAL application_name = '{LONG}'")
        self.run("SET LOCAL statement_timeout = 0")
        self.run("SET LOCAL idle_in_transaction_session_timeout = 0")

    def fill(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        # A page as one value: COPY, though twice as fast, cannot be part of a pipeline.
        def refuse(value: object) -> NoReturn:
            raise StoreDamaged(f"a row of {table} cannot be copied ({quoted(value)}); see: drydock doctor")

        names = ", ".join(columns)
        page = json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=refuse)
        try:
            self.change(
                f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, :page::json)",
                page=page,
            )
        except psycopg.IntegrityError as error:
            why = printable(str(error).strip().split("\n")[0])
            raise StoreDamaged(f"{self._where} does not take a row of {table} ({why}); see: drydock doctor") from error

    def last_ids(self) -> dict[str, int]:
        found = self.rows(
            "SELECT sequencename::text, COALESCE(last_value, 0) FROM pg_sequences WHERE schemaname = :schema",
            schema=SCHEMA,
        )
        return {name.removesuffix("_id_seq"): last for name, last in found}

    def set_last_ids(self, ids: Mapping[str, int]) -> None:
        for table, last in ids.items():
            self.run(
                "SELECT setval(pg_get_serial_sequence(:table, 'id'), GREATEST(:last::bigint, 1), :last::bigint > 0)",
                table=table,
                last=last,
            )

    def settle(self, tables: Sequence[str]) -> None:
        self.run(f"ANALYZE {', '.join(tables)}")  # or it would be found out too late by the server itself

    # ---- the clock

    def _now(self) -> float:
        """The server's clock: in a transaction, as that began; outside, rather before it than behind, so that no holder
        trusts in a lease for too long."""
        self._open_now()
        return self._moment if self._moment is not None else self._ahead + uptime()

    @property
    def now(self) -> Any:
        if self._begins and self.clock == self._now:
            return _UNKNOWN
        return self.clock()  # which may be one that was handed in

    # ---- the living

    @property
    def process(self) -> str:  # type: ignore[override]
        if self._process is None:
            assert self._machine is not None
            self._process = self._machine.announce()
        return self._process

    def beat(self) -> None:
        """Tell the server that this process lives. Raises `StoreError` when that cannot be told now."""
        with self._lock:
            connection = self._reach(0.0)
            with self._translated():
                self._beat(connection)

    def _beat(self, connection: Connection) -> None:
        asked_at = uptime()
        connection.execute(_BEAT, [self.process])
        self._told_at = asked_at

    def life_left(self) -> float | None:
        return self._told_at + LIFE_SECONDS - uptime() if self._told else None

    def dead_among(self, processes: Iterable[str]) -> set[str]:
        assert self._machine is not None
        seen = {name: self._machine.is_alive(name) for name in set(processes) - {self._process}}
        dead = {name for name, alive in seen.items() if alive is False}
        now = self.clock()
        elsewhere = sorted(n for n, alive in seen.items() if alive is None and self._alive_until.get(n, 0.0) <= now)
        if not elsewhere:
            return dead
        # Who could not tell that he lives, since the server was down, has time to do so when it is back.
        beats = self.rows(
            f"SELECT name, GREATEST(beat, {_STARTED}) FROM process WHERE name = ANY(:names)",
            names=elsewhere,
        )
        if len(self._alive_until) > MOST_KNOWN:
            self._alive_until.clear()
        self._alive_until |= {name: beat + LIFE_SECONDS for name, beat in beats}
        return dead | {name for name in elsewhere if self._alive_until.get(name, 0.0) <= now}

    def forget_dead(self, most: int) -> bool:
        # Two processes may do this at once: who comes second finds less.
        if not self._long_dead(most):
            return False
        with self.write():
            dead = sorted(set(self._long_dead(most)) - {name for (name,) in self.rows(_NAMED)})
            dropped = self.change(
                f"DELETE FROM process WHERE name = ANY(:dead) AND {_LONG_DEAD}", dead=dead, long=LONG_DEAD_SECONDS
            )
            return bool(dropped)

    def _long_dead(self, most: int) -> list[str]:
        rows = self.rows(
            f"SELECT name FROM process WHERE {_LONG_DEAD} ORDER BY beat LIMIT :most", long=LONG_DEAD_SECONDS, most=most
        )
        return [name for (name,) in rows]

    # ---- wake-ups

    def listen(self) -> None:
        if self._listening:
            return
        with self._lock:
            connection = self._reach()
            if not self._pooled:
                with self._translated():
                    connection.execute(f'LISTEN "{_channel(self.process)}"')
            elif self._seen is None:
                self._seen = self.version()
            self._listening = True

    def wait_for_news(self, seconds: float) -> bool:
        if not self._listening or self._pooled:
            return self._look_for_news(seconds, LOOK_EVERY_SECONDS)
        deadline = time.monotonic() + seconds
        while not self._take_news():
            poll = select.poll()  # select() takes no descriptor above 1023
            poll.register(self._reading, select.POLLIN)
            poll.register(self._reach().fileno(), select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            self._hear()
        return True

    def _hear(self) -> None:
        """Read what has arrived on the connection; if that was its end, have another one."""
        with self._lock:
            connection = self._reach()
            try:
                connection.pgconn.consume_input()
                while connection.pgconn.notifies():
                    self._tell_news()
            except psycopg.Error:
                connection.close()
                self._reach()

    def _tell_news(self) -> None:
        with suppress(BlockingIOError):  # one more would tell nothing
            os.write(self._writing, b"!")

    def _take_news(self) -> bool:
        try:
            return bool(os.read(self._reading, 4096))
        except BlockingIOError:
            return False

    def news_fileno(self) -> int | None:
        connection = self._connection
        if not self._listening or self._pooled or connection is None:
            return None
        try:
            return connection.fileno()
        except psycopg.Error:  # it is closed
            return None

    def _wake(self, process: str, secure: Sequence[int] = ()) -> None:
        pass  # the commit has done it

    def version(self) -> int:
        self._open_now()
        if self._moment is not None and self._transaction is not None:
            return self._change
        # The number grows as a transaction begins. While one is under way its sign tells, so that its end changes it, too.
        number = (
            "SELECT CASE WHEN pg_try_advisory_xact_lock_shared($1) THEN 1 ELSE -1 END"
            f" * (last_value - (NOT is_called)::int) FROM {SCHEMA}.change"
        )
        return int(self._ask(number, [self._turn])[0][0])

    # ---- keeping watch

    def may_watch(self) -> bool:
        return self._machine is not None and self._machine.watch(self.process)

    def stop_watching(self) -> None:
        if self._machine is not None and self._process is not None:
            self._machine.unwatch(self._process)

    # ---- for doctor

    def health(self) -> list[Finding]:
        return list(findings(self._ask, self.address, pooled=self._pooled))

    def close(self) -> None:
        if self._closed or self._pid != os.getpid():
            return
        if self._process is not None and self._machine is not None:
            self._machine.unwatch(self._process)
            # A lease ends with its process, not with the connection that took it: the heart goes on.
            try:
                if self.leases.any_bound_to(self._process):
                    return
            except DrydockError:  # nobody knows
                if self._told:
                    return
        self._closed = True
        if self._heart is not None:
            self._heart.stop()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and not connection.closed:
                with suppress(psycopg.Error):
                    if self._told:
                        connection.execute(f"DELETE FROM {SCHEMA}.process WHERE name = $1", [self._process])
                connection.close()
        if self._process is not None and self._machine is not None:
            self._machine.withdraw(self._process)
        os.close(self._reading)
        os.close(self._writing)


def _channel(process: str) -> str:
    return f"drydock.{process}"


@lru_cache(maxsize=1000)
def _numbered(statement: str, at_once: bool = False) -> tuple[bytes, tuple[str, ...]]:
    """A statement with `:name` parameters as PostgreSQL takes it, and the names in the order of their numbers. `at_once`:
    before it is known what `:now` is."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return _NOW if at_once and found[1] == "now" else f"${names.setdefault(found[1], len(names) + 1)}"

    text = _PARAMETER.sub(number, statement)
    return text.encode(), tuple(names)
