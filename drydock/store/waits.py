"""Questions that only those ask who wait, or who want to know why others do. Each looks at a bounded number of rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .offers import numbered

if TYPE_CHECKING:
    from .base import Store


class Hold(NamedTuple):
    """A lease on a thing that could serve somebody else."""

    lease: int
    owner: str
    resource: int
    name: str
    since: float
    until: float | None  #: the moment at which it ends, renewed or not
    ends_at: float | None  #: the moment at which it ends unless it is renewed


class Before(NamedTuple):
    """A lease that waits before another one in the queue."""

    request: int
    blueprints: str  #: as JSON
    attributes: str  #: as JSON


class Waits:
    def __init__(self, store: "Store") -> None:
        self._store = store

    def holds(self, shapes: Sequence[int], most: int) -> list[Hold]:
        """Who holds resources of these shapes, longest first; up to `most` of each shape."""
        now, uptime = self._store.clock(), self._store.uptime()
        found: list[Hold] = []
        for shape in shapes:
            rows = self._store.rows(
                "SELECT l.id, l.owner, r.id, r.name, COALESCE(l.granted_at, l.created_at), l.until,"
                " CASE WHEN l.boot = :boot THEN l.deadline - :uptime + :now END"
                " FROM resource r JOIN lease l ON l.resource = r.id AND l.status <> 'destroyed'"
                " WHERE r.status <> 'destroyed' AND r.shape = :shape AND r.used > 0 ORDER BY r.id LIMIT :most",
                shape=shape,
                most=most,
                boot=self._store.boot,
                uptime=uptime,
                now=now,
            )
            for lease, owner, resource, name, since, until, deadline in rows:
                ends = [end for end in (until, deadline) if end is not None]
                found.append(Hold(lease, owner, resource, name, since, until, min(ends, default=None)))
        return sorted(found, key=lambda hold: (hold.since, hold.lease))

    def before(self, lease: int, type: str, most: int) -> list[Before]:
        """The first `most` leases of this type that wait before this one, in the order in which they are served."""
        rows = self._store.rows(
            "SELECT COALESCE(request, id), blueprints, attributes FROM waiting WHERE type = :type"
            " AND (turn, id) < (SELECT turn, id FROM lease WHERE id = :lease) ORDER BY turn, id LIMIT :most",
            type=type,
            lease=lease,
            most=most,
        )
        return [Before(*row) for row in rows]

    def past_holds(self, type: str, shapes: Sequence[int], most: int) -> list[float]:
        """For how many seconds things of these shapes were held lately: of the `most` leases before the first in the
        queue, those that are over."""
        names, parameters = numbered(shapes)
        rows = self._store.rows(
            "SELECT l.ended_at - l.granted_at FROM lease l JOIN resource r ON r.id = l.resource"
            " WHERE l.id < (SELECT id FROM waiting WHERE type = :type ORDER BY turn, id LIMIT 1)"
            " AND l.id >= (SELECT id FROM waiting WHERE type = :type ORDER BY turn, id LIMIT 1) - :most"
            f" AND l.status = 'destroyed' AND l.granted_at IS NOT NULL AND r.shape IN ({names})",
            type=type,
            most=most,
            **parameters,
        )
        return [max(0.0, seconds) for (seconds,) in rows if seconds is not None]

    def requests(self) -> list[tuple[int, ...]]:
        """The leases of each request that waits, in the order in which those of one type are served."""
        rows = self._store.rows("SELECT type, COALESCE(request, id), id FROM waiting ORDER BY type, turn, id")
        found: dict[int, list[int]] = {}
        for _, request, id in rows:
            found.setdefault(request, []).append(id)
        return [tuple(ids) for ids in found.values()]
