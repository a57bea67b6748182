"""The tests of suites that lease, with a store on a server, where processes are told from the dead by their heart."""

import secrets
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import test_pytest_plugin as suites
from test_pytest_plugin import Suite, begin, dock, never_two_at_one_thing, suite

from drydock.api import Connection
from drydock.testing.postgres import Server

__all__ = ["begin", "dock", "suite"]
pytest_plugins = ["pytester"]


@pytest.fixture
def store_address(new_postgres_store: Callable[[], str]) -> str:
    return new_postgres_store()


test_a_ttl = suites.test_a_ttl_is_renewed_while_its_test_runs
test_without_a_ttl = suites.test_without_a_ttl_there_is_nobody_who_renews
test_why = suites.test_why_it_is_lost_is_told
test_alone = suites.test_tests_of_several_processes_are_never_at_one_thing_at_once
test_killed = suites.test_a_killed_test_process_gives_back_what_it_held
test_interrupted = suites.test_an_interrupted_run_leaves_nothing


def test_eight_processes_test_on_three_databases_and_leave_none(
    suite: Suite, dock: Connection, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test finds its database as the template is, and nobody else in it."""
    prefix = f"suite_{secrets.token_hex(4)}_"
    pool = {"kind": "postgres-database", "server": postgres.url(), "prefix": prefix, "limit": 3}
    dock.apply({"blueprint": {"testdb": pool}})
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    ran = suite(
        suites.NOTE
        + """
import time
import psycopg
database = lease("database")

@pytest.mark.parametrize("n", range(24))
def test_alone(database, n):
    note(database, "enter")
    while Path(os.environ["NOTES"]).read_text().count("enter") < 3:
        time.sleep(0.01)  # until all three are in use at once
    with psycopg.connect(database.resource.attributes["url"], autocommit=True) as connection:
        here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        assert connection.execute(here).fetchone() == (1,)
        connection.execute("CREATE TABLE mine (n int)")
        connection.execute("INSERT INTO mine VALUES (%s)", [n])
        assert connection.execute("SELECT n FROM mine").fetchall() == [(n,)]
    note(database, "leave")
""",
        "-n",
        "8",
    )
    ran.assert_outcomes(passed=24)
    used = never_two_at_one_thing(tmp_path / "notes")
    assert {name: len(fences) for name, fences in used.items()}.keys() == {f"{prefix}{n}" for n in range(3)}
    assert sum(map(len, used.values())) == 24
    with psycopg.connect(postgres.url()) as connection:
        found = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]
        ).fetchall()
    assert found == []
