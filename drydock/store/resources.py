"""Resources: found by index, given a seat by compare-and-set, counted until they are destroyed."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attributes import canonical
from ..model import Resource, ResourceStatus
from .offers import UNLIMITED, numbered
from .records import check_moments, check_texts, dump_texts, pairs, reads, status_of, texts
from .statuses import RESOURCE_MOVING

if TYPE_CHECKING:
    from .base import Answer, Store

#: what `from_row` reads, for the aliases r (resource) and p (its blueprint)
COLUMNS = (
    "r.id, r.name, r.type, p.name, r.status, r.attributes, r.slot_locks, r.fence, r.seats, r.used, r.created_at,"
    " r.idle_since, r.built_for, r.reclaimed_for, r.failures, r.not_before, r.rests_until, r.until, r.ttl, r.given_up,"
    " p.hooks"
)
WIDTH = 21
_FROM = "FROM resource r JOIN blueprint p ON p.id = r.blueprint"
# Word for word the condition of the index resource_room, or it is not used.
_ROOM = "r.status = 'active' AND r.open = 1 AND r.used < r.seats AND r.rests_until IS NULL"
_COOLDOWN = "(SELECT cooldown FROM blueprint WHERE id = resource.blueprint)"
_TOO_LONG = f"rests_until > :now + 1 + {_COOLDOWN}"
ROOM_COLUMNS = "r.id, r.attributes, r.shape, r.lease_locks, r.seats, r.used, r.idle_since"
_OWN_ROOM_COLUMNS = ROOM_COLUMNS.replace("r.", "")  # RETURNING knows no alias

MAY_BE_LEASED = "r.status = 'active' AND r.open = 1 AND r.rests_until IS NULL AND (r.until IS NULL OR r.until > :now)"
_TAKE_SEAT = (
    "UPDATE resource SET fence = fence + 1, used = used + 1"
    f" WHERE id = :id AND used < seats AND {MAY_BE_LEASED.replace('r.', '')} RETURNING fence"
)

ALWAYS = 0.0
#: for so long a resource that came back into play may be passed over for one that was used later
LATELY_SECONDS = 10.0


class Room(NamedTuple):
    """A resource with a free seat."""

    id: int
    attributes: str  #: as JSON, since few who find it must look
    shape: int
    lease_locks: str
    seats: int
    used: int
    idle_since: float


class Idle(NamedTuple):
    """A resource that nobody uses."""

    id: int
    attributes: str  #: as JSON
    idle_since: float
    grace: float  #: seconds that it is left alone


class Left(NamedTuple):
    """What is left of a resource when a lease has gone."""

    used: int
    open: bool
    status: ResourceStatus
    type: str
    rests: bool
    room: Room | None  #: the seats that are free now, if it may be leased


class Resources:
    def __init__(self, store: "Store") -> None:
        self._store = store
        #: for each set of shapes, since when the least recently used was idle when we looked last, and how long that counts
        self._lately: dict[tuple[int, ...], tuple[float, float]] = {}

    def add(
        self,
        *,
        blueprint: int,
        binding: int | None,
        shape: int,
        name: str,
        type: str,
        status: ResourceStatus,
        attributes: Mapping[str, Any],
        lease_locks: str,
        seats: int | None,
        fence: int,
        built_for: int | None,
        worker: str | None,
        lifetime: float | None,
        ttl: float | None,
        observe_every: float | None,
    ) -> int:
        """Insert a resource that holds no slot lock yet; return its id."""
        row = self._store.row(
            "INSERT INTO resource (blueprint, binding, shape, name, type, status, attributes, slot_locks, lease_locks, seats,"
            " used, open, fence, built_for, worker, not_before, created_at, idle_since, until, ttl, observe_at) VALUES (:blueprint, :binding, :shape,"
            " :name, :type, :status, :attributes, '[]', :lease_locks, :seats, 0, 1, :fence, :built_for, :worker, 0, :now, :now,"
            " :now + :lifetime, :ttl, :now + :observe_every)"
            " RETURNING id",
            blueprint=blueprint,
            binding=binding,
            shape=shape,
            name=name,
            type=type,
            status=status,
            attributes=canonical(attributes),
            lease_locks=lease_locks,
            seats=UNLIMITED if seats is None else seats,
            fence=fence,
            built_for=built_for,
            worker=worker,
            lifetime=lifetime,
            ttl=ttl,
            observe_every=observe_every,
            now=self._store.clock(),
        )
        assert row is not None
        return int(row[0])

    def set_slot_locks(self, id: int, keys: Iterable[str]) -> None:
        self._store.run("UPDATE resource SET slot_locks = :keys WHERE id = :id", id=id, keys=dump_texts(tuple(keys)))

    def set_fence(self, id: int, fence: int) -> None:
        """Let its next grant have the number that follows."""
        self._store.run("UPDATE resource SET fence = :fence WHERE id = :id", id=id, fence=fence)

    def get(self, id: int) -> Resource | None:
        row = self._store.row(f"SELECT {COLUMNS} {_FROM} WHERE r.id = :id", id=id)
        return from_row(row) if row else None

    def live(self) -> list[Resource]:
        """Every resource that is not destroyed."""
        rows = self._store.rows(f"SELECT {COLUMNS} {_FROM} WHERE r.status <> 'destroyed'")
        # Sorted here: to give them in order the database would walk through all that were ever.
        return self._store.records(sorted(rows, key=itemgetter(0)), from_row)

    def latest(self, most: int) -> list[Resource]:
        """The newest `most` resources, destroyed ones included, oldest of them first."""
        rows = self._store.rows(f"SELECT {COLUMNS} {_FROM} ORDER BY r.id DESC LIMIT :most", most=most)
        return self._store.records(reversed(rows), from_row)

    # ---- choosing

    def best_room(self, shapes: Sequence[int], *, shared: bool) -> Room | None:
        """The resource of these shapes that `with_room` of each would name first, all taken together.

        Where the dead are walked through, it may pass over one that came back into play during the last seconds.
        """
        if shared or not self._store.walks_through_the_dead:
            return self._best_room(shapes, shared)
        # Least recently used first is dead first, too. What was dead when we looked last is not walked through again.
        now, key = monotonic(), tuple(shapes)
        since, until = self._lately.get(key, (ALWAYS, now))
        found = self._best_room(shapes, shared, since) if now < until else None
        if found is None:
            found, until = self._best_room(shapes, shared), now + LATELY_SECONDS
        if found is not None:
            self._lately[key] = found.idle_since, until
        return found

    def _best_room(self, shapes: Sequence[int], shared: bool, since: float = ALWAYS) -> Room | None:
        """`since`: as for `with_room`."""
        if len(shapes) == 1:
            return next(iter(self.with_room(shapes[0], shared=shared, most=1, since=since)), None)
        names, parameters = numbered(shapes)
        row = self._store.row(
            f"SELECT {ROOM_COLUMNS} FROM shape s JOIN resource r ON r.id = (SELECT r.id FROM resource r"
            f" WHERE {_ROOM} AND r.shape = s.id AND {_order(shared)} LIMIT 1)"
            f" WHERE s.id IN ({names}) ORDER BY r.used, r.idle_since, r.id LIMIT 1",
            since=since,
            **parameters,
        )
        return Room(*row) if row else None

    def with_room(self, shape: int, *, shared: bool, most: int, since: float = ALWAYS) -> list[Room]:
        """Resources of a shape with a free seat: unused ones, least recently used first, of those that were last used at
        `since` or later; or, `shared`, used ones, least used first."""
        rows = self._store.rows(
            f"SELECT {ROOM_COLUMNS} FROM resource r WHERE {_ROOM} AND r.shape = :shape AND {_order(shared)} LIMIT :most",
            shape=shape,
            most=most,
            since=since,
        )
        return [Room(*row) for row in rows]

    def room(self, id: int) -> Room | None:
        """The resource, if it has a free seat."""
        row = self._store.row(f"SELECT {ROOM_COLUMNS} FROM resource r WHERE r.id = :id AND {_ROOM}", id=id)
        return Room(*row) if row else None

    def built_for(self, lease: int) -> int | None:
        """The resource that is still being built for a lease."""
        rows = self._store.rows(
            f"SELECT id FROM resource WHERE {RESOURCE_MOVING} AND status = 'pending' AND built_for = :lease",
            lease=lease,
        )
        return rows[0][0] if rows else None

    def reclaimed_for(self, lease: int) -> int | None:
        """The resource that is still being torn down to make room for a lease. One whose hook failed is not waited
        for: another may go faster."""
        row = self._store.row(
            f"SELECT id FROM resource WHERE {RESOURCE_MOVING} AND reclaimed_for = :lease AND failures = 0",
            lease=lease,
        )
        return row[0] if row else None

    def idle(self, shape: int, most: int) -> list[Idle]:
        """The idle resources of a shape that may take leases, least recently used first."""
        rows = self._store.rows(
            f"SELECT r.id, r.attributes, r.idle_since, p.grace {_FROM} WHERE {_ROOM} AND r.shape = :shape AND r.used = 0"
            " ORDER BY r.idle_since, r.id LIMIT :most",
            shape=shape,
            most=most,
        )
        return [Idle(*row) for row in rows]

    def idle_one(self, id: int, blueprint: int) -> Idle | None:
        """This resource, if it is an idle one of this blueprint that may take leases."""
        row = self._store.row(
            f"SELECT r.id, r.attributes, r.idle_since, p.grace {_FROM} WHERE {_ROOM} AND r.id = :id AND r.used = 0"
            " AND r.blueprint = :blueprint",
            id=id,
            blueprint=blueprint,
        )
        return Idle(*row) if row else None

    def idle_in_the_way(self, shape: int) -> Idle | None:
        """The idle resource of another blueprint that holds a binding of this shape, least recently used."""
        row = self._store.row(
            f"SELECT r.id, r.attributes, r.idle_since, p.grace {_FROM}"
            f" JOIN binding b ON b.resource = r.id WHERE {_ROOM} AND r.used = 0 AND r.shape IN"
            " (SELECT s.id FROM shape s JOIN shape own ON own.blueprint <> s.blueprint WHERE own.id = :shape)"
            " AND b.shape = :shape AND b.enabled = 1 AND b.in_service = 1 AND b.listed = 1 AND b.missing = 0 ORDER BY r.idle_since LIMIT 1",
            shape=shape,
        )
        return Idle(*row) if row else None

    def idle_upon(self, shape: int, most: int) -> list[tuple[Idle, str]]:
        """Idle resources that stand on a lease of something of this shape, least recently used first, each with the
        attributes of that something."""
        rows = self._store.rows(
            f"SELECT r.id, r.attributes, r.idle_since, p.grace, under.attributes {_FROM} JOIN lease l ON l.carries = r.id"
            f" JOIN resource under ON under.id = l.resource WHERE {_ROOM} AND r.used = 0 AND l.carries IS NOT NULL"
            " AND under.shape = :shape ORDER BY r.idle_since, r.id LIMIT :most",
            shape=shape,
            most=most,
        )
        return [(Idle(*row[:4]), row[4]) for row in rows]

    def idle_and_closed(self) -> list[int]:
        """Idle resources that may take no new lease, since what they stand on is switched off, gone or changed, and that
        need no more rest."""
        rows = self._store.rows(
            "SELECT id FROM resource WHERE status = 'active' AND open = 0 AND used = 0 AND rests_until IS NULL"
        )
        return [id for (id,) in rows]

    def is_idle_and_closed(self, id: int) -> bool:
        """Whether `idle_and_closed` names it."""
        return bool(
            self._store.rows(
                "SELECT 1 FROM resource WHERE id = :id AND status = 'active' AND open = 0 AND used = 0"
                " AND rests_until IS NULL",
                id=id,
            )
        )

    def in_use(self, shapes: Sequence[int], most: int) -> int:
        """How many resources of these shapes have a lease on them, counted up to `most`."""
        number = 0
        for shape in shapes:
            row = self._store.row(
                "SELECT count(*) FROM (SELECT 1 FROM resource WHERE shape = :shape AND status <> 'destroyed' AND used > 0"
                " LIMIT :most) counted",
                shape=shape,
                most=most - number,
            )
            number += row[0] if row else 0
        return number

    def leases_of(self, blueprint: int) -> int:
        """How many leases stand on a blueprint's resources."""
        row = self._store.row(
            "SELECT COALESCE(sum(used), 0) FROM resource WHERE blueprint = :blueprint AND status <> 'destroyed'",
            blueprint=blueprint,
        )
        return row[0] if row else 0

    def leases_at(self, binding: int) -> int:
        """How many leases stand on the resources that are built on a binding."""
        row = self._store.row(
            "SELECT COALESCE(sum(used), 0) FROM resource WHERE binding = :binding AND status <> 'destroyed'",
            binding=binding,
        )
        return row[0] if row else 0

    # ---- changing

    def take_seat(self, id: int) -> "Answer[int | None]":
        """Count one more lease and raise the fence; the answer is the fence, or None when there is no seat (any more), or
        its time is up: then it is about to go, and would take the lease with it."""
        rows = self._store.ask(_TAKE_SEAT, id=id, now=self._store.clock())
        return lambda: found[0][0] if (found := rows()) else None

    def untake_seat(self, id: int) -> None:
        """Undo what `take_seat` did in this transaction."""
        self._store.run("UPDATE resource SET used = used - 1, fence = fence - 1 WHERE id = :id", id=id)

    def leave_seat(self, id: int) -> Left:
        """Count one lease less. Idle time counts from now."""
        row = self._store.row(
            f"UPDATE resource SET used = used - 1, idle_since = :now WHERE id = :id RETURNING {_OWN_ROOM_COLUMNS}, open, status,"
            " type, rests_until IS NOT NULL",
            id=id,
            now=self._store.clock(),
        )
        assert row is not None
        *room, open, status, type, rests = row
        free = Room(*room) if open and status == ResourceStatus.ACTIVE and not rests else None
        return Left(row[5], bool(open), status_of(ResourceStatus, status), type, bool(rests), free)

    def moving(self) -> list[tuple[int, ResourceStatus, str | None, float]]:
        """Resources that somebody must move on: id, status, the process at work on it, not before when."""
        rows = self._store.rows(
            f"SELECT id, status, worker, not_before FROM resource WHERE {RESOURCE_MOVING} ORDER BY id"
        )
        return [(id, ResourceStatus(status), worker, not_before) for id, status, worker, not_before in rows]

    def start(self, id: int) -> None:
        """Let its lifetime, if it has one, begin now."""
        self._store.run(
            "UPDATE resource SET until = :now + (SELECT lifetime FROM blueprint b WHERE b.id = resource.blueprint)"
            " WHERE id = :id AND until IS NOT NULL",
            id=id,
            now=self._store.clock(),
        )

    def rest(self, id: int, until: float) -> None:
        """Let it take no new lease before this moment."""
        self._store.run("UPDATE resource SET rests_until = :until WHERE id = :id", id=id, until=until)

    def close(self, id: int) -> None:
        """Let it take no new lease, whatever is offered later, and go with its last."""
        self._store.run("UPDATE resource SET open = 0, given_up = 1 WHERE id = :id", id=id)

    def rested(self, now: float) -> bool:
        """Whether one has rested long enough, or would rest for too long."""
        return bool(
            self._store.rows(
                f"SELECT 1 FROM resource WHERE rests_until IS NOT NULL AND (rests_until <= :now OR {_TOO_LONG}) LIMIT 1",
                now=now,
            )
        )

    def wake_up(self, now: float) -> list[tuple[int, str]]:
        """End the rest of those that have rested long enough: id and type of each. One that would rest for longer than
        its blueprint says, since the clock was set back, begins anew."""
        self._store.run(
            f"UPDATE resource SET rests_until = :now + {_COOLDOWN} WHERE rests_until IS NOT NULL AND {_TOO_LONG}",
            now=now,
        )
        rows = self._store.rows(
            "UPDATE resource SET rests_until = NULL WHERE rests_until IS NOT NULL AND rests_until <= :now RETURNING id, type",
            now=now,
        )
        return [(id, type) for id, type in rows]

    def overdue(self, now: float) -> list[int]:
        """Active resources whose time is over, or which were idle for longer than they are kept; not while they rest."""
        rows = self._store.rows(
            "SELECT id FROM resource WHERE until IS NOT NULL AND status = 'active' AND until <= :now"
            " AND rests_until IS NULL",
            now=now,
        )
        rows += self._store.rows(
            "SELECT id FROM resource WHERE ttl IS NOT NULL AND used = 0 AND status = 'active' AND idle_since + ttl <= :now"
            " AND rests_until IS NULL",
            now=now,
        )
        return sorted({id for (id,) in rows})

    def is_overdue(self, id: int, now: float) -> bool:
        """Whether `overdue` names it."""
        return bool(
            self._store.rows(
                "SELECT 1 FROM resource WHERE id = :id AND status = 'active' AND rests_until IS NULL"
                " AND (until <= :now OR used = 0 AND idle_since + ttl <= :now)",
                id=id,
                now=now,
            )
        )

    def next_end(self) -> float | None:
        """In how many seconds the next resource has come to an end, has rested, or is to have a hook called."""
        row = self._store.row(
            "SELECT (SELECT min(until) FROM resource WHERE until IS NOT NULL AND status = 'active' AND until > :now),"
            " (SELECT min(idle_since + ttl) FROM resource WHERE ttl IS NOT NULL AND used = 0 AND status = 'active'"
            " AND idle_since + ttl > :now),"
            " (SELECT min(rests_until) FROM resource WHERE rests_until IS NOT NULL AND rests_until > :now),"
            f" (SELECT min(not_before) FROM resource WHERE {RESOURCE_MOVING} AND not_before > :now),"
            " (SELECT min(observe_at) FROM resource WHERE observe_at IS NOT NULL AND status = 'active' AND observe_at > :now),"
            " (SELECT min(observe_at) FROM blueprint WHERE observe_at IS NOT NULL AND observe_at > :now)",
            now=self._store.clock(),
        )
        assert row is not None
        return min((moment - self._store.clock() for moment in row if moment is not None), default=None)

    def to_observe(self, now: float) -> list[int]:
        """Active resources that are to be looked at, to see whether they are still there."""
        rows = self._store.rows(
            "SELECT id FROM resource WHERE observe_at IS NOT NULL AND status = 'active' AND observe_at <= :now ORDER BY observe_at",
            now=now,
        )
        return [id for (id,) in rows]

    def take_look(self, id: int, now: float) -> bool:
        """Have the next look at this resource, unless somebody else has it; the one after that is due in its time."""
        return bool(
            self._store.change(
                "UPDATE resource SET observe_at = :now + (SELECT observe_every FROM blueprint b WHERE b.id = resource.blueprint)"
                " WHERE id = :id AND status = 'active' AND observe_at <= :now",
                id=id,
                now=now,
            )
        )

    def count_failure(self, id: int) -> int:
        """Note that its hook failed once more in a row; return how often."""
        row = self._store.row("UPDATE resource SET failures = failures + 1 WHERE id = :id RETURNING failures", id=id)
        return row[0] if row else 0

    def usable(self, shapes: Sequence[int], most: int) -> int:
        """How many resources of these shapes are on what may be leased, those in use, being built or torn down included,
        counted up to `most`."""
        number = 0
        for shape in shapes:
            row = self._store.row(
                "SELECT count(*) FROM (SELECT 1 FROM resource WHERE shape = :shape AND status <> 'destroyed'"
                " AND open = 1 LIMIT :most) counted",
                shape=shape,
                most=most - number,
            )
            number += row[0] if row else 0
        return number

    def is_open(self, id: int | None) -> bool:
        """Whether what it stands on may be leased."""
        return bool(self._store.rows("SELECT 1 FROM resource WHERE id = :id AND open = 1", id=id))

    def types_beside(self, id: int) -> set[str]:
        """The types that are made of bindings which this resource holds, its own included."""
        rows = self._store.rows(
            "SELECT DISTINCT p.type FROM binding b JOIN blueprint p ON p.id = b.blueprint WHERE b.resource = :id", id=id
        )
        return {type for (type,) in rows}

    def blueprint_of(self, id: int) -> int:
        """The id of its blueprint."""
        row = self._store.row("SELECT blueprint FROM resource WHERE id = :id", id=id)
        assert row is not None
        return int(row[0])


@reads("resource")
def from_row(row: tuple[Any, ...]) -> Resource:
    (
        id,
        name,
        type,
        blueprint,
        status,
        attributes,
        slot_locks,
        fence,
        seats,
        used,
        created,
        idle,
        built,
        reclaimed,
        failures,
        not_before,
        rests_until,
        until,
        ttl,
        given_up,
        hooks,
    ) = row
    check_texts(name=name, type=type, hooks=hooks)
    check_moments(created_at=created, idle_since=idle, not_before=not_before, rests_until=rests_until, until=until)
    return Resource(
        id,
        name,
        type,
        blueprint,
        status_of(ResourceStatus, status),
        pairs(attributes, "attributes"),
        texts(slot_locks, "slot_locks"),
        fence,
        None if seats == UNLIMITED else seats,
        used,
        created,
        idle,
        built,
        reclaimed,
        failures,
        not_before,
        rests_until,
        until,
        ttl,
        bool(given_up),
        frozenset(hooks.split()),
    )


#: every resource, in pages, and what reads it
EVERY = (f"SELECT {COLUMNS} {_FROM} WHERE r.id > :after ORDER BY r.id LIMIT :most", from_row)


def _order(shared: bool) -> str:
    if shared:
        return "r.used > 0 ORDER BY r.used, r.idle_since, r.id"
    return "r.used = 0 AND r.idle_since >= :since ORDER BY r.idle_since, r.id"
