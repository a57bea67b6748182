"""Each verb, with its connection cut before each of its statements, and at each commit after the server has done it.

Whatever was cut, the verb does its work, once: what was undone is done again, and what was kept is found to be.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import drydock
from drydock.doctor import examine
from drydock.store import postgres as dialect

HOSTS = ["h1", "h2"]


class Scissors:
    """Cut the connection of this thread, once, at the statement of this number."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._me, self._number, self._at, self._answered = threading.get_ident(), 0, 0, True
        self._execute = dialect.Connection.execute
        self._watching = psycopg.connect(url, autocommit=True)
        scissors = self

        def execute(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != scissors._me:
                return scissors._execute(connection, query, *arguments, **options)
            return scissors._pass(connection, query, *arguments, **options)

        monkeypatch.setattr(dialect.Connection, "execute", execute)

    def each(self, *, only_commits: bool) -> Iterator[int]:
        """Once for every statement of what the block does: before it is sent, or, if it is a commit, when it is done."""
        self._at, self._answered = 0, not only_commits
        while self._number >= self._at:
            self._at, self._number = self._at + 1, 0
            yield self._at
        self._at = 0

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """What the block does is not counted."""
        kept, self._at = (self._number, self._at), 0
        yield
        self._number, self._at = kept

    def close(self) -> None:
        self._watching.close()

    def _pass(self, connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        commits = query == "COMMIT"
        counts = self._at > 0 and (self._answered or commits)
        self._number += counts
        if not counts or self._number != self._at:
            return self._execute(connection, query, *arguments, **options)
        if self._answered:
            _cut(connection)
        done = None
        if not self._answered:
            [(transaction,)] = self._execute(connection, "SELECT pg_current_xact_id_if_assigned()::text").fetchall()
            done = self._execute(connection, query, *arguments, **options)
            connection.pgconn.send_flush_request()
            connection.pgconn.flush()
            while transaction and self._status(transaction) == "in progress":
                time.sleep(0.001)
            _cut(connection)
            return done
        return self._execute(connection, query, *arguments, **options)

    def _status(self, transaction: str) -> str:
        [status] = self._watching.execute("SELECT pg_xact_status(%s::xid8)", [transaction]).fetchone() or [""]
        return str(status)


def _cut(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def scissors(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scissors]:
    scissors = Scissors(postgres_url, monkeypatch)
    yield scissors
    scissors.close()


def lease(dock: drydock.Connection, prepared: Any) -> None:
    held = dock.lease("host", wait=0)
    assert [(one.id, one.fence) for one in dock.leases()] == [(held.id, held.fence)]


def two(dock: drydock.Connection, prepared: Any) -> None:
    held = dock.lease("host", wait=0, count=2, detach=True)
    assert isinstance(held, drydock.api.Leases)
    assert [one.id for one in dock.leases()] == [one.id for one in held]


def release(dock: drydock.Connection, prepared: Any) -> None:
    assert prepared.release() is True
    assert dock.leases() == []


def renew(dock: drydock.Connection, prepared: Any) -> None:
    prepared.renew()
    prepared.verify()
    assert [one.id for one in dock.leases()] == [prepared.id]


def release_resource(dock: drydock.Connection, prepared: Any) -> None:
    assert dock._engine.release_resource(prepared.resource.id) is True
    assert [dock.leases(), dock.resources()] == [[], []]


def reclaim(dock: drydock.Connection, prepared: Any) -> None:
    prepared.release()
    dock._engine.reclaim()
    assert dock.resources() == []


VERBS = [lease, two, release, renew, release_resource, reclaim]


@pytest.mark.parametrize("only_commits", [False, True], ids=["before it is sent", "after it is done"])
@pytest.mark.parametrize("verb", VERBS, ids=[verb.__name__ for verb in VERBS])
def test_a_verb_whose_connection_is_cut_anywhere_does_its_work_once(
    postgres_url: str, scissors: Scissors, verb: Callable[[drydock.Connection, Any], None], only_commits: bool
) -> None:
    with drydock.connect(postgres_url) as dock:
        dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS, "grace": "0s"}}})
        passes = []
        for number in scissors.each(only_commits=only_commits):
            passes.append(number)
            with scissors.at_rest():
                for left in dock.leases():
                    dock.release(left.id)
                prepared = None if verb in (lease, two) else dock.lease("host", wait=0)
            verb(dock, prepared)
            with scissors.at_rest():
                assert [finding.sentence for finding in examine(dock._engine.store) if finding.broken] == []
        assert len(passes) > 1  # and in the last, nothing was cut
        for left in dock.leases():
            dock.release(left.id)
