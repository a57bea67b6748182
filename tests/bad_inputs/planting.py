"""Writing into a store behind Drydock's back."""

import sqlite3
from pathlib import Path


def plant(store: Path, *statements: str) -> None:
    """Run statements that no rule of the schema may refuse."""
    connection = sqlite3.connect(store, isolation_level=None)
    try:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()


def copy_of(table: str, where: str, **changes: str) -> str:
    """A statement that inserts a copy of a row, its id new and some columns changed."""
    columns = COLUMNS[table]
    values = ", ".join(changes.get(column, column) for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {where}"


COLUMNS = {
    "resource": (
        "blueprint", "binding", "shape", "name", "type", "status", "attributes", "slot_locks", "lease_locks", "seats",
        "used", "open", "fence", "built_for", "reclaimed_for", "worker", "not_before", "created_at", "idle_since",
    ),
    "lease": (
        "status", "type", "blueprints", "owner", "priority", "attributes", "turn", "warned", "resource", "slot_locks", "fence", "until",
        "ttl", "process", "worker", "not_before", "failures", "created_at", "granted_at", "ended_at", "reason",
    ),
}  # fmt: skip
