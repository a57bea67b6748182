"""What SQLite's store has told is on the disk by then, and nobody waits for the disk who need not."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import LAB, until

import drydock
from drydock.errors import StoreError
from drydock.store import sqlite
from drydock.store.sqlite import SqliteStore


class Disk:
    """What a power cut would leave, as far as was seen to: the files as they were when the log was last written out."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._kept = path, folder / "kept.db"
        self.writers: list[int] = []  # the thread of each time that it was written out
        self.before: Callable[[], object] = lambda: None

    def write_out(self, fd: int) -> None:
        self.before()
        self.writers.append(threading.get_ident())
        assert os.path.samestat(os.fstat(fd), Path(f"{self._path}-wal").stat())
        for end in ("", "-wal"):  # by another process, since closing the database here would drop SQLite's locks
            subprocess.run(["cp", f"{self._path}{end}", f"{self._kept}{end}"], check=True)

    def leases(self) -> list[tuple[int, str]]:
        with closing(sqlite3.connect(self._kept)) as connection:
            return connection.execute("SELECT id, status FROM lease ORDER BY id").fetchall()


@pytest.fixture
def disk(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(path, tmp_path)
    monkeypatch.setattr(sqlite, "_write_out", disk.write_out)
    return disk


@pytest.fixture
def dock(disk: Disk, path: Path) -> Iterator[drydock.Connection]:
    with drydock.connect(str(path)) as dock:
        dock.apply(LAB)
        yield dock


class Waiter:
    """One who waits for the host in a thread of his own, and then has it until the end."""

    def __init__(self, path: Path) -> None:
        self.told: list[tuple[int, str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, args=(path,))
        self._thread.start()

    def _wait(self, path: Path) -> None:
        with drydock.connect(str(path)) as dock, dock.lease("host") as lease:
            self.told.append((lease.id, lease.status))
            self._over.wait(60)

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def end(self) -> None:
        self._over.set()
        self._thread.join(60)


def waits(dock: drydock.Connection) -> bool:
    return any(lease.status == "pending" for lease in dock.leases())


def test_what_was_told_survives(dock: drydock.Connection, disk: Disk) -> None:
    lease = dock.lease("host")
    assert disk.leases() == [(lease.id, "active")]
    lease.release()
    assert disk.leases() == [(lease.id, "destroyed")]


def test_who_asks_in_vain_waits_for_no_disk(dock: drydock.Connection, disk: Disk, path: Path) -> None:
    held = dock.lease("host")
    waiter = Waiter(path)
    until(lambda: waits(dock))
    assert waiter.ident not in disk.writers
    held.release()
    waiter.end()


def test_who_is_granted_by_another_whose_log_is_written_out_need_not_do_so_again(
    dock: drydock.Connection, disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ANOTHERS_DISK_SECONDS", 60.0)  # the files are copied in the time of a slow disk
    held, waiter = dock.lease("host"), Waiter(path)
    until(lambda: waits(dock))
    held.release()
    until(lambda: bool(waiter.told))
    assert disk.leases() == [(held.id, "destroyed"), (held.id + 1, "active")]
    assert waiter.ident not in disk.writers
    waiter.end()


def test_who_is_granted_by_another_whose_disk_is_slow_sees_to_it_himself(
    dock: drydock.Connection, disk: Disk, path: Path
) -> None:
    held, waiter = dock.lease("host"), Waiter(path)
    until(lambda: waits(dock))

    def be_slow() -> None:
        if threading.get_ident() != waiter.ident:
            until(lambda: bool(waiter.told))
            assert disk.writers[-1] == waiter.ident
            assert disk.leases() == [(held.id, "destroyed"), (held.id + 1, "active")]

    disk.before = be_slow
    held.release()
    assert waiter.told == [(held.id + 1, "active")]
    waiter.end()


def test_nobody_is_told_of_a_grant_that_is_not_on_the_disk(dock: drydock.Connection, disk: Disk, path: Path) -> None:
    held, waiter, go_on = dock.lease("host"), Waiter(path), threading.Event()
    until(lambda: waits(dock))
    writing: set[int | None] = set()

    def be_slow() -> None:
        writing.add(threading.get_ident())
        if threading.get_ident() == waiter.ident:
            go_on.wait(60)
        else:
            until(lambda: waiter.ident in writing)
            assert waiter.told == []
            go_on.set()

    disk.before = be_slow
    held.release()
    waiter.end()
    assert waiter.told == [(held.id + 1, "active")]


def test_a_grant_that_was_undone_is_told_to_nobody(dock: drydock.Connection) -> None:
    """Or one that follows might be taken for that, and not be on the disk yet."""
    store = dock._engine.store
    with store.write():
        with contextlib.suppress(ZeroDivisionError), store.attempt():
            store.wake("somebody", [1])
            1 / store.rows("SELECT 0")[0][0]
        assert store._awake.pop("somebody") == []


def test_who_builds_for_himself_waits_for_nobody_elses_disk(
    dock: drydock.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "ANOTHERS_DISK_SECONDS", 60.0)
    (tmp_path / ".drydock-root").touch()
    dock.apply({"blueprint": {"tmp": {"kind": "scratch-dir", "root": str(tmp_path), "limit": 3}}})
    begun = time.monotonic()
    for leases in (dock.lease("scratch-dir"), dock.lease("scratch-dir", count=2)):
        leases.release()
    assert time.monotonic() < begun + 30


def test_the_disk_is_waited_for_when_others_have_their_turn(dock: drydock.Connection, disk: Disk, path: Path) -> None:
    with closing(SqliteStore.open(str(path))) as other:
        other.patience_seconds = 0.01

        def write() -> None:
            disk.before = lambda: None
            with other.write():
                other.events.add("test.meanwhile")

        disk.before = write
        dock.lease("host")
        assert other.committed


def test_a_disk_that_fails_is_told_and_what_was_granted_is_given_back(dock: drydock.Connection, disk: Disk) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.before = fail
    with pytest.raises(StoreError, match=r"could not be written to the disk \(Input/output error\), so a power cut"):
        dock.lease("host")
    disk.before = lambda: None
    assert dock.leases() == []
    dock.lease("host", wait=0).release()


def test_whoever_waits_is_woken_though_the_disk_of_who_serves_him_fails(
    dock: drydock.Connection, disk: Disk, path: Path
) -> None:
    held, waiter = dock.lease("host"), Waiter(path)
    until(lambda: waits(dock))

    def fail() -> None:
        if threading.get_ident() != waiter.ident:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.before = fail
    with pytest.raises(StoreError, match="could not be written to the disk"):
        held.release()
    disk.before = lambda: None
    until(lambda: bool(waiter.told))
    assert disk.writers[-1] == waiter.ident
    waiter.end()


def test_an_operator_who_says_normal_waits_for_no_disk(disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "normal")
    with drydock.connect(str(path)) as dock:
        dock.apply(LAB)
        dock.lease("host").release()
    assert disk.writers == []


def test_the_log_is_in_order_whatever_is_said(path: Path) -> None:
    """At synchronous=OFF a power cut could leave a database that is none."""
    for _ in range(2):  # when the store is made, and when it is there
        with closing(SqliteStore.open(str(path))) as store:
            assert store.rows("PRAGMA synchronous") == [(1,)]
            assert store.rows("PRAGMA journal_mode") == [("wal",)]


def test_there_are_no_locks_on_the_log_that_could_be_lost_as_it_is_closed(dock: drydock.Connection, path: Path) -> None:
    with dock._engine.store.write():
        locked = {line.split()[-3].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
    assert str(Path(f"{path}-shm").stat().st_ino) in locked
    assert str(Path(f"{path}-wal").stat().st_ino) not in locked
