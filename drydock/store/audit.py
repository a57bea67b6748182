"""Questions that only `doctor` asks: they look at everything, so nothing else may ask them."""

from typing import TYPE_CHECKING

from . import events, leases, offers, resources
from .records import DamagedRow

if TYPE_CHECKING:
    from .base import Row, Store

PAGE = 1000


class Audit:
    """Read-only. Every method gives the rows that should not be there."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def damaged_rows(self) -> list[DamagedRow]:
        """Rows that cannot be read; a list would leave them out."""
        self._store.damaged.clear()
        for statement, read in (leases.EVERY, resources.EVERY, events.EVERY, *offers.EVERY):
            last = 0
            while rows := self._store.rows(statement, after=last, most=PAGE):
                self._store.records(rows, read)
                last = rows[-1][0]
        self._store.slot_locks.all()
        self._store.records(self._store.rows("SELECT name, data FROM source"), offers.read_source)
        return list({row.about: row for row in self._store.damaged}.values())

    def miscounted_resources(self) -> "list[Row]":
        """Resources whose count of leases is not the number of leases on them: id, count, number."""
        return self._store.rows(
            "SELECT r.id, r.used, count(l.id) FROM resource r LEFT JOIN lease l ON l.resource = r.id"
            " AND l.status <> 'destroyed' WHERE r.status <> 'destroyed' GROUP BY r.id, r.used HAVING count(l.id) <> r.used"
        )

    def miscounted_blueprints(self) -> "list[Row]":
        """Blueprints whose count of live resources is not their number: name, count, number."""
        return self._store.rows(
            "SELECT b.name, b.live, count(r.id) FROM blueprint b LEFT JOIN resource r ON r.blueprint = b.id"
            " AND r.status <> 'destroyed' GROUP BY b.name, b.live HAVING count(r.id) <> b.live"
        )

    def over_limit(self) -> "list[Row]":
        """Blueprints with more live resources than they may have: name, limit, number, and whether one of them was
        made when that limit held already."""
        return self._store.rows(
            "SELECT b.name, b.most, count(r.id), max(r.created_at) > b.bounded_at FROM blueprint b"
            " JOIN resource r ON r.blueprint = b.id AND r.status <> 'destroyed'"
            " GROUP BY b.name, b.most, b.bounded_at HAVING count(r.id) > b.most"
        )

    def over_seated(self) -> "list[Row]":
        """Resources with more leases than seats: id, name, seats, number, and whether one of them was granted when
        they had so few already."""
        return self._store.rows(
            "SELECT r.id, r.name, r.seats, count(l.id), max(l.granted_at) > b.bounded_at FROM resource r"
            " JOIN blueprint b ON b.id = r.blueprint JOIN lease l ON l.resource = r.id AND l.status <> 'destroyed'"
            " GROUP BY r.id, r.name, r.seats, b.bounded_at HAVING count(l.id) > r.seats"
        )

    def leases_on_the_dead(self) -> "list[Row]":
        """Granted leases whose resource is gone: lease, resource."""
        return self._store.rows(
            "SELECT l.id, l.resource FROM lease l LEFT JOIN resource r ON r.id = l.resource"
            " WHERE l.status IN ('acquired', 'active') AND (r.id IS NULL OR r.status = 'destroyed')"
        )

    def carrying_wrongly(self) -> "list[Row]":
        """Leases that are over while something stands on them, or that carry what is gone: lease, resource, and whether
        the lease is over."""
        return self._store.rows(
            "SELECT l.id, l.carries, l.status = 'destroyed' FROM lease l LEFT JOIN resource r ON r.id = l.carries"
            " WHERE l.carries IS NOT NULL AND (l.status = 'destroyed' OR r.id IS NULL OR r.status = 'destroyed')"
        )

    def fences_ahead(self) -> "list[Row]":
        """Leases with a larger fence than their resource ever gave: lease, resource, both fences."""
        return self._store.rows(
            "SELECT l.id, r.id, l.fence, r.fence FROM lease l JOIN resource r ON r.id = l.resource"
            " WHERE l.status <> 'destroyed' AND l.fence > r.fence"
        )

    def locks_of_the_dead(self) -> "list[Row]":
        """Slot locks whose holder is destroyed or was never there: key, holder."""
        return self._store.rows(
            "SELECT key, holder FROM slot_lock WHERE holder NOT IN"
            " (SELECT 'lease:' || id FROM lease WHERE status <> 'destroyed'"
            " UNION ALL SELECT 'resource:' || id FROM resource WHERE status <> 'destroyed') ORDER BY key"
        )

    def declared(self) -> "list[Row]":
        """Every key that a live lease or resource declared: holder, what the declaration says as JSON."""
        return self._store.rows(
            "SELECT 'resource:' || id, slot_locks FROM resource WHERE status <> 'destroyed'"
            " UNION ALL SELECT 'lease:' || id, slot_locks FROM lease WHERE status IN ('acquired', 'active', 'released', 'broken')"
        )

    def bindings_held_twice(self) -> "list[Row]":
        """Live resources that stand on one binding with another: binding, resource."""
        return self._store.rows(
            "SELECT b.name, r.id FROM resource r JOIN binding b ON b.id = r.binding WHERE r.status <> 'destroyed'"
            " AND EXISTS (SELECT 1 FROM resource o JOIN binding c ON c.id = o.binding WHERE o.status <> 'destroyed'"
            " AND o.id <> r.id AND c.slot_lock = b.slot_lock) ORDER BY b.name, r.id"
        )

    def waiting_for_nobody(self) -> "list[Row]":
        """Leases and requests bound to a process: lease, process. Whether it lives is the caller's question."""
        return self._store.rows("SELECT id, process FROM lease WHERE process IS NOT NULL AND status <> 'destroyed'")
