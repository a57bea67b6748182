"""A session with a PostgreSQL server: how long it waits for an answer, and the settings under which it works."""

import logging
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.types.numeric import FloatDumper, Int8Dumper
from psycopg.types.string import StrDumper

from .base import Row
from .postgres_address import connection_string
from .postgres_schema import SCHEMA

# What it would warn of, such as a pipeline that a lost connection has ended, is told by the error that it raises.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Answer = TypeVar("Answer")

#: a statement that the server itself would have ended by now is not answered any more
STATEMENT_SECONDS = 30.0
ANSWER_SECONDS = 5.0
#: who was stopped inside a transaction is put out of it, by the server or by who has waited for so long
IDLE_SECONDS = 5.0

_SETTINGS = {
    "search_path": SCHEMA,
    "lock_timeout": f"{IDLE_SECONDS:.0f}s",
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:.0f}s",
    # The queue is short when statistics are taken, and long when it matters, and so is what is dead: plans must not rest
    # on their length. Whatever stops at the first row that it finds walks along the index that has the order.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    # What is planned once need not be planned five times more before the server believes it: no plan rests on a value.
    "plan_cache_mode": "force_generic_plan",
}
#: the server finds out that a wire is dead, and ends what was open there
_KEEP_ALIVE = (
    b"SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),"
    b" set_config('tcp_keepalives_count', '3', false)"
)


class Connection(psycopg.Connection[Row]):
    """A connection that does not wait for ever for a server, or a pooler, that keeps the line open and says nothing."""

    patience_seconds: Callable[[], float] = staticmethod(lambda: STATEMENT_SECONDS)

    @classmethod
    def to(cls, url: str, patience_seconds: Callable[[], float]) -> "Connection":
        """A new one, whose statements are answered within `patience_seconds`. Raises `ConfigError` for a URL that cannot
        be meant."""
        connection = cls.connect(connection_string(url), autocommit=True, cursor_factory=psycopg.RawCursor)
        connection.patience_seconds = patience_seconds
        for kind, dumper in ((str, StrDumper), (int, Int8Dumper), (float, FloatDumper)):
            connection.adapters.register_dumper(kind, dumper)
        return connection

    def set_up(self, *, transaction: bool = False) -> None:
        """Work under our settings from now on; with `transaction`, until that ends, and nothing stays on the session."""
        texts = (f"set_config('{name}', ${number}, {transaction})" for number, name in enumerate(_SETTINGS, 1))
        self.execute(f"SELECT {', '.join(texts)}".encode(), list(_SETTINGS.values()))
        if not transaction:
            self.execute(_KEEP_ALIVE)

    def wait(self, gen: "PQGen[Answer]", interval: float = 0.1, timeout: float | None = None) -> "Answer":
        try:
            return super().wait(gen, interval, self.patience_seconds() + ANSWER_SECONDS if timeout is None else timeout)
        except _WaitTimeout as silence:
            self.close()
            raise psycopg.OperationalError("no answer") from silence
