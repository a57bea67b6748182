"""Databases with an empty store, each used by one test after another.

A database of its own for each test would take longer than most tests do: making it copies a thousand files.
"""

import time

import psycopg

from drydock.store import open_store
from drydock.testing.postgres import Server

#: others whose connection to this database is not yet gone
OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'drydock'::regnamespace AND relkind = 'r' ORDER BY relname"
#: what a test may have left besides rows: it cannot be taken back one by one
CHANGED = (
    "SELECT 1 FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database()"
)


class Databases:
    """`take` one, and `give_back` what was taken."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[str] = []
        self._tables: list[tuple[str]] = []

    def take(self) -> str:
        """The URL of a database with a store that nobody has used."""
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, url: str) -> None:
        """Nobody uses it any more; whoever is still connected is thrown out."""
        if self._is_emptied(url):
            self._idle.append(url)
        else:
            self._server.drop_database(url)

    def close(self) -> None:
        for url in self._idle:
            self._server.drop_database(url)

    def _make(self) -> str:
        url = self._server.new_database()
        open_store(url).close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA made; CREATE TABLE made.store AS SELECT * FROM drydock.store")
            self._tables = connection.execute(TABLES).fetchall()
        return url

    def _is_emptied(self, url: str) -> bool:
        """Whether the store is as new again."""
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while connection.execute(OTHERS).fetchall():
                    time.sleep(0.001)
                if connection.execute(TABLES).fetchall() != self._tables or connection.execute(CHANGED).fetchall():
                    return False
                # In one statement, since rows refer to one another.
                parts = [f"{name}_ AS (DELETE FROM drydock.{name})" for (name,) in self._tables]
                connection.execute(f"WITH {', '.join(parts)} SELECT 1".encode())
                connection.execute(
                    "INSERT INTO drydock.store SELECT * FROM made.store;"
                    " SELECT setval(format('drydock.%I', sequencename), start_value, false) FROM pg_sequences"
                    " WHERE schemaname = 'drydock'"
                )
        except psycopg.Error:
            return False
        return True
