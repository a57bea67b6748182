"""The poolers that the store is tested behind do what a pooler in transaction mode does."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from pooler import Pooler

from drydock.errors import StoreError
from drydock.testing import pgbouncer
from drydock.testing.postgres import PostgresServer

#: The second is there where the system has it; the first is the same on every machine.
POOLERS = [Pooler, *([pgbouncer.Pgbouncer] if pgbouncer.program() else [])]

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(durable=False) as server:
        yield server


@pytest.fixture(params=POOLERS)
def connect(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Connect]:
    """Open one more connection to a fresh database, through a pooler that has two of the server."""
    database = urlsplit(server.new_database()).path[1:]
    with request.param(server.url(), size=2) as pooler, contextlib.ExitStack() as opened:

        def connect(**options: Any) -> Connection:
            return opened.enter_context(
                contextlib.closing(psycopg.connect(pooler.url(database), autocommit=True, **options))
            )

        yield connect


def ask(connection: Connection, question: str) -> Any:
    row = connection.execute(question).fetchone()
    assert row is not None
    return row[0]


def backend(connection: Connection) -> int:
    return int(ask(connection, "SELECT pg_backend_pid()"))


def test_three_clients_share_two_connections_and_a_transaction_stays_on_its_own(connect: Connect) -> None:
    first, second, third = connect(), connect(), connect()
    with first.transaction(), second.transaction():
        one, two = backend(first), backend(second)
        assert one != two
        assert (backend(first), backend(second)) == (one, two)
    assert backend(third) in (one, two)


def test_a_client_that_finds_none_free_is_served_after_a_transaction_has_ended(connect: Connect) -> None:
    first, second, third = connect(), connect(), connect()
    first.execute("CREATE TABLE t (n int)")
    with ThreadPoolExecutor() as threads, second.transaction():
        backend(second)
        with first.transaction():
            first.execute("INSERT INTO t VALUES (1)")
            count = threads.submit(ask, third, "SELECT count(*) FROM t")
        assert count.result(60) == 1
        assert ask(third, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 2


def test_the_client_is_told_of_a_backend_that_is_not_its_own(connect: Connect) -> None:
    """This is how a client can know that it is behind a pooler."""
    connection = connect()
    assert connection.info.backend_pid != backend(connection)


def test_what_one_leaves_in_a_session_another_finds(connect: Connect) -> None:
    first, second = connect(), connect()
    first.execute("SET drydock.mark = 'left'")
    assert "left" in [ask(second, "SELECT current_setting('drydock.mark', true)") for _ in range(2)]


def test_who_goes_in_the_midst_of_a_transaction_leaves_nothing_done_and_no_place_taken(connect: Connect) -> None:
    last = connect()
    last.execute("CREATE TABLE t (n int)")
    for _ in range(3):
        gone = connect()
        gone.execute("BEGIN")
        gone.execute("INSERT INTO t VALUES (1)")
        gone.close()
    assert ask(last, "SELECT count(*) FROM t") == 0


def test_a_transaction_that_failed_keeps_its_connection_until_it_is_rolled_back(connect: Connect) -> None:
    first, second = connect(), connect()
    with contextlib.suppress(psycopg.errors.DivisionByZero), first.transaction():
        failed = backend(first)
        try:
            first.execute("SELECT 1 / 0")
        finally:
            assert first.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
            assert {backend(second) for _ in range(3)}.isdisjoint({failed})
    assert ask(first, "SELECT 1") == 1


def test_several_questions_at_once_are_all_answered(connect: Connect) -> None:
    connection = connect()
    with connection.pipeline() as pipeline:
        cursors = []
        for n in range(5):
            cursors.append(connection.execute("SELECT %s::int", [n]))
            pipeline.sync()
    assert [cursor.fetchall() for cursor in cursors] == [[(n,)] for n in range(5)]


def test_a_start_with_options_is_refused(connect: Connect) -> None:
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        connect(options="-c lock_timeout=1000")


def test_a_database_that_is_not_there_is_refused_in_the_servers_words(server: PostgresServer) -> None:
    with Pooler(server.url()) as pooler, pytest.raises(psycopg.OperationalError, match='"nowhere" does not exist'):
        psycopg.connect(pooler.url("nowhere"))


def test_a_stopped_server_ends_its_clients_and_a_started_one_serves_new_ones(
    connect: Connect, server: PostgresServer
) -> None:
    waiting, working = connect(), connect()
    with contextlib.suppress(psycopg.OperationalError), working.transaction():
        before = backend(working)
        server.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            backend(working)
    waiting.close()
    assert backend(connect()) != before


def test_a_system_without_pgbouncer_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbouncer, "program", lambda: None)
    with pytest.raises(StoreError, match="pgbouncer is not there: install it"):
        pgbouncer.Pgbouncer("postgresql:///")
