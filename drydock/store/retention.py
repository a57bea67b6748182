"""Old rows, found by walking ids from the oldest: nothing that is asked while a lease is granted needs an index for it.

Rows are looked at in small windows. Only what is over and old is dropped; its id is never given again. Rows with larger
ids were made later, so where they become young the walk ends; but a row from the future, which a clock left there that
was wrong, says nothing of those that follow.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .base import Store

#: for each table: since when a row is there, and whether it is over and old
TABLES = {
    "event": ("at", "at <= :before"),
    "lease": ("created_at", "status = 'destroyed' AND COALESCE(ended_at, created_at) <= :before"),
    # Those that ended before the column was there have been idle for at least as long.
    "resource": ("created_at", "status = 'destroyed' AND COALESCE(ended_at, idle_since) <= :before"),
}


class Window(NamedTuple):
    """Some rows of a table that follow one another."""

    last: int  #: id of the last of them
    old: bool  #: one of them can be dropped


class Retention:
    def __init__(self, store: "Store") -> None:
        self._store = store

    def is_young(self, table: str, after: int, before: float) -> bool:
        """Whether no row that follows id `after` was there already at the moment `before`."""
        since, _ = TABLES[table]
        row = self._store.row(
            f"SELECT {since} > :before AND {since} <= :now FROM {table} WHERE id > :after ORDER BY id LIMIT 1",
            after=after,
            before=before,
            now=self._store.clock(),
        )
        return row is None or bool(row[0])

    def window(self, table: str, after: int, before: float, most: int) -> Window:
        """Look at the `most` rows that follow id `after`."""
        _, old = TABLES[table]
        rows = self._store.rows(
            f"SELECT id, {old} FROM {table} WHERE id > :after ORDER BY id LIMIT :most",
            after=after,
            before=before,
            most=most,
        )
        if not rows:
            return Window(after, old=False)
        return Window(rows[-1][0], any(old for _, old in rows))

    def drop(self, table: str, after: int, last: int, before: float) -> None:
        """Drop what is over and old of the rows that follow `after`, up to `last`."""
        _, old = TABLES[table]
        self._store.run(
            f"DELETE FROM {table} WHERE id > :after AND id <= :last AND {old}", after=after, last=last, before=before
        )
