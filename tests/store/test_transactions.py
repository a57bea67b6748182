"""What is SQLite's own of transactions: how long a turn is waited for, what the driver is told, and the file under it."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import apply

from drydock.engine import Engine
from drydock.errors import ConfigError, StoreBusy, StoreDamaged, StoreError
from drydock.model import Demand
from drydock.store.sqlite import SqliteStore
from drydock.testing.children import Child

pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open(str(path))
    yield store
    store.close()


@pytest.fixture
def other(store: SqliteStore, path: Path) -> Iterator[SqliteStore]:
    other = SqliteStore.open(str(path))
    yield other
    other.close()


def names(store: SqliteStore) -> list[str]:
    return [event.event for event in store.events.latest(100)]


def test_who_cannot_have_a_turn_in_time_is_told_and_can_go_on(store: SqliteStore, other: SqliteStore) -> None:
    other.patience_seconds = 0.01
    with store.write():
        with pytest.raises(StoreBusy) as busy, other.write():
            pass
        store.events.add("mine")
    assert busy.value.waited_seconds >= 0.01
    with other.write():
        other.events.add("yours")
    assert names(store) == ["mine", "yours"]


# ---- what the driver is told


def test_everything_that_is_written_is_written_in_an_immediate_transaction(engine: Engine) -> None:
    """A plain BEGIN that reads first cannot be made a writing one when somebody else has written since."""
    seen: list[str] = []
    connection = engine.store.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(seen.append)
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}})
    [lease] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
    engine.lease(Demand("host"), owner="t", count=1, wait_seconds=0, keep=True)
    engine.switch("binding:h1", enabled=False)
    engine.release(lease.id)
    engine.reclaim()
    engine.release_resource(2)
    connection.set_trace_callback(None)
    begun, writes = "", 0
    for statement in seen:
        word = statement.split()[0]
        if word in ("BEGIN", "COMMIT") or statement == "ROLLBACK":
            begun = statement if word == "BEGIN" else ""
        if word in ("INSERT", "UPDATE", "DELETE"):
            writes += 1
            assert begun == "BEGIN IMMEDIATE", statement
    assert writes > 20


def test_any_other_durability_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "off")
    with pytest.raises(ConfigError, match="must be full or normal"):
        SqliteStore.open(str(path))


# ---- the file under it


def test_a_store_that_lost_its_name_is_not_written_any_more(store: SqliteStore, path: Path) -> None:
    """SQLite would write on into the nameless file and report success."""
    path.rename(path.with_suffix(".old"))
    with pytest.raises(StoreDamaged, match="deleted or replaced"), store.write():
        store.events.add("lost")
    SqliteStore.open(str(path)).close()
    with pytest.raises(StoreDamaged, match="deleted or replaced"), store.write():
        store.events.add("lost")


def test_a_store_opened_for_reading_writes_nothing_and_makes_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        SqliteStore.open(str(path), read_only=True)
    assert list(tmp_path.iterdir()) == []
    SqliteStore.open(str(path)).close()
    reader = SqliteStore.open(str(path), read_only=True)
    with pytest.raises(StoreError, match="for reading only"), reader.write():
        pass
    with pytest.raises(StoreError):
        reader.run("DELETE FROM event")
    reader.close()


def test_the_log_does_not_outlive_the_last_who_closes(store: SqliteStore, path: Path) -> None:
    with store.write():
        store.events.add("kept")
    store.close()
    assert not path.with_name("drydock.db-wal").exists()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT event FROM event").fetchall() == [("kept",)]
    connection.close()


# ---- nothing but SQLite opens the file

AUDIT = """
import drydock

made = not os.path.exists(sys.argv[1])
opened = []

def watch(event, arguments):
    if event == "open":
        opened.append(os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else arguments[0])

if not made:
    sys.addaudithook(watch)
dock = drydock.connect(sys.argv[1])
if made:
    sys.addaudithook(watch)
dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}})
with dock.lease("host", wait=0), dock.lease("host", wait=0):
    dock.locks()
from drydock import doctor
from drydock.store import open_store
reader = open_store(sys.argv[1], read_only=True)
doctor.examine(reader)
reader.close()
dock.close()
drydock.connect(sys.argv[1]).close()
for name in opened:
    if isinstance(name, int) or os.path.abspath(name).startswith(os.path.abspath(sys.argv[1])):
        say(os.path.basename(name))
say("end")
"""


@pytest.mark.parametrize("there", [False, True])
def test_once_sqlite_has_it_nothing_else_opens_the_database(path: Path, there: bool) -> None:
    """Closing any other descriptor of the file would drop SQLite's own locks. Only the file's neighbours are ours, and the
    log, which it locks by the file of shared memory."""
    if there:
        SqliteStore.open(str(path)).close()
    with Child(AUDIT, os.path.relpath(path)) as child:
        opened = set(child.rest())
    assert opened - {"end"} <= {"drydock.db.lock", "drydock.db.live", "drydock.db.reserve", "drydock.db-wal", "turn"}
    assert "drydock.db.lock" in opened
