"""A request that waits does not wait for the disk. When the server crashes it may be forgotten, though who asked lives."""

import json
import os
import signal
import time
from collections.abc import Iterator

import psycopg
import pytest
from conftest import LAB, Cli

import drydock
from drydock.testing.postgres import PostgresServer


@pytest.fixture(scope="module")
def lazy() -> Iterator[PostgresServer]:
    """A server that writes late what is not waited for. It must be one of our own, since it crashes."""
    with PostgresServer(settings={"wal_writer_delay": "10s"}) as server:
        yield server


class Waiting:
    """`drydock lease` in a process that is stopped while nobody else may see what it would do next."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.process = Cli(url).start("lease", "--type", "host", "--json", *arguments)

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> "tuple[str, str]":
        return self.process.communicate(timeout=60)

    def lease(self) -> int:
        out, err = self.end()
        assert self.process.returncode == 0, err
        return int(json.loads(out)["id"])


def ask(url: str, dock: drydock.Connection) -> tuple[Waiting, int]:
    """One more who waits, once he does, and the number of his lease."""
    before = {lease.id for lease in dock.leases()}
    waiting = Waiting(url)
    while not (new := {lease.id for lease in dock.leases()} - before):
        assert waiting.process.poll() is None
        time.sleep(0.01)
    return waiting, new.pop()


def use_up_numbers(url: str) -> None:
    """Until the server must note that it gives more: if that is lost, it will give the same ones once more."""
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT log_cnt FROM drydock.lease_id_seq").fetchone() != (0,):
            connection.execute("SELECT nextval('drydock.lease_id_seq')")


def forget_one(server: PostgresServer, dock: drydock.Connection, url: str, *, number_too: bool) -> tuple[Waiting, int]:
    """One who waits, and is stopped, whose request the server has forgotten in a crash; and the number of his lease."""
    while True:
        early, written = ask(url, dock)
        with dock._engine.store.write():  # with this all that came before is written, and then nothing for a while
            dock._engine.store.events.add("test.written")
        if number_too:
            use_up_numbers(url)
        waiting, number = ask(url, dock)
        waiting.stop()
        server.restart("immediate")
        known = {lease.id for lease in dock.leases()}
        dock.release(written)
        early.end()
        if number not in known:
            return waiting, number
        waiting.go_on()
        dock.release(number)
        waiting.end()


@pytest.mark.parametrize("number_too", [False, True], ids=["is gone", "is another's"])
def test_a_request_that_was_forgotten_asks_again_and_takes_nothing_of_whoever_has_its_number(
    lazy: PostgresServer, number_too: bool
) -> None:
    url = lazy.new_database()
    with drydock.connect(url) as dock:
        dock.apply(LAB)
        held = dock.lease("host")
        forgotten, number = forget_one(lazy, dock, url, number_too=number_too)
        other, others = ask(url, dock)
        assert (others == number) == number_too
        forgotten.go_on()
        deadline = time.monotonic() + 30
        while len(dock.leases()) < 3:
            assert forgotten.process.poll() is None
            assert time.monotonic() < deadline, "it does not ask again"
            time.sleep(0.01)
        held.release()
        assert other.lease() == others
        assert forgotten.process.poll() is None
        dock.release(others)
        assert forgotten.lease() not in (number, others)
        for lease in dock.leases():
            dock.release(lease.id)


def test_a_forgotten_request_that_is_given_up_takes_nothing_from_whoever_has_its_number(lazy: PostgresServer) -> None:
    url = lazy.new_database()
    with drydock.connect(url) as dock:
        dock.apply(LAB)
        held = dock.lease("host")
        forgotten, number = forget_one(lazy, dock, url, number_too=True)
        other, others = ask(url, dock)
        assert others == number
        held.release()
        assert other.lease() == others
        forgotten.process.send_signal(signal.SIGINT)
        forgotten.go_on()
        forgotten.end()
        assert [lease.id for lease in dock.leases()] == [others]
        dock.release(others)
