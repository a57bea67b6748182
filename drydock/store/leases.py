"""Leases: asked for, queued, granted, ended. A lease that is over costs nothing but its row.

The queue (`waiting`) is the pending leases in the order of `turn`: the moment at which they asked, less a head start for
each step of priority. That key never changes, so an index keeps the order, and so ageing is bounded: nobody is passed by
a request that came more than its head start later.
"""

from collections.abc import Iterator, Sequence
from itertools import starmap
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attributes import canonical
from ..model import Demand, Lease, LeaseStatus, Terms
from . import resources
from .offers import numbered
from .records import check_moments, check_texts, pairs, reads, status_of, texts
from .statuses import LEASE_GRANTED, LEASE_MOVING, LEASE_WANTED, RESOURCE_MOVING

if TYPE_CHECKING:
    from .base import Answer, Row, Store

_COLUMNS = (
    "l.id, l.status, l.type, l.blueprints, l.owner, l.priority, l.attributes, l.slot_locks, l.fence, l.until, l.ttl,"
    " l.created_at, l.granted_at, l.ended_at, l.reason, l.carries"
)
_WIDTH = 16
# Word for word the condition of the index lease_deadline, or it is not used.
_HAS_DEADLINE = f"deadline IS NOT NULL AND {LEASE_GRANTED}"
_FROM = "FROM lease l LEFT JOIN resource r ON r.id = l.resource LEFT JOIN blueprint p ON p.id = r.blueprint"
#: most of what is freed goes to one of the first
FIRST_IN_THE_QUEUE = 8
#: each step of priority counts like having asked so much earlier
HEAD_START_SECONDS = 3600.0

_ADD = (
    "INSERT INTO lease (status, type, blueprints, owner, priority, attributes, turn, slot_locks, until, ttl, warned,"
    " process, not_before, failures, created_at)"
    " VALUES ('pending', :type, :blueprints, :owner, :priority, :attributes, :now - :head_start,"
    " '[]', :until, :ttl, 0, :process, 0, 0, :now) RETURNING id"
)
# Never before whoever asked last, or a clock that was set back would let newcomers pass.
_LAST_ASKED_AT = f"turn + priority * {HEAD_START_SECONDS}"
_ADD_TO_OTHERS = _ADD.replace(
    ":now - :head_start",
    f"COALESCE((SELECT {_LAST_ASKED_AT} FROM lease WHERE id = (SELECT max(id) FROM lease) AND {_LAST_ASKED_AT} > :now), :now)"
    " - :head_start",
) + (
    ", EXISTS (SELECT 1 FROM waiting o WHERE o.type = :type AND o.turn <= lease.turn AND o.id < lease.id"
    " AND o.blueprints = :blueprints AND o.attributes = :attributes AND o.request IS NULL AND o.owed IS NULL)"
)

#: whether something is built for one who waits, or torn down to make room
AT_WORK = (
    f"EXISTS (SELECT 1 FROM resource WHERE {RESOURCE_MOVING}"
    " AND (built_for = waiting.id AND status = 'pending' OR reclaimed_for = waiting.id AND failures = 0))"
)
_QUEUE = (
    f"SELECT id, COALESCE(request, id), blueprints, attributes, process, until, owed, {AT_WORK}, turn"
    " FROM waiting WHERE type = :type AND (turn, id) > (:turn, :id) ORDER BY turn, id LIMIT :most"
)


class Added(NamedTuple):
    """A lease that has just been asked for."""

    id: int
    behind: bool  #: one that asks for just the same waits before it, alone, with nothing left to look at


class Ending(NamedTuple):
    """What the end of a lease must know of it."""

    status: LeaseStatus
    resource: int | None
    slot_locks: tuple[str, ...]
    fence: int | None
    process: str | None
    type: str
    until: float | None
    deadline: float | None
    boot: str | None
    blueprint: str | None
    hooks: frozenset[str]
    cooldown: float
    carries: int | None


class Span(NamedTuple):
    """How long a lease lasts, as far as its row tells."""

    status: LeaseStatus
    fence: int | None
    until: float | None  #: a moment
    ttl: float | None
    deadline: float | None  #: the uptime at which its ttl is over
    boot: str | None  #: of which start of the machine that is the uptime
    process: str | None


class Waiter(NamedTuple):
    """A lease in the queue."""

    id: int
    request: int  #: the first lease of those that are granted together; its own id if it is alone
    blueprints: str  #: as JSON
    attributes: str  #: as JSON
    process: str | None
    until: float | None
    owed: float | None
    at_work: bool  #: its requester builds something for it, or tears something down to make room
    turn: float  #: see the module


class Leases:
    def __init__(self, store: "Store") -> None:
        self._store = store
        #: see `foresee`; nothing once a lease has changed
        self.foreseen: tuple[str, Answer[list[Row]]] | None = None

    def add(self, demand: Demand, terms: Terms, owner: str, process: str | None, *, crowded: bool = True) -> Added:
        """Insert a pending lease. With `process` it ends when that process dies. Not `crowded`: nobody
        else waits."""
        row = self._store.row(
            _ADD_TO_OTHERS if crowded else _ADD,
            type=demand.type,
            blueprints=canonical(demand.blueprints),
            owner=owner,
            priority=terms.priority,
            attributes=canonical(demand.attributes),
            until=terms.until,
            ttl=terms.ttl,
            process=process,
            head_start=terms.priority * HEAD_START_SECONDS,
            now=self._store.now,
        )
        assert row is not None
        self._store.crowded, self.foreseen = True, None
        return Added(row[0], crowded and bool(row[1]))

    def join(self, ids: Sequence[int]) -> None:
        """Note that these leases are granted together or not at all."""
        for id in ids:
            self._store.run(
                "UPDATE lease SET request = :first, turn = (SELECT turn FROM lease WHERE id = :first) WHERE id = :id",
                first=ids[0],
                id=id,
            )

    # ---- the queue

    def outlook(self, type: str) -> tuple[int, bool]:
        """`Offers.config()`, and whether anybody waits for this type."""
        row = self._store.row(
            "SELECT config, EXISTS (SELECT 1 FROM waiting WHERE type = :type) FROM store WHERE id = 1",
            type=type,
        )
        return (row[0], bool(row[1])) if row else (0, False)

    def queue(self, type: str) -> Iterator[Waiter]:
        """Who waits for something of this type, in the order in which they are served."""
        foreseen, self.foreseen = self.foreseen, None
        rows = foreseen[1]() if foreseen and foreseen[0] == type else self._first(type)()
        most = FIRST_IN_THE_QUEUE
        while rows:
            yield from starmap(Waiter, rows)
            if len(rows) < most:
                return
            most = 1000  # whoever looks further than the first looks far
            id, *_, turn = rows[-1]
            rows = self._store.rows(_QUEUE, type=type, turn=turn, id=id, most=most)

    def foresee(self, type: str) -> None:
        """Ask for the `queue` of this type with what is asked next, since it will be walked before any lease in it changes."""
        self.foreseen = type, self._first(type)

    def _first(self, type: str) -> "Answer[list[Row]]":
        return self._store.ask(_QUEUE, type=type, turn=float("-inf"), id=0, most=FIRST_IN_THE_QUEUE)

    def waited_for(self) -> list[str]:
        """The types that somebody waits for."""
        return [type for (type,) in self._store.rows("SELECT DISTINCT type FROM waiting")]

    def ahead_of(self, lease: int, type: str) -> int:
        """How many requests for the same type are served before this one."""
        row = self._store.row(
            "SELECT count(DISTINCT COALESCE(request, id)) FROM waiting WHERE type = :type"
            " AND (turn, id) < (SELECT turn, id FROM lease WHERE id = :lease)",
            type=type,
            lease=lease,
        )
        return row[0] if row else 0

    def owe(self, id: int, since: float | None) -> None:
        """Note that there is something which only the requester can look at, or that he has looked."""
        self._store.run("UPDATE lease SET owed = :since WHERE id = :id", id=id, since=since)
        self.foreseen = None

    # ---- how long it lasts

    def span(self, id: int) -> Span | None:
        row = self._store.row(
            "SELECT status, fence, until, ttl, deadline, boot, process FROM lease WHERE id = :id", id=id
        )
        return Span(status_of(LeaseStatus, row[0]), *row[1:]) if row else None

    def count_from_now(self, id: int) -> None:
        """Let its ttl, if it has one, begin now."""
        self._store.run(
            "UPDATE lease SET deadline = :uptime + ttl, boot = :boot, warned = 0 WHERE id = :id AND ttl IS NOT NULL",
            id=id,
            uptime=self._store.uptime(),
            boot=self._store.boot,
        )

    def extend(self, id: int, ttl: float | None, until: float | None) -> None:
        """Give it another ttl or end; None leaves it as it is."""
        self._store.run(
            "UPDATE lease SET ttl = COALESCE(:ttl, ttl), until = COALESCE(:until, until), warned = 0 WHERE id = :id",
            id=id,
            ttl=ttl,
            until=until,
        )

    def outlive(self, id: int, until: float) -> None:
        """Let it end at this moment, and no longer with a process or for want of renewal."""
        self._store.run(
            "UPDATE lease SET until = :until, ttl = NULL, deadline = NULL, process = NULL, warned = 0 WHERE id = :id",
            id=id,
            until=until,
        )

    def overdue(self) -> list[tuple[int, str]]:
        """Leases whose time is over: id, and why."""
        now, uptime, boot = self._store.clock(), self._store.uptime(), self._store.boot
        rows = self._store.rows(
            "SELECT id, 'its time is up' FROM lease"
            f" WHERE until IS NOT NULL AND {LEASE_WANTED} AND until <= :now"
            f" UNION ALL SELECT id, 'it was not renewed in time' FROM lease WHERE {_HAS_DEADLINE}"
            " AND boot = :boot AND deadline <= :uptime"
            f" UNION ALL SELECT id, 'the machine was started again' FROM lease WHERE {_HAS_DEADLINE} AND boot < :boot"
            f" UNION ALL SELECT id, 'the machine was started again' FROM lease WHERE {_HAS_DEADLINE} AND boot > :boot",
            now=now,
            uptime=uptime,
            boot=boot,
        )
        return sorted(rows)

    def next_end(self) -> float | None:
        """In how many seconds the next lease is over, unless it is renewed."""
        now, uptime = self._store.clock(), self._store.uptime()
        row = self._store.row(
            f"SELECT (SELECT min(until) FROM lease WHERE until IS NOT NULL AND {LEASE_WANTED}),"
            f" (SELECT min(deadline) FROM lease WHERE {_HAS_DEADLINE} AND boot = :boot)",
            boot=self._store.boot,
        )
        assert row is not None
        until, deadline = row
        left = [*([] if until is None else [until - now]), *([] if deadline is None else [deadline - uptime])]
        return min(left, default=None)

    def ends(self, ids: Sequence[int] | None = None) -> dict[int, float]:
        """The moments at which granted leases end unless they are renewed, of those that have such an end; with `ids`,
        only of these."""
        now, uptime = self._store.clock(), self._store.uptime()
        names, parameters = numbered(ids or ())
        these = "" if ids is None else f" AND id IN ({names})"
        rows = self._store.rows(
            f"SELECT id, until FROM lease WHERE until IS NOT NULL AND {LEASE_WANTED}"
            f" AND status <> 'pending'{these} UNION ALL SELECT id, CASE WHEN boot = :boot THEN deadline - :uptime + :now ELSE :now END"
            f" FROM lease WHERE {_HAS_DEADLINE}{these}",
            now=now,
            uptime=uptime,
            boot=self._store.boot,
            **parameters,
        )
        ends: dict[int, float] = {}
        for id, end in rows:
            ends[id] = min(end, ends.get(id, end))
        return ends

    def next_retry(self) -> float | None:
        """In how many seconds the next hook for a lease, which failed or yielded, is to be called again."""
        row = self._store.row(
            f"SELECT min(not_before) FROM lease WHERE {LEASE_MOVING} AND not_before > :now",
            now=self._store.clock(),
        )
        return None if row is None or row[0] is None else row[0] - self._store.clock()

    def to_warn(self, before: float) -> list[tuple[int, str | None]]:
        """Granted leases that end in less than `before` seconds, or a quarter of their time, and were not warned: id,
        process."""
        rows = self._store.rows(
            f"SELECT id, process FROM lease WHERE until IS NOT NULL AND {LEASE_WANTED}"
            " AND status <> 'pending' AND warned = 0 AND until <= :now + :before AND until - (until - granted_at) / 4 <= :now"
            f" UNION SELECT id, process FROM lease WHERE {_HAS_DEADLINE} AND boot = :boot AND warned = 0"
            " AND deadline <= :uptime + :before AND deadline - ttl / 4 <= :uptime",
            now=self._store.clock(),
            uptime=self._store.uptime(),
            boot=self._store.boot,
            before=before,
        )
        return [(id, process) for id, process in rows]

    def warned(self, id: int) -> None:
        """Note that its end was announced."""
        self._store.run("UPDATE lease SET warned = 1 WHERE id = :id", id=id)

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

    def ending(self, id: int) -> Ending | None:
        row = self._store.row(
            "SELECT l.id, l.status, l.resource, l.slot_locks, l.fence, l.process, l.type,"
            f" l.until, l.deadline, l.boot, p.name, p.hooks, p.cooldown, l.carries {_FROM} WHERE l.id = :id",
            id=id,
        )
        return _ending(row) if row else None

    # In both, the order is made here: asked for by the statement, it would be had by walking through all leases ever.

    def moving(self) -> list[tuple[int, LeaseStatus, str | None, float]]:
        """Leases that somebody must move on, now that nothing stands on them: id, status, the process at work on it, not
        before when."""
        rows = self._store.rows(
            f"SELECT id, status, worker, not_before FROM lease WHERE {LEASE_MOVING} AND carries IS NULL"
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

    def status(self, id: int) -> LeaseStatus | None:
        row = self._store.row("SELECT status FROM lease WHERE id = :id", id=id)
        return status_of(LeaseStatus, row[0]) if row else None

    def status_bound_to(self, process: str, id: int) -> LeaseStatus | None:
        """None also when the lease of this number is not bound to that process."""
        row = self._store.row("SELECT status FROM lease WHERE id = :id AND process = :process", id=id, process=process)
        return status_of(LeaseStatus, row[0]) if row else None

    def process_of(self, id: int) -> str | None:
        """The process that a lease ends with: while it is not granted, whoever waits for it."""
        row = self._store.row("SELECT process FROM lease WHERE id = :id", id=id)
        return row[0] if row else None

    def bind(self, id: int, process: str | None) -> None:
        """Let the lease end when `process` dies; None: let it outlive whoever asked for it."""
        self._store.run("UPDATE lease SET process = :process WHERE id = :id", id=id, process=process)

    # ---- what stands on it

    def carry(self, id: int, resource: int, process: str) -> bool:
        """Let a resource stand on an active lease of this process, which lasts as long as that from now on. False if it is
        not such a lease (any more)."""
        return bool(
            self._store.change(
                "UPDATE lease SET carries = :resource, process = NULL WHERE id = :id AND status = 'active'"
                " AND carries IS NULL AND process = :process",
                id=id,
                resource=resource,
                process=process,
            )
        )

    def under(self, resource: int) -> int | None:
        """The lease that a resource stands on."""
        row = self._store.row(
            "SELECT id FROM lease WHERE carries IS NOT NULL AND carries = :resource", resource=resource
        )
        return row[0] if row else None

    def put_down(self, id: int) -> None:
        """Note that nothing stands on it any more."""
        self._store.run("UPDATE lease SET carries = NULL WHERE id = :id", id=id)

    def count_failure(self, id: int) -> int:
        """Note that a build for this lease failed; return how many did."""
        row = self._store.row("UPDATE lease SET failures = failures + 1 WHERE id = :id RETURNING failures", id=id)
        return row[0] if row else 0


@reads("lease")
def _ending(row: tuple[Any, ...]) -> Ending:
    (
        _,
        status,
        resource,
        locks,
        fence,
        process,
        type,
        until,
        deadline,
        boot,
        blueprint,
        hooks,
        cooldown,
        carries,
    ) = row
    return Ending(
        status_of(LeaseStatus, status),
        resource,
        texts(locks, "slot_locks"),
        fence,
        process,
        type,
        until,
        deadline,
        boot,
        blueprint,
        frozenset(hooks.split()) if hooks else frozenset(),
        cooldown or 0.0,
        carries,
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
        carries,
    ) = row[:_WIDTH]
    check_texts(type=type, owner=owner)
    check_moments(created_at=created, until=until, granted_at=granted, ended_at=ended)
    resource = resources.from_row(row[_WIDTH:]) if row[_WIDTH] is not None else None
    return Lease(
        id,
        status_of(LeaseStatus, status),
        type,
        texts(blueprints, "blueprints"),
        owner,
        priority,
        pairs(attributes, "attributes"),
        texts(locks, "slot_locks"),
        fence,
        until,
        ttl,
        created,
        granted,
        ended,
        reason,
        resource,
        carries,
    )


#: every lease, in pages, and what reads it
EVERY = (f"SELECT {_COLUMNS}, {resources.COLUMNS} {_FROM} WHERE l.id > :after ORDER BY l.id LIMIT :most", _lease)
