"""Leases: asked for, granted, ended. A lease that is over costs nothing but its row."""

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attributes import canonical
from ..model import Demand, Lease, LeaseStatus
from . import resources
from .records import moment, moment_or_none, pairs, reads, status_of, text, texts

if TYPE_CHECKING:
    from .base import Store

_COLUMNS = (
    "l.id, l.status, l.type, l.blueprints, l.owner, l.priority, l.attributes, l.slot_locks, l.fence, l.until, l.ttl,"
    " l.created_at, l.granted_at, l.ended_at, l.reason"
)
_WIDTH = 15
_FROM = "FROM lease l LEFT JOIN resource r ON r.id = l.resource LEFT JOIN blueprint p ON p.id = r.blueprint"


class Ending(NamedTuple):
    """What the end of a lease must know of it."""

    status: LeaseStatus
    resource: int | None
    slot_locks: tuple[str, ...]
    fence: int | None
    blueprint: str | None
    hooks: frozenset[str]


class Leases:
    def __init__(self, store: "Store") -> None:
        self._store = store

    def add(self, demand: Demand, owner: str, process: str | None) -> int:
        """Insert a pending lease; return its id. With `process` it ends when that process dies."""
        row = self._store.row(
            "INSERT INTO lease (status, type, blueprints, owner, priority, attributes, slot_locks, process, not_before,"
            " failures, created_at)"
            " VALUES ('pending', :type, :blueprints, :owner, 0, :attributes, '[]', :process, 0, 0, :now) RETURNING id",
            type=demand.type,
            blueprints=canonical(demand.blueprints),
            owner=owner,
            attributes=canonical(demand.attributes),
            process=process,
            now=self._store.clock(),
        )
        assert row is not None
        return int(row[0])

    def get(self, id: int) -> Lease | None:
        row = self._store.row(f"SELECT {_COLUMNS}, {resources.COLUMNS} {_FROM} WHERE l.id = :id", id=id)
        return _lease(row) if row else None

    def live(self) -> list[Lease]:
        """Every lease that is not over, oldest first."""
        rows = self._store.rows(f"SELECT {_COLUMNS}, {resources.COLUMNS} {_FROM} WHERE l.status <> 'destroyed'")
        # Sorted here: to give them in order the database would walk through all that were ever.
        return self._store.records(sorted(rows, key=itemgetter(0)), _lease)

    def latest(self, most: int) -> list[Lease]:
        """The newest `most` leases, those that are over included, oldest of them first."""
        rows = self._store.rows(
            f"SELECT {_COLUMNS}, {resources.COLUMNS} {_FROM} ORDER BY l.id DESC LIMIT :most", most=most
        )
        return self._store.records(reversed(rows), _lease)

    def on_resource(self, resource: int) -> list[int]:
        """The ids of the leases on a resource that are not over."""
        rows = self._store.rows(
            "SELECT id FROM lease WHERE resource = :resource AND status <> 'destroyed' ORDER BY id",
            resource=resource,
        )
        return [id for (id,) in rows]

    def ahead_of(self, lease: int, type: str) -> int:
        """How many requests for the same type are older and still wait."""
        row = self._store.row(
            "SELECT count(*) FROM lease WHERE status IN ('pending', 'acquired', 'released', 'broken')"
            " AND status = 'pending' AND type = :type AND id < :lease",
            type=type,
            lease=lease,
        )
        return row[0] if row else 0

    def holders(self, shapes: Sequence[int], most: int) -> list[tuple[int, str, str, float]]:
        """Some who hold resources of these shapes, longest first: lease, owner, resource name, granted at."""
        found: list[tuple[int, str, str, float]] = []
        for shape in shapes:
            found += self._store.rows(
                "SELECT l.id, l.owner, r.name, l.granted_at FROM resource r JOIN lease l ON l.resource = r.id"
                " AND l.status <> 'destroyed' WHERE r.status <> 'destroyed' AND r.shape = :shape AND r.used > 0"
                " ORDER BY r.id LIMIT :most",
                shape=shape,
                most=most,
            )
        return sorted(found, key=lambda holder: holder[3] or 0)[:most]

    def ending(self, id: int) -> Ending | None:
        row = self._store.row(
            f"SELECT l.id, l.status, l.resource, l.slot_locks, l.fence, p.name, p.hooks {_FROM} WHERE l.id = :id",
            id=id,
        )
        return _ending(row) if row else None

    # In both, the order is made here: asked for by the statement, it would be had by walking through all leases ever.

    def moving(self) -> list[tuple[int, LeaseStatus, str | None, float]]:
        """Leases that somebody must move on: id, status, the process at work on it, not before when."""
        rows = self._store.rows(
            "SELECT id, status, worker, not_before FROM lease WHERE status IN ('pending', 'acquired', 'released', 'broken')"
            " AND status <> 'pending'"
        )
        return sorted((id, LeaseStatus(status), worker, not_before) for id, status, worker, not_before in rows)

    def bound(self) -> list[tuple[int, str]]:
        """Live leases that end with a process: id, process."""
        rows = self._store.rows("SELECT id, process FROM lease WHERE process IS NOT NULL AND status <> 'destroyed'")
        return sorted((id, process) for id, process in rows)

    def any_bound_to(self, process: str) -> bool:
        """Whether a live lease would end if this process did."""
        return bool(
            self._store.rows(
                "SELECT 1 FROM lease WHERE process IS NOT NULL AND status <> 'destroyed' AND process = :process LIMIT 1",
                process=process,
            )
        )

    def process_of(self, id: int) -> str | None:
        """The process that a lease ends with: while it is not granted, whoever waits for it."""
        row = self._store.row("SELECT process FROM lease WHERE id = :id", id=id)
        return row[0] if row else None

    def bind(self, id: int, process: str | None) -> None:
        """Let the lease end when `process` dies; None: let it outlive whoever asked for it."""
        self._store.run("UPDATE lease SET process = :process WHERE id = :id", id=id, process=process)

    def count_failure(self, id: int) -> int:
        """Note that a build for this lease failed; return how many did."""
        row = self._store.row("UPDATE lease SET failures = failures + 1 WHERE id = :id RETURNING failures", id=id)
        return row[0] if row else 0


@reads("lease")
def _ending(row: tuple[Any, ...]) -> Ending:
    _, status, resource, locks, fence, blueprint, hooks = row
    return Ending(
        status_of(LeaseStatus, status),
        resource,
        texts(locks, "slot_locks"),
        fence,
        blueprint,
        frozenset(hooks.split()) if hooks else frozenset(),
    )


@reads("lease")
def _lease(row: tuple[Any, ...]) -> Lease:
    (
        id,
        status,
        type,
        blueprints,
        owner,
        priority,
        attributes,
        locks,
        fence,
        until,
        ttl,
        created,
        granted,
        ended,
        reason,
    ) = row[:_WIDTH]
    resource = resources.from_row(row[_WIDTH:]) if row[_WIDTH] is not None else None
    return Lease(
        id,
        status_of(LeaseStatus, status),
        text(type, "type"),
        texts(blueprints, "blueprints"),
        text(owner, "owner"),
        priority,
        pairs(attributes, "attributes"),
        texts(locks, "slot_locks"),
        fence,
        moment_or_none(until, "until"),
        ttl,
        moment(created, "created_at"),
        moment_or_none(granted, "granted_at"),
        moment_or_none(ended, "ended_at"),
        reason,
        resource,
    )


#: every lease, in pages, and what reads it
EVERY = (f"SELECT {_COLUMNS}, {resources.COLUMNS} {_FROM} WHERE l.id > :after ORDER BY l.id LIMIT :most", _lease)
