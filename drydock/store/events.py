"""The history: every decision, once, in the order in which it was committed."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..model import Event
from .records import check_moments, check_texts, pairs, reads

if TYPE_CHECKING:
    from .base import Store

NAMES_RECORDED = 20
_encode = json.JSONEncoder().encode

_COLUMNS = "id, at, event, lease, resource, blueprint, data"


class Events:
    def __init__(self, store: "Store") -> None:
        self._store = store
        #: with a list here, what this connection has recorded is added to it once it is committed
        self.heard: list[Event] | None = None
        #: the same, of the transaction that is open
        self.uncommitted: list[Event] = []

    def add(
        self,
        event: str,
        *,
        lease: int | None = None,
        resource: int | None = None,
        blueprint: str | None = None,
        **data: Any,
    ) -> None:
        """Record one line. It is part of the transaction that is open."""
        now = self._store.clock()
        statement = (
            "INSERT INTO event (at, event, lease, resource, blueprint, data)"
            " VALUES (:at, :event, :lease, :resource, :blueprint, :data)"
        )
        row = {"at": now, "event": event, "lease": lease, "resource": resource, "blueprint": blueprint,
               "data": _encode(data) if data else "{}"}  # fmt: skip
        if self.heard is None:
            self._store.run(statement, **row)
            return
        [(id,)] = self._store.rows(f"{statement} RETURNING id", **row)
        self.uncommitted.append(Event(id, now, event, lease, resource, blueprint, data))

    def add_names(self, event: str, blueprint: str | None, names: Sequence[str]) -> None:
        """Record what befell things of these names, in one line, if there are any: a pool of 100,000 needs no 100,000."""
        if names:
            self.add(event, blueprint=blueprint, names=names[:NAMES_RECORDED], count=len(names))

    def last(self) -> int:
        """The number of the newest event; 0 when there is none."""
        row = self._store.row("SELECT max(id) FROM event")
        return (row[0] if row else None) or 0

    def latest(self, most: int, *, event: str | None = None) -> list[Event]:
        """The newest `most` events, oldest of them first; with `event`, only those of that name."""
        where = "WHERE event = :event " if event else ""
        parameters = {"event": event} if event else {}
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM event {where}ORDER BY id DESC LIMIT :most", most=most, **parameters
        )
        return self._store.records(reversed(rows), _event)

    def after(self, id: int, most: int = 1000) -> list[Event]:
        """Up to `most` events that follow event `id`, oldest first."""
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM event WHERE id > :id ORDER BY id LIMIT :most", id=id, most=most
        )
        return self._store.records(rows, _event)

    def of_lease(self, lease: int, most: int) -> list[Event]:
        """The newest `most` events about a lease, oldest of them first."""
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM event WHERE lease = :lease ORDER BY id DESC LIMIT :most",
            lease=lease,
            most=most,
        )
        return self._store.records(reversed(rows), _event)

    def of_resource(self, resource: int, most: int) -> list[Event]:
        """The newest `most` events about a resource itself, whichever lease caused them, oldest of them first."""
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM event WHERE resource = :resource AND substr(event, 1, 9) = 'resource.'"
            " ORDER BY id DESC LIMIT :most",
            resource=resource,
            most=most,
        )
        return self._store.records(reversed(rows), _event)


@reads("event")
def _event(row: tuple[Any, ...]) -> Event:
    id, at, event, lease, resource, blueprint, data = row
    check_texts(event=event)
    check_moments(at=at)
    return Event(id, at, event, lease, resource, blueprint, pairs(data, "data"))


#: every event, in pages, and what reads it
EVERY = (f"SELECT {_COLUMNS} FROM event WHERE id > :after ORDER BY id LIMIT :most", _event)
