"""The tables: made by numbered migrations, all at once or not at all, by however many processes come first."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import Child, run_together
from conftest import LAB, apply
from sqlite_utils import Database

from drydock.engine import Engine
from drydock.errors import StoreDamaged
from drydock.model import Demand
from drydock.store import schema, sqlite
from drydock.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore

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


#: for each question that a lease or a release asks, the index that answers it
ANSWERED_BY = {
    "resource_room", "binding_free", "binding_slot_lock", "binding_resource", "lease_unsettled", "lease_process",
    "resource_moving", "resource_closed",
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
        f"SCAN {table} USING INDEX {table}_{of}" for table, of in (("resource", "moving"), ("lease", "unsettled"))
    }
    allowed |= {"SCAN resource USING COVERING INDEX resource_closed", "SCAN resource USING INDEX resource_closed"}
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
    [("user_version = 2", "upgrade drydock"), ("user_version = 0", "cannot use"),
     ("application_id = 7", "not a drydock store")],
)  # fmt: skip
def test_identity_and_version_are_checked_inside_every_writing_transaction(
    path: Path, engine: Engine, pragma: str, sentence: str
) -> None:
    """Another process may have upgraded or replaced the schema since this one opened it."""
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
    assert {statement.split()[0] for statement in begun[1:-1]} == {"PRAGMA"}
    assert begun[-1] == "ROLLBACK"
    assert look(path, "SELECT count(*) FROM lease") == [(0,)]
    with pytest.raises(StoreDamaged, match=sentence):
        SqliteStore.open(str(path))
