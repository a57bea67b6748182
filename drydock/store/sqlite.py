"""SQLite: one file, many processes of one machine.

The `sqlite3` connection is used directly; sqlite-utils, which costs twice what click does to import, is loaded only
when the schema must be made or changed.
"""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, DrydockError, StoreBusy, StoreDamaged, StoreError, StoreFull, printable, quoted
from ..model import Finding
from ..uptime import uptime
from . import files, presence
from .base import STATE, Row, Store
from .reserve import Reserve, kept_open, let_go, open_to_grow
from .turnstile import Turnstile
from .wakeups import Wakeups

APPLICATION_ID = 0x44727944  # "DryD"
SCHEMA_VERSION = 6
SAFE_SINCE = (3, 51, 3)  # the WAL-reset bug is fixed from here on
OLDEST = (3, 38, 0)

_CONTENT = """
SELECT a.application_id, v.user_version, EXISTS (SELECT 1 FROM sqlite_schema)
FROM pragma_application_id a, pragma_user_version v
"""

_SIZE = "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"
#: move the log into the database; it is then written from its start again, unless somebody reads in it
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"

DURABILITY = "DRYDOCK_SYNCHRONOUS"
PATIENCE_SECONDS = 10.0
FILES_NEEDED = 5  # the database, its log (twice), its shared memory, and the file that shows who lives
BUSY_SECONDS = 5.0  # for whoever does not come through the turnstile
LOOK_EVERY_SECONDS = 0.02  # where nobody can wake us
LARGEST_VALUE_BYTES = 64 * 1024 * 1024
#: who was granted something waits so long for whoever granted it to see to the disk
ANOTHERS_DISK_SECONDS = 0.02
_write_out = getattr(os, "fdatasync", os.fsync)
WAL_KEPT_BYTES = 4 * 1024 * 1024
SHARED_BYTES = 32 * 1024  # who opens a store first makes this anew
FRAME_BYTES = 24  # a page in the log has so many more before it
MANY_ROWS = 500  # whoever writes more moves the log at once: what a full disk may still have to take is to stay small
ENDING_BYTES = 64 * 1024  # what an ending writes into the log, and whom it hands on to
# A message that quotes damaged bytes cannot even be read; the driver then raises the latter.
FAILURES = (sqlite3.Error, UnicodeDecodeError)


class SqliteStore(Store):
    """See `open`."""

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection,
        turnstile: Turnstile | None,
        clock: Callable[[], float],
        uptime: Callable[[], float] = uptime,
    ) -> None:
        super().__init__(clock, uptime)
        self.address = self.url = path
        self.path = path
        self.hooks_folder = path + ".hooks"
        self.connection = connection
        self.patience_seconds = PATIENCE_SECONDS
        self._turnstile = turnstile  # None: read-only
        self._execute = connection.execute
        self._pid = os.getpid()
        self._log = path + "-wal"
        self._files = files.identity(path), files.identity(self._log)
        self._presence = path + ".live"
        self._process: str | None = None  # None: not announced
        self._wakeups = Wakeups(path + ".wake")
        self._reserve = Reserve(path + ".reserve")
        self._rows_before = 0
        self._has_spent = False  # of the reserve, which is to be filled again
        #: what is to be on the disk before it is reported; None: nothing has to
        self._to_secure: int | None = None
        try:
            if _is_durable() and turnstile is not None:
                self._to_secure = _open_log(self._log)
        except BaseException:
            connection.close()  # nobody else would
            raise
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str,
        *,
        read_only: bool = False,
        make_parents: bool = False,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime,
    ) -> "SqliteStore":
        """Open the store in this file, making the file (mode 0600) or bringing its schema up to date if need be.

        With `read_only` nothing is made or changed, and a file must be there. Raises `Refused`, `StoreError`
        or `StoreDamaged` as the file is unsafe, unusable or not ours.
        """
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; Drydock needs 3.38 or newer")
        path = files.resolve(path)
        if read_only:
            files.check_folder(os.path.dirname(path), path)
            if not files.exists(path):
                raise StoreError(f"there is no store at {quoted(path)} yet; make it with: drydock apply FILE")
            return cls(path, _connect(path, "ro", _check_current), None, clock, uptime)
        files.prepare(path, make_parents=make_parents)
        turnstile = Turnstile(path)
        try:
            turnstile.enter(PATIENCE_SECONDS)
            # Inside: the first to open after a crash repairs the log, and must not meet a writer.
            store = cls(path, _connect(path, "rw", _make_ready), turnstile, clock, uptime)
            store._reserve.take()
        except BaseException:
            turnstile.close()
            raise
        turnstile.leave()
        return store

    @classmethod
    def find(cls, path: str) -> "tuple[str, SqliteStore | None]":
        """The path, and the store to be read; None: there is none, and one can be made. Raises where none can be."""
        path = files.resolve(path)
        if files.is_free(path):
            return path, None
        return path, cls.open(path, read_only=True)

    # ---- statements

    def rows(self, statement: str, **parameters: Any) -> list[Row]:
        try:
            return self._execute(statement, parameters).fetchall()
        except FAILURES as error:
            if _is_unreadable(error) and statement.startswith("SELECT"):
                return self._rows_with_bytes(statement, parameters)
            raise self._translated(error) from error

    def _rows_with_bytes(self, statement: str, parameters: dict[str, Any]) -> list[Row]:
        """The rows, though one holds what is no text, or is far too long: such a value is given as bytes."""
        self.connection.text_factory = _text_or_bytes
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**31 - 1)
        try:
            return self._execute(statement, parameters).fetchall()
        except FAILURES as error:
            raise self._translated(error) from error
        finally:
            self.connection.text_factory = str
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE_BYTES)

    def _translated(self, error: sqlite3.Error | UnicodeDecodeError) -> Exception:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            with contextlib.suppress(sqlite3.Error):
                for (table,) in self._execute("SELECT name FROM sqlite_sequence WHERE seq >= 9223372036854775807"):
                    return StoreDamaged(
                        f"the ids of {quoted(table)} in {quoted(self.path)} are used up; start a new store"
                    )
        return _translate(error, self.path)

    def change(self, statement: str, **parameters: Any) -> int:
        try:
            return self._execute(statement, parameters).rowcount
        except FAILURES as error:
            raise self._translated(error) from error

    run = change

    def confirm(self) -> None:
        pass  # each statement has said so by itself

    def _begin(self, *, asks: bool = False) -> None:
        if self._turnstile is None:
            raise StoreError(f"the store {quoted(self.path)} was opened for reading only")
        if self._pid != os.getpid():
            raise StoreError("this connection was opened before a fork; the child must open its own")
        self.committed = False
        self._rows_before = self.connection.total_changes
        # Whatever can be done before the turn comes, or after it, keeps nobody waiting.
        is_scarce = self._reserve.is_needed()
        if is_scarce and asks:  # it might find room that an ending will need
            raise StoreFull(quoted(self.path))
        try:
            self._turnstile.enter(self.patience_seconds)
            # What is written into a lost log might be copied over the database as we leave.
            if not self._has_its_log():
                self._check_files()
            if is_scarce:
                self._make_room(ENDING_BYTES)
            self._execute("BEGIN IMMEDIATE")
            # Inside the transaction: a process that was opened before an upgrade must not write by the old rules.
            [version] = self._execute("PRAGMA user_version").fetchone()
            if version == -SCHEMA_VERSION:
                self._refuse_frozen()
            elif version != SCHEMA_VERSION:
                [identity] = self._execute("PRAGMA application_id").fetchone()
                raise _wrong_version(identity, version, self.path)
            state = self._execute(STATE).fetchone()
            if state is None:
                raise StoreDamaged(f"{quoted(self.path)} is incomplete (its table store is empty); restore a backup")
            self.offered, self.crowded = state[0], bool(state[1])
        except BaseException as error:
            self._roll_back()
            if isinstance(error, (StoreDamaged, *FAILURES)):
                self._check_files()  # if it is another one now, that is why
            if isinstance(error, FAILURES):
                raise self._translated(error) from error
            raise

    def _commit(self) -> None:
        assert self._turnstile is not None
        try:
            self._execute("COMMIT")
            self.committed = True
            if self.connection.total_changes > self._rows_before + MANY_ROWS:
                with contextlib.suppress(sqlite3.Error):  # it does not have to be now
                    self._execute(_CHECKPOINT).fetchall()
        except BaseException as error:
            if isinstance(error, FAILURES):
                self._roll_back()
                raise self._translated(error) from error
            self.committed = not self.connection.in_transaction  # ^C came just before, or just after
            self._roll_back()
            raise
        self._leave()

    def secure(self, granted: Collection[int] = ()) -> None:
        # What SQLite would do in each commit at synchronous=FULL, but when the next one has had its turn: several then need
        # one write of the disk. The log is written in order, so what came before is kept, too.
        if self._to_secure is None or (granted and self._wakeups.are_secure(granted, ANOTHERS_DISK_SECONDS)):
            return
        try:
            _write_out(self._to_secure)
        except OSError as error:
            raise StoreError(
                f"the store {quoted(self.path)} could not be written to the disk ({error.strerror}), so a power cut may undo"
                " what was done last; see: drydock doctor"
            ) from error

    def _wake(self, process: str, secure: Sequence[int] = ()) -> None:
        if secure and self._to_secure is None:
            return
        if presence.is_name(process):  # a damaged row may hold anything, also the path of another file
            self._wakeups.wake(process, secure)

    def outlook(self, type: str) -> tuple[int, bool]:
        # What the last transaction knew is nearly always true, and what the next one knows costs it nothing.
        return (self.offered, False) if self.offered else super().outlook(type)

    def _begin_reading(self) -> None:
        self.run("BEGIN")

    def _roll_back(self) -> None:
        try:
            self._undo()
        finally:
            self._leave()

    def _undo(self) -> None:
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._execute("ROLLBACK")

    def _make_room(self, ending: int) -> None:
        """On a full disk, let what room is kept go where we shall write: into the database as much as takes what the log
        holds by now, and `ending` bytes into the log."""
        self._has_spent = True
        with contextlib.suppress(sqlite3.Error, OSError):
            pages, page = self._execute(_SIZE).fetchone()
            self._reserve.spend(kept_open(self.path, self._files[0]), pages * page)
            _, frames, _ = self._execute(_CHECKPOINT).fetchone()
            with open_to_grow(self._log, self._files[1]) as log:
                self._reserve.spend(log, frames * (page + FRAME_BYTES) + ending)

    def _leave(self) -> None:
        assert self._turnstile is not None
        if self._has_spent:
            self._has_spent = not self._reserve.take()
        self._turnstile.leave()

    def _look_around(self) -> None:
        self._check_files()

    def _check_files(self) -> None:
        # SQLite goes on writing into a file that has lost its name, and reports success. Its log is one: whoever closes the
        # store last takes it away, and that may be anybody once a program of this process has opened and closed the store
        # by itself, since the kernel then drops the lock which says that we are here.
        if files.identity(self.path) != self._files[0] or not self._has_its_log():
            raise StoreDamaged(
                f"the store {quoted(self.path)} or its log was deleted or replaced while in use; run the command again"
            )

    def _has_its_log(self) -> bool:
        if self._to_secure is not None and files.is_open_at(self._log, self._to_secure):
            return True
        return files.identity(self._log) == self._files[1]

    # ---- moving house

    def columns(self, table: str) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM pragma_table_info(:table)", table=table)]

    def is_frozen(self) -> bool:
        return bool(self.rows("PRAGMA user_version")[0][0] < 0)

    def set_frozen(self, frozen: bool) -> None:
        self.run(f"PRAGMA user_version = {-SCHEMA_VERSION if frozen else SCHEMA_VERSION}")

    def take_time(self) -> None:
        pass

    def fill(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(columns))
        try:
            self.connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
        except sqlite3.IntegrityError as error:
            raise StoreDamaged(
                f"{quoted(self.path)} does not take a row of {table} ({printable(error)}); see: drydock doctor"
            ) from error
        except FAILURES as error:
            raise self._translated(error) from error

    def last_ids(self) -> dict[str, int]:
        return dict(self.rows("SELECT name, seq FROM sqlite_sequence"))

    def set_last_ids(self, ids: Mapping[str, int]) -> None:
        for table, last in ids.items():
            self.run("DELETE FROM sqlite_sequence WHERE name = :table", table=table)
            self.run("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)", table=table, last=last)

    def settle(self, tables: Sequence[str]) -> None:
        pass

    # ---- the living

    @property
    def process(self) -> str:  # type: ignore[override]
        if self._process is None:
            self._process = presence.announce(self._presence)
        return self._process

    def is_alive(self, process: str) -> bool:
        return presence.is_alive(self._presence, process)

    def dead_among(self, processes: Iterable[str]) -> set[str]:
        return {process for process in processes if not self.is_alive(process)}

    def life_left(self) -> float | None:
        return None

    def listen(self) -> None:
        self._wakeups.listen(self.process)
        if self._seen is None:
            self._seen = self.version()

    def wait_for_news(self, seconds: float) -> bool:
        if self._wakeups.listening:
            return self._wakeups.wait(seconds)
        return self._look_for_news(seconds, LOOK_EVERY_SECONDS)

    def version(self) -> int:
        if not self.connection.in_transaction:
            self._check_files()  # who sleeps would never learn that his store is gone
        return int(self.rows("PRAGMA data_version")[0][0])

    def may_watch(self) -> bool:
        return presence.watch(self._presence, self.process)

    def stop_watching(self) -> None:
        presence.unwatch(self._presence, self.process)

    def news_fileno(self) -> int | None:
        return self._wakeups.fileno()

    def health(self) -> list[Finding]:
        return [*self._integrity(), *self._surroundings()]

    def _integrity(self) -> Iterator[Finding]:
        for (message,) in self.rows("PRAGMA integrity_check(5)"):
            if message != "ok":
                yield Finding(True, "damaged", f"the database is damaged: {printable(message)}; restore a backup")
        for table, row, parent, _ in self.rows("PRAGMA foreign_key_check")[:5]:
            yield Finding(True, "damaged", f"row {row} of {table} points to a row of {parent} that is not there")

    def _surroundings(self) -> Iterator[Finding]:
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        lock = self.path + ".lock"
        filesystem = files.filesystem_of(os.path.dirname(self.path)) or "unknown filesystem"
        yield Finding(False, "store", f"{self.path} ({filesystem}), schema {SCHEMA_VERSION}, mode {mode:04o}")
        if mode & 0o077:
            yield Finding(
                False, "mode", f"others may read or write the store (mode {mode:04o}); to forbid it: chmod 600"
            )
        writable = os.access(lock if os.path.exists(lock) else os.path.dirname(lock), os.W_OK)
        state = "is in use" if writable else "cannot be written, so no process of yours can write the store"
        yield Finding(False, "turnstile", f"{os.path.basename(lock)} {state}")
        if (left := self._reserve.left()) < Reserve.SIZE:
            yield Finding(
                False,
                "reserve",
                f"{left // 1024} of {Reserve.SIZE // 1024} KiB are kept for giving things back on a full disk;"
                " whoever opens the store next keeps more if there is room",
            )
        if sqlite3.sqlite_version_info < SAFE_SINCE:
            yield Finding(
                False,
                "sqlite",
                f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (fixed in 3.51.3); the turnstile keeps writers"
                " apart, so do not write the file with other programs while Drydock runs",
            )
        else:
            yield Finding(False, "sqlite", f"SQLite {sqlite3.sqlite_version}")

    def close(self) -> None:
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self._wakeups.close()
        # A lease ends with its process, not with the connection that took it: then the name lives on until we die.
        with contextlib.suppress(DrydockError):
            if self._process is not None:
                presence.unwatch(self._presence, self._process)
            if self._process is not None and not self.leases.any_bound_to(self._process):
                presence.withdraw(self._presence, self._process)
        if self._to_secure is not None:
            os.close(self._to_secure)
        if self._turnstile is None:
            self.connection.close()
            return
        # The last one to close runs a checkpoint, so closing queues like a writer; but a stuck writer must not
        # keep anybody from leaving.
        with contextlib.suppress(StoreBusy):
            self._turnstile.enter(1.0)
        if self._reserve.is_needed():
            self._close_on_full_disk()
        self.connection.close()
        self._turnstile.close()

    def _close_on_full_disk(self) -> None:
        self._make_room(0)
        shared = self.path + "-shm"
        identity = files.identity(shared)
        with contextlib.suppress(OSError), open_to_grow(self._log, self._files[1]) as log:
            sources = [log, kept_open(shared, identity)]
            self.connection.close()
            # Who closes last takes both away, and what is open here is still nobody else's.
            for source in sources:
                if os.fstat(source).st_nlink == 0:
                    self._reserve.take(source)
            if files.identity(shared) != identity:
                let_go(identity)


def _connect(path: str, mode: str, check: Callable[[sqlite3.Connection, str], object]) -> sqlite3.Connection:
    with _translated(path):
        connection = sqlite3.connect(
            f"file:{_escaped(path)}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            cached_statements=256,
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA foreign_keys = ON")
            try:
                check(connection, path)
            except FAILURES:
                if not _grow_shared(path):
                    raise
                check(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _grow_shared(path: str) -> bool:
    """Where the disk is full, give the memory that is shared the room that was missing as it was opened: from then on it is
    used as it is. Whether that can be why it failed."""
    reserve = Reserve(path + ".reserve")
    if not reserve.is_needed():
        return False
    with contextlib.suppress(OSError):
        reserve.spend(kept_open(path + "-shm", files.identity(path + "-shm")), SHARED_BYTES)
    return True


def _escaped(path: str) -> str:
    # What would end the path of a URI; everything else may stand in it for SQLite.
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _make_ready(connection: sqlite3.Connection, path: str) -> None:
    execute = connection.execute
    if _is_empty(connection):
        execute("PRAGMA page_size = 2048")
        execute("PRAGMA journal_mode = WAL")
        _migrate(connection)
    version = _check_version(connection, path)
    if 0 < version < SCHEMA_VERSION:
        _migrate(connection)
    if execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA user_version").fetchone()  # with this the log is made, which is watched from now on
    execute("PRAGMA synchronous = NORMAL")  # the log is in order, and `secure` has it written out
    execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils.db import Database

    from .schema import migrations

    # sqlite-utils nests its own transactions as savepoints when one is open. It would open a plain BEGIN, which
    # fails under contention.
    connection.execute("BEGIN IMMEDIATE")
    try:
        # What other packages would do to a database of sqlite-utils is not done to ours.
        migrations.apply(Database(connection, execute_plugins=False))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    connection.execute(_CHECKPOINT)


def _is_empty(connection: sqlite3.Connection) -> bool:
    # Not by its size: whoever made the file may have died before there was anything in it.
    return bool(connection.execute(_CONTENT).fetchone() == (0, 0, 0))


def _check_version(connection: sqlite3.Connection, path: str) -> int:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    # A frozen store has a minus before its version. It may not be changed, so it must be read as it is.
    if identity != APPLICATION_ID or not (0 < version <= SCHEMA_VERSION or version == -SCHEMA_VERSION):
        raise _wrong_version(identity, version, path)
    return int(version)


def _check_current(connection: sqlite3.Connection, path: str) -> None:
    version = _check_version(connection, path)
    if 0 < version < SCHEMA_VERSION:
        raise StoreDamaged(
            f"{quoted(path)} has schema {version}, this drydock uses {SCHEMA_VERSION}; bring it up to date with: drydock leases"
        )


def _wrong_version(identity: int, version: int, path: str) -> StoreDamaged:
    if identity != APPLICATION_ID:
        return StoreDamaged(f"{quoted(path)} is not a drydock store; give another path")
    if version > SCHEMA_VERSION:
        return StoreDamaged(
            f"{quoted(path)} has schema {version}, this drydock knows up to {SCHEMA_VERSION}: upgrade drydock"
        )
    return StoreDamaged(f"{quoted(path)} has schema {version}, which this drydock cannot use")


def _is_durable() -> bool:
    value = os.environ.get(DURABILITY, "full").lower()
    if value not in ("full", "normal"):
        raise ConfigError(f"{DURABILITY} must be full or normal, not {quoted(value)}")
    return value == "full"


def _open_log(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open {quoted(path)}: {error.strerror}") from error


class _translated(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a word where it is used
    """Turn what the driver raises into our errors, keeping the cause."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FAILURES):
            raise _translate(error, self._path) from error


def _is_unreadable(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_TOOBIG or (code is None and "decode" in str(error))


def _text_or_bytes(value: bytes) -> str | bytes:
    if len(value) > LARGEST_VALUE_BYTES:
        return value[:100]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _too_many_files() -> bool:
    """SQLite does not say why it cannot open a file; that no more may be open is a reason that the user can mend."""
    opened: list[int] = []
    try:
        while len(opened) < FILES_NEEDED:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return True
    finally:
        for fd in opened:
            os.close(fd)
    return False


def _translate(error: sqlite3.Error | UnicodeDecodeError, path: str) -> Exception:
    if isinstance(error, UnicodeDecodeError):
        return StoreDamaged(f"{quoted(path)} is damaged; restore a backup or give another path")
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    where = quoted(path)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(BUSY_SECONDS, f"the store {where}")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(
            f"{where} is damaged or not a drydock store ({printable(error)}); restore a backup or give another path"
        )
    if primary == sqlite3.SQLITE_TOOBIG:
        return ConfigError(f"a value is larger than the {LARGEST_VALUE_BYTES // 2**20} MiB that the store takes")
    if primary == sqlite3.SQLITE_FULL:
        return StoreFull(where)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreError(f"{where} cannot be written ({printable(error)}); its folder must be writable too")
    if primary == sqlite3.SQLITE_CANTOPEN and _too_many_files():
        return StoreError(f"{where} cannot be used: too many open files; raise the limit with: ulimit -n 256")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOLFS):
        return StoreError(f"{where} cannot be used ({printable(error)}); nothing was changed")
    if primary == sqlite3.SQLITE_ERROR and str(error).startswith(("no such table", "no such column", "no such index")):
        return StoreDamaged(f"{where} is incomplete ({printable(error)}); restore a backup or give another path")
    return error
