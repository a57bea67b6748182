"""What `doctor` must know of a PostgreSQL server: what could lose a grant, and what makes grants slow little by little."""

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import quoted
from ..model import Finding
from .base import Row
from .postgres_schema import SCHEMA, VERSION

#: asks the server, outside of any transaction
Ask = Callable[[str, list[Any]], list[Row]]


def findings(ask: Ask, address: str, *, pooled: bool) -> Iterator[Finding]:
    [(version, fsync)] = ask("SELECT current_setting('server_version'), current_setting('fsync')", [])
    yield Finding(False, "store", f"{address} (PostgreSQL {version}), schema {VERSION}")
    if fsync != "on":
        yield Finding(False, "fsync", "fsync is off: a power cut may damage or undo anything")
    if pooled:
        yield Finding(False, "pooler", "behind a pooler nobody can be woken, so who waits looks ten times a second")
    yield from _bloat(ask)
    yield from _long_transactions(ask)


def _bloat(ask: Ask) -> Iterator[Finding]:
    for table, dead, live in ask(
        "SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE schemaname = $1"
        " AND n_dead_tup > 10000 AND n_dead_tup > n_live_tup",
        [SCHEMA],
    ):
        yield Finding(False, "bloat", f"table {table} has {dead} dead rows beside {live}; does autovacuum run?")


def _long_transactions(ask: Ask) -> Iterator[Finding]:
    for user, seconds in ask(
        "SELECT COALESCE(usename::text, ''), EXTRACT(EPOCH FROM clock_timestamp() - xact_start)::float8"
        " FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        " AND xact_start < clock_timestamp() - interval '1 minute'",
        [],
    ):
        sentence = f"a transaction of {quoted(user)} is open for {seconds:.0f}s and keeps dead rows from being removed"
        yield Finding(False, "long-transaction", sentence)
