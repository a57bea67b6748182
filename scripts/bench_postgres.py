"""The budgets of the PostgreSQL store, each beside what it is compared with, in the same run and turn by turn.

The server is one of our own, with durable commits, in the folder of the bench.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
from bench_fill import fill, fill_pool
from bench_row import Row
from bench_waiting import hand_overs

import drydock
from drydock.moving import copy_store
from drydock.store import open_store
from drydock.testing.postgres import PostgresServer

CLIENTS, HOSTS = 32, 8
CHURNED = 50_000
CHURNERS = 4
#: how many leases are timed at each measure of the old transaction
TIMED = 300


class Stores:
    """Databases on one durable server."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server, self.folder = server, folder

    def pool(self, hosts: int) -> str:
        """A store with so many hosts, each with its resource."""
        url = self.server.new_database()
        fill_pool(url, hosts)
        return url

    def filled(self, bindings: int, finished: int) -> str:
        """A store that has lived: made in SQLite, and moved."""
        path = self.folder / f"filled-{bindings}-{finished}.db"
        fill(path, bindings, finished)
        url = self.server.new_database()
        with closing(open_store(str(path))) as source, closing(open_store(url)) as target:
            copy_store(source, target, freeze=True)
        path.unlink()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        return url


@contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    with PostgresServer(durable=True, where=folder.parent, max_connections=200) as server:
        yield Stores(server, folder)


def handed_over(made: Stores, number: int) -> Iterator[Row]:
    took = sorted(hand_overs(made.pool(1), number))
    yield Row(
        "PostgreSQL, release to the waiter's grant: median", statistics.median(took) * 1000, "ms",
        detail=f"p99 {took[int(len(took) * 0.99)] * 1000:.1f} ms of {len(took)}",
    )  # fmt: skip


def grown(made: Stores, bindings: int, finished: int, rounds: int, cycles: int) -> Iterator[Row]:
    small, large = made.pool(100), made.filled(bindings, finished)
    docks = [drydock.connect(url) for url in (small, large)]
    took: list[list[float]] = [[], []]
    for turn in range(rounds + 2):
        for which in (0, 1) if turn % 2 else (1, 0):
            begun = time.perf_counter()
            for _ in range(cycles):
                docks[which].lease("host", wait=0).release()
            took[which].append((time.perf_counter() - begun) / cycles)
    for dock in docks:
        dock.close()
    ratio = statistics.median(b / a for a, b in zip(took[0][2:], took[1][2:], strict=True))
    detail = f"{statistics.median(took[1]) * 1e6:.0f} us; with 100 and none, {statistics.median(took[0]) * 1e6:.0f} us"
    name = f"PostgreSQL, a lease with {bindings:,} bindings and {finished:,} finished leases"
    yield Row(name, ratio, at_most=1.3, detail=detail)


def beside_an_old_transaction(made: Stores, churned: int) -> Iterator[Row]:
    """Grants while one transaction that began before keeps every dead row, at first and after so many leases."""
    url = made.pool(HOSTS)
    with drydock.connect(url) as dock, psycopg.connect(url) as old:
        before = timed(dock)
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM drydock.lease")
        begun = time.perf_counter()
        churn(url, churned)
        seconds = time.perf_counter() - begun
        after = timed(dock)
        old.rollback()
    detail = f"p99 {after * 1000:.1f} ms; before, {before * 1000:.1f} ms; churned at {churned / seconds:.0f}/s"
    yield Row(
        f"PostgreSQL, p99 of a grant after {churned:,} leases beside an open transaction",
        after / before,
        at_most=5,
        detail=detail,
    )


def timed(dock: drydock.Connection) -> float:
    """The p99 of a grant, in seconds."""
    took = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        lease = dock.lease("host", wait=0)
        took.append(time.perf_counter() - begun)
        lease.release()
    return sorted(took)[int(TIMED * 0.99)]


def churn(url: str, number: int) -> None:
    """Lease and release so often."""

    def work() -> None:
        with drydock.connect(url) as dock:
            for _ in range(number // CHURNERS):
                dock.lease("host").release()

    threads = [threading.Thread(target=work) for _ in range(CHURNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


Measure = Callable[[Stores], Iterator[Row]]


def measures(hand_offs: int, bindings: int, finished: int, rounds: int, cycles: int, quick: bool) -> list[Measure]:
    return [
        partial(handed_over, number=hand_offs),
        partial(grown, bindings=bindings, finished=finished, rounds=rounds, cycles=cycles),
        partial(beside_an_old_transaction, churned=CHURNED // 25 if quick else CHURNED),
    ]
