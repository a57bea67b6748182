"""Reading, writing, and the part of a transaction that can be lost alone; what the driver is told; what a fork may do."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import Child
from conftest import apply

from drydock.engine import Engine
from drydock.errors import ConfigError, StoreBusy, StoreDamaged, StoreError
from drydock.model import Demand
from drydock.store.sqlite import SqliteStore


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


def fail(store: SqliteStore, event: str, error: type[BaseException] = RuntimeError) -> None:
    store.events.add(event)
    raise error


# ---- write, attempt, read


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_write_is_kept_whole_or_not_at_all(
    store: SqliteStore, other: SqliteStore, error: type[BaseException]
) -> None:
    with store.write():
        store.events.add("kept")
    with pytest.raises(error), store.write():
        fail(store, "lost", error)
    assert names(other) == ["kept"]
    other.patience_seconds = 0.0
    with other.write():  # the turn was given away too
        other.events.add("next")


def test_what_is_written_is_seen_by_others_only_when_it_is_committed(store: SqliteStore, other: SqliteStore) -> None:
    with store.write():
        store.events.add("mine")
        assert names(store) == ["mine"]
        assert names(other) == []
    assert names(other) == ["mine"]


def test_an_attempt_that_fails_undoes_its_own_part_alone(store: SqliteStore, other: SqliteStore) -> None:
    with store.write():
        store.events.add("before")
        with pytest.raises(RuntimeError), store.attempt():
            fail(store, "tried")
        with store.attempt():
            store.events.add("outer")
            with pytest.raises(RuntimeError), store.attempt():
                fail(store, "inner")
        store.events.add("after")
    assert names(other) == ["before", "outer", "after"]


def test_a_read_sees_one_moment(store: SqliteStore, other: SqliteStore) -> None:
    with store.read():
        assert names(store) == []
        with other.write():
            other.events.add("meanwhile")
        assert names(store) == []
    assert names(store) == ["meanwhile"]


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


@pytest.mark.parametrize(("given", "level"), [(None, 2), ("full", 2), ("NORMAL", 1)])
def test_a_commit_is_durable_unless_the_operator_says_normal(
    path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, level: int
) -> None:
    if given is not None:
        monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", given)
    for _ in range(2):  # when the store is made, and when it is there
        store = SqliteStore.open(str(path))
        assert store.rows("PRAGMA synchronous") == [(level,)]
        assert store.rows("PRAGMA journal_mode") == [("wal",)]
        store.close()


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


# ---- fork

FORK = """
from drydock.errors import StoreError
from drydock.store.sqlite import SqliteStore

store = SqliteStore.open(sys.argv[1])
with store.write():
    store.events.add("before")
me = store.process
child = os.fork()
if not child:
    try:
        with store.write():
            store.events.add("from the child")
    except StoreError as error:
        say(error)
    store.close()
    own = SqliteStore.open(sys.argv[1])
    with own.write():
        own.events.add("by its own")
    own.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
with store.write():
    store.events.add("after")
say(store.is_alive(me))
hear()
store.close()
"""


def test_a_forked_child_must_open_its_own_and_harms_nothing(path: Path, connect: Callable[..., Engine]) -> None:
    with Child(FORK, path) as child:
        child.expect("this connection was opened before a fork; the child must open its own", "True")
        store = connect().store
        assert [event.event for event in store.events.latest(9)] == ["before", "by its own", "after"]
        child.tell()
        assert child.rest() == []


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
    """Closing any other descriptor of the file would drop SQLite's own locks. Only the file's neighbours are ours."""
    if there:
        SqliteStore.open(str(path)).close()
    with Child(AUDIT, os.path.relpath(path)) as child:
        opened = set(child.rest())
    assert opened - {"end"} <= {"drydock.db.lock", "drydock.db.live", "drydock.db.reserve"}
    assert "drydock.db.lock" in opened


def test_a_committed_write_survives_kill_9_of_its_process(path: Path) -> None:
    with Child(
        "from drydock.store.sqlite import SqliteStore\n"
        "store = SqliteStore.open(sys.argv[1])\n"
        "with store.write():\n    store.events.add('kept')\n"
        "store._begin()\nstore.events.add('lost')\nsay('inside')\nhear()",
        path,
    ) as child:
        child.expect("inside")
        child.kill()
    store = SqliteStore.open(str(path))
    with store.write():
        store.events.add("after")
    assert names(store) == ["kept", "after"]
    store.close()
