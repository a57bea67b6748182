"""A seat that changes hands: a lease that ends, and the first in the queue who can have its place.

That is most endings in a crowd, and all others wait meanwhile. So one question finds out whether an ending is as simple as
that, with all that must be known for it, and as few statements as there are rows to change then do it.
"""

from typing import TYPE_CHECKING, NamedTuple

from ..errors import StatusChanged
from ..model import LeaseStatus, ResourceStatus
from .leases import AT_WORK
from .resources import MAY_BE_LEASED

if TYPE_CHECKING:
    from .base import Store

# Of a list of one slot lock, what is between the brackets and quotes is its key; of any other it is nobody's key.
_FIND = (
    "SELECT l.id, l.process, l.until, l.deadline, l.boot, l.type, l.slot_locks, k.key, p.name, p.cooldown,"
    " r.id, r.shape, r.attributes, r.seats, r.fence, w.id, w.process, w.blueprints, w.attributes"
    " FROM lease l JOIN resource r ON r.id = l.resource JOIN blueprint p ON p.id = r.blueprint"
    " JOIN slot_lock k ON k.key = trim(l.slot_locks, '[\"]') AND k.holder = 'lease:' || l.id"
    " JOIN lease w ON w.id = (SELECT q.id FROM waiting q WHERE q.type = l.type ORDER BY q.turn, q.id LIMIT 1)"
    " WHERE l.id = :id AND l.status = 'active' AND l.carries IS NULL AND p.hooks NOT LIKE '%lease%'"
    f" AND {MAY_BE_LEASED} AND r.used = r.seats"
    " AND w.request IS NULL AND w.until IS NULL AND w.owed IS NULL AND w.process IS NOT NULL"
    f" AND NOT {AT_WORK.replace('waiting.', 'w.')}"
)
_LOCK = "UPDATE slot_lock SET holder = :heir, taken_at = :now WHERE key = :key AND holder = :holder"
_FENCE = "UPDATE resource SET fence = :fence, idle_since = :now WHERE id = :id AND fence = :old AND status = 'active'"


class Seat(NamedTuple):
    """A seat on a full resource, the lease that has it, and the heir: the first who waits for something of its type."""

    lease: int
    process: str | None
    until: float | None
    deadline: float | None
    boot: str | None
    type: str
    slot_locks: str  #: of the lease, as JSON
    key: str  #: the one that is in there
    blueprint: str
    cooldown: float
    resource: int
    shape: int
    offered: str  #: the attributes of the resource, as JSON
    seats: int
    fence: int
    heir: int
    heirs_process: str
    blueprints: str  #: that the heir wants, as JSON
    attributes: str  #: the same


class Seats:
    def __init__(self, store: "Store") -> None:
        self._store = store

    def held_by(self, lease: int) -> Seat | None:
        """The seat of an active lease that holds nothing else; None also unless it could go to the first in the queue as it
        is: no blueprint has to see to it, its resource takes new leases and has no other seat free, and he wants one
        lease without an end, owes nobody a look and has nothing built or cleared."""
        row = self._store.row(_FIND, id=lease, now=self._store.now)
        return Seat(*row) if row else None

    def pass_on(self, seat: Seat, event: str, reason: str | None) -> None:
        """Part of the transaction in which it was found: the lease is over, as `event` says, and the heir's is active."""
        store, now, fence = self._store, self._store.clock(), seat.fence + 1
        raised = store.ask_change(_FENCE, id=seat.resource, old=seat.fence, fence=fence, now=now)
        handed = store.ask_change(_LOCK, key=seat.key, holder=f"lease:{seat.lease}", heir=f"lease:{seat.heir}", now=now)
        if not (raised() and handed()):
            raise StatusChanged("resource", seat.resource, (ResourceStatus.ACTIVE,), "leased otherwise")
        why = {"reason": reason} if reason else {}
        store.move("lease", seat.lease, LeaseStatus.ACTIVE, LeaseStatus.DESTROYED, ended_at=now, worker=None, **why)
        store.events.add(event, lease=seat.lease, resource=seat.resource, blueprint=seat.blueprint, **why)
        store.move(
            "lease", seat.heir, LeaseStatus.PENDING, LeaseStatus.ACTIVE, resource=seat.resource, fence=fence,
            slot_locks=seat.slot_locks, granted_at=now, counting_from=store.uptime(), boot=store.boot,
        )  # fmt: skip
        store.events.add(
            "lease.activated", lease=seat.heir, resource=seat.resource, blueprint=seat.blueprint, fence=fence
        )
