"""What a test finds where another one was before it."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from databases import TABLES, Databases

import drydock
from drydock.testing.postgres import Server

POOL = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", {"name": "h2", "attributes": {"arch": "arm64"}}]}}}


@pytest.fixture
def databases(postgres: Server) -> Iterator[Databases]:
    with contextlib.closing(Databases(postgres)) as databases:
        yield databases


def content(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        names = [name for (name,) in connection.execute(TABLES)]
        tables = {name: connection.execute(f"SELECT * FROM drydock.{name}".encode()).fetchall() for name in names}
        return tables | {"": connection.execute("SELECT sequencename, last_value FROM pg_sequences").fetchall()}


def use(url: str) -> int:
    with drydock.connect(url) as dock:
        dock.apply(POOL)
        with dock.lease("host", attributes={"arch": "arm64"}, wait=0) as lease:
            return lease.id


def test_a_store_that_a_test_has_used_is_as_new_for_the_next(databases: Databases) -> None:
    url = databases.take()
    before = content(url)
    assert use(url) == 1
    assert content(url) != before
    databases.give_back(url)
    assert databases.take() == url
    assert content(url) == before
    assert use(url) == 1
    databases.give_back(url)


@pytest.mark.parametrize(
    "change",
    ["CREATE TABLE drydock.more (x int)", "DROP TABLE drydock.trait", "DROP SCHEMA drydock CASCADE",
     "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END$$"],
)  # fmt: skip
def test_one_whose_tables_or_settings_were_changed_is_given_to_nobody(databases: Databases, change: str) -> None:
    url = databases.take()
    with psycopg.connect(url) as connection:
        connection.execute(change.encode())
    databases.give_back(url)
    assert databases.take() != url


def test_whoever_is_still_connected_is_thrown_out(databases: Databases) -> None:
    url = databases.take()
    with contextlib.closing(psycopg.connect(url)) as stays:
        databases.give_back(url)
        with pytest.raises(psycopg.OperationalError):
            stays.execute("SELECT 1")
