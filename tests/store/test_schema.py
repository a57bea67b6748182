"""The tables: made by numbered migrations, all at once or not at all, by however many processes come first."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LAB, Cli, apply
from old_stores import make_schema_1
from sqlite_utils import Database

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import NothingFree, StoreDamaged
from drydock.model import Demand, Finding, Lease
from drydock.store import schema, sqlite
from drydock.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore
from drydock.testing.children import Child, run_together

pytestmark = pytest.mark.usefixtures("path")

OURS = {"store", "source", "blueprint", "shape", "binding", "trait", "resource", "lease", "slot_lock", "event"}


def look(path: Path, statement: str) -> list[Any]:
    """What the database file says, through a connection of its own."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_the_schema_version_is_the_number_of_migrations(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert len(schema.migrations.applied(Database(connection))) == SCHEMA_VERSION
        assert not schema.migrations.pending(Database(connection))
    assert look(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert look(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


def test_every_table_of_ours_is_strict(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    strict = {name: bool(strict) for _, name, _, _, _, strict in look(path, "PRAGMA table_list")}
    assert strict.keys() - {"_sqlite_migrations", "sqlite_schema", "sqlite_temp_schema", "sqlite_sequence"} >= OURS
    assert all(strict[name] for name in OURS)


#: for each question that a lease, a release or a look after the store asks, the index that answers it
ANSWERED_BY = {
    "resource_room", "binding_free", "binding_slot_lock", "binding_resource", "lease_queue", "lease_process", "lease_moving",
    "lease_until", "lease_deadline", "resource_moving", "resource_closed", "resource_resting", "resource_until",
    "resource_ttl",
}  # fmt: skip


def test_a_lease_and_its_release_find_all_by_index(engine: Engine) -> None:
    """The cost of a lease does not grow with the pool, with what is over, or with the locks that are held."""
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}})
    engine.release(engine.lease(Demand("host"), owner="t", wait_seconds=0)[0].id)
    seen: list[str] = []
    connection = engine.store.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(seen.append)
    leases = [engine.lease(Demand("host"), owner="t", wait_seconds=0)[0] for _ in range(2)]
    for lease in leases:
        engine.release(lease.id)
    engine.tend()
    engine.release_resource(1)
    connection.set_trace_callback(None)
    # What an INSERT would look up for foreign keys is looked up only when there are violations already.
    statements = {s for s in seen if s.split()[0] in ("SELECT", "UPDATE", "DELETE", "WITH")}
    steps = {step for s in statements for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {s}")}
    used = {index for step in steps for index in re.findall(r"USING (?:COVERING )?INDEX (\w+)", step)}
    assert used >= ANSWERED_BY
    # These hold nothing but answers, so walking through one is no search.
    allowed = {
        f"SCAN {table} USING {how} {table}_{of}"
        for table, of in (("resource", "moving"), ("resource", "closed"), ("lease", "queue"), ("lease", "moving"))
        for how in ("INDEX", "COVERING INDEX")
    }
    allowed.add("SCAN blueprint")  # as many as a person wrote into a pool file
    assert [s for s in steps - allowed if re.match("SCAN (?!slot|CONSTANT)", s) and "VIRTUAL TABLE" not in s] == []


def test_opening_again_changes_nothing(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    before = look(path, "SELECT type, name, sql FROM sqlite_schema")
    SqliteStore.open(str(path)).close()
    assert look(path, "SELECT type, name, sql FROM sqlite_schema") == before


# ---- half-way


def test_a_migration_that_fails_leaves_an_empty_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(schema, "FIRST_TABLES", schema.FIRST_TABLES + "CREATE TABLE store (x);\n")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            SqliteStore.open(str(path))
    assert look(path, "SELECT name FROM sqlite_schema") == []
    assert look(path, "PRAGMA user_version") == [(0,)]
    assert look(path, "PRAGMA application_id") == [(0,)]
    SqliteStore.open(str(path)).close()
    assert look(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """From now on Drydock knows one more migration."""

    def newer(migration: Callable[[Any], None]) -> None:
        known = schema.migrations._migrations
        monkeypatch.setattr(schema.migrations, "_migrations", [*known])
        schema.migrations(name="one_more")(migration)
        monkeypatch.setattr(sqlite, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    return newer


def test_a_store_of_the_version_before_is_brought_up_to_date(
    path: Path, engine: Engine, newer: Callable[[Callable[[Any], None]], None]
) -> None:
    apply(engine, LAB)
    engine.store.close()
    newer(lambda db: db.conn.execute("ALTER TABLE lease ADD COLUMN mood TEXT"))
    SqliteStore.open(str(path)).close()
    assert look(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    assert look(path, "SELECT mood FROM lease") == []
    assert look(path, "SELECT name FROM blueprint") == [("lab",)]


def test_a_later_migration_that_fails_leaves_the_old_schema(
    path: Path, engine: Engine, newer: Callable[[Callable[[Any], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(engine, LAB)
    engine.store.close()
    before = look(path, "SELECT name, sql FROM sqlite_schema ORDER BY name")

    def fail(db: Any) -> None:
        db.conn.execute("ALTER TABLE lease ADD COLUMN mood TEXT")
        raise RuntimeError("half-way")

    newer(fail)
    with pytest.raises(RuntimeError, match="half-way"):
        SqliteStore.open(str(path))
    monkeypatch.undo()
    assert look(path, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before
    again = SqliteStore.open(str(path))
    assert [b.name for b in again.offers.blueprints()] == ["lab"]
    again.close()


# ---- the version before


@pytest.fixture
def old(path: Path, tmp_path: Path) -> Path:
    """A store that the version before left behind."""
    make_schema_1(path, tmp_path / "scratch")
    return path


def broken(engine: Engine) -> list[Finding]:
    return [finding for finding in examine(engine.store) if finding.broken]


def hold(engine: Engine, type: str = "host") -> Lease:
    [lease] = engine.lease(Demand(type), owner="new", wait_seconds=0)
    return lease


def test_an_old_store_becomes_what_a_new_one_is(old: Path, tmp_path: Path) -> None:
    SqliteStore.open(str(old)).close()
    SqliteStore.open(str(tmp_path / "new.db")).close()
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    assert look(old, schema) == look(tmp_path / "new.db", schema)
    assert look(old, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert look(old, "PRAGMA integrity_check") == [("ok",)]


def test_what_an_old_store_says_of_the_past_and_the_present_is_kept(old: Path, connect: Callable[..., Engine]) -> None:
    columns = "id, status, type, owner, resource, slot_locks, fence, process, created_at, granted_at, ended_at, reason"
    tables = ("event", "slot_lock", "binding", "settings", "shape", "store")
    kept = {table: ", ".join(name for _, name, *_ in look(old, f"PRAGMA table_info({table})")) for table in tables}
    before = [look(old, f"SELECT {kept[table]} FROM {table} ORDER BY 1") for table in tables]
    leases = look(old, f"SELECT {columns} FROM lease ORDER BY id")
    engine = connect()
    assert [look(old, f"SELECT {kept[table]} FROM {table} ORDER BY 1") for table in tables] == before
    assert look(old, f"SELECT {columns} FROM lease ORDER BY id") == leases
    live = {lease.id: lease for lease in engine.store.leases.live()}
    assert {id: lease.status.value for id, lease in live.items()} == {
        2: "active", 3: "active", 4: "active", 5: "pending", 6: "pending",
    }  # fmt: skip
    assert [lease.resource.name for lease in live.values() if lease.resource] == ["h1", "h2", "scratch-0"]
    assert [engine.seconds_left(id) for id in (2, 3, 4)] == [None, None, None]
    assert {(b.name, b.cooldown, b.lifetime, b.ttl) for b in engine.store.offers.blueprints()} == {
        ("lab", 0.0, None, None), ("tmp", 0.0, None, None),
    }  # fmt: skip


def test_leases_of_an_old_store_are_verified_and_given_back(
    old: Path, tmp_path: Path, connect: Callable[..., Engine]
) -> None:
    """The requests whose processes are gone go, the leases stay until they are released; all that ran on goes on."""
    engine = connect()
    assert engine.tend()
    assert [lease.id for lease in engine.store.leases.live()] == [2, 3, 4]
    assert engine.verify(2, fence=2).owner == "old"
    engine.renew(3, ttl=60)
    assert (engine.release(2), engine.release(3), engine.release(4)) == (True, True, True)
    assert not engine.release(1)
    lease = hold(engine)
    assert (lease.id, lease.fence, lease.resource and lease.resource.name) == (7, 3, "h1")
    assert hold(engine, "scratch-dir").resource is not None
    engine.release_resource(3)
    assert not (tmp_path / "scratch" / "scratch-0").exists()
    assert broken(engine) == []


def test_requests_of_an_old_store_are_served_in_their_order(old: Path, connect: Callable[..., Engine]) -> None:
    """They come before all that ask now, and a process that waits for one is told."""
    waiting, engine = connect(), connect()
    with waiting.store.write():
        waiting.store.leases.bind(5, waiting.store.process)
        waiting.store.leases.bind(6, waiting.store.process)
    waiting.store.listen()
    engine.tend()
    engine.release(3)
    assert waiting.store.wait_for_news(0)
    with pytest.raises(NothingFree):
        hold(engine)
    engine.release(2)
    granted = [waiting.store.leases.get(id) for id in (5, 6)]
    assert [lease and lease.resource and lease.resource.name for lease in granted] == ["h2", "h1"]
    assert [lease and lease.fence for lease in granted] == [2, 3]
    assert broken(engine) == []


@pytest.mark.parametrize("forget", ["DELETE FROM lease", "DELETE FROM lease WHERE id > 4"])
def test_no_number_of_an_old_lease_is_given_to_another(old: Path, connect: Callable[..., Engine], forget: str) -> None:
    """Also when the rows were forgotten, all of them or the last."""
    with contextlib.closing(sqlite3.connect(old)) as connection, connection:
        connection.execute(forget)
        connection.execute("UPDATE resource SET used = 0, status = 'destroyed'")
        connection.execute("UPDATE binding SET resource = NULL")
        connection.execute("UPDATE blueprint SET live = 0")
        connection.execute("DELETE FROM slot_lock")
    assert hold(connect()).id == 7


def test_processes_that_meet_an_old_store_at_once_bring_it_up_to_date_once(old: Path) -> None:
    assert run_together([Child(MAKE, old, number) for number in range(4)]) == [[], [], [], []]
    assert look(old, "SELECT count(*) FROM _sqlite_migrations") == [(SCHEMA_VERSION,)]
    assert look(old, "SELECT count(*) FROM event WHERE event = 'came'") == [(4,)]


def test_reading_an_old_store_changes_nothing_and_says_what_to_do(old: Path, cli: Cli) -> None:
    told = cli("doctor")
    assert told.returncode == 8
    assert told.stderr == (
        f'drydock: "{old}" has schema 1, this drydock uses {SCHEMA_VERSION}; bring it up to date with: drydock leases\n'
    )
    assert look(old, "PRAGMA user_version") == [(1,)]
    assert [lease["id"] for lease in cli("leases", "--json").objects] == [2, 3, 4]
    assert cli("doctor").returncode == 0


# ---- who comes first

MAKE = """
from drydock.store.sqlite import SqliteStore
say("ready")
hear()
store = SqliteStore.open(sys.argv[1])
with store.write():
    store.events.add("came", n=int(sys.argv[2]))
store.close()
"""


def test_processes_that_make_the_store_at_once_all_succeed(path: Path) -> None:
    children = [Child(MAKE, path, number) for number in range(4)]
    assert run_together(children) == [[], [], [], []]
    assert sorted(look(path, "SELECT data FROM event")) == [(f'{{"n": {n}}}',) for n in range(4)]
    assert look(path, "SELECT count(*) FROM _sqlite_migrations") == [(SCHEMA_VERSION,)]


TRACE = """
import sqlite3
from drydock.store.sqlite import SqliteStore

connect = sqlite3.connect

def tracing(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(lambda statement: say(" ".join(statement.split())[:60]))
    return connection

sqlite3.connect = tracing
SqliteStore.open(sys.argv[1]).close()
"""


def test_a_migration_is_one_immediate_transaction(path: Path) -> None:
    with Child(TRACE, path) as child:
        said = child.rest()
    begins = [n for n, line in enumerate(said) if line.startswith("BEGIN")]
    assert [said[n] for n in begins] == ["BEGIN IMMEDIATE"]
    inside = said[begins[0] : said.index("COMMIT")]
    changes = [line for line in said if line.startswith(("CREATE", "INSERT", "PRAGMA user_version =", "PRAGMA app"))]
    assert len([line for line in changes if line.startswith("CREATE")]) > len(OURS)
    assert [line for line in changes if "=" in line and line not in inside] == []
    assert [line for line in changes if line.startswith(("CREATE", "INSERT")) and line not in inside] == []


# ---- another version, another program


@pytest.mark.parametrize(
    ("pragma", "sentence"),
    [(f"user_version = {SCHEMA_VERSION + 1}", "upgrade drydock"), ("user_version = 0", "cannot use")],
)
def test_the_version_is_checked_inside_every_writing_transaction(
    path: Path, engine: Engine, pragma: str, sentence: str
) -> None:
    """Another process may have upgraded the schema since this one opened it."""
    apply(engine, LAB)
    seen: list[str] = []
    connection = engine.store.connection  # type: ignore[attr-defined]
    look(path, f"PRAGMA {pragma}")
    connection.set_trace_callback(seen.append)
    with pytest.raises(StoreDamaged, match=sentence):
        engine.lease(Demand("host"), owner="t", wait_seconds=0)
    connection.set_trace_callback(None)
    whole = [statement for statement in seen if not statement.startswith("--")]
    begun = whole[whole.index("BEGIN IMMEDIATE") :]
    assert {statement.split()[0] for statement in begun[1 : begun.index("ROLLBACK")]} == {"PRAGMA"}
    # What follows tries to give back what was asked for, and gets no further.
    assert {statement.split()[0] for statement in begun} == {"BEGIN", "PRAGMA", "ROLLBACK"}
    assert look(path, "SELECT count(*) FROM lease") == [(0,)]
    with pytest.raises(StoreDamaged, match=sentence):
        SqliteStore.open(str(path))
