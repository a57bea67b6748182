"""All rows of one store into another, whatever dialect either speaks; and what makes that sound.

The rows are copied in pages and kept in one transaction of the target, or not at all. They are the same there, but for
what means something only where it was written:

* A process is known by a name in its own store. So no lease is bound to one on arrival, and no hook is anybody's work.
* A request waits for as long as its process asks. It is over on arrival.
* A ttl counts on the clock of its store. The lease has as many seconds left on arrival as it had when it left.

A frozen store is one whose version has a minus before it. Each transaction reads the version as it begins, so that it
costs nothing to see; and what does not know of freezing takes it for a store that it cannot use. Where it went is told
by the last event in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError, Refused, StoreDamaged, listed, quoted
from .base import FROZEN
from .statuses import RESOURCE_MOVING

if TYPE_CHECKING:
    from .base import Row, Store

THAWED, ARRIVED = "store.thawed", "store.arrived"

#: each table and its key, in an order in which nothing points to what is not there yet
TABLES: dict[str, tuple[str, ...]] = {
    "source": ("name",),
    "blueprint": ("id",),
    "settings": ("blueprint",),
    "shape": ("id",),
    "binding": ("id",),
    "trait": ("binding", "name"),
    "resource": ("id",),
    "lease": ("id",),
    "slot_lock": ("key",),
    "event": ("id",),
}
#: those that number their rows themselves
NUMBERED = ("blueprint", "shape", "binding", "resource", "lease", "event")
#: there must be nothing in them
EMPTY = ("blueprint", "lease", "resource", "event")
PAGE = 1000
#: one row of these may be as large as a pool
LARGE = ("source", "settings")

#: `drydock run` looks every second how long its lease lasts
LEAST_SECONDS = 5.0
LEFT_BEHIND = "the store was moved while it waited"

#: told how many rows of a table have been copied, of how many
Progress = Callable[[str, int, int], None]


class Standing(NamedTuple):
    """What is not over in a store."""

    waiting: list[int]  #: requests
    held: list[int]  #: leases
    endless: list[int]  #: leases that last as long as a process, which cannot follow, and have no other end
    at_work: list[str]  #: what a process is at work on


class Clocks(NamedTuple):
    """What a store's clocks show at one moment."""

    clock: float
    uptime: float
    boot: str


class Copied(NamedTuple):
    rows: dict[str, int]  #: for each table
    live: int  #: leases that go on
    unbound: list[int]  #: of these, those that lasted as long as a process and now last until their other end
    over: list[int]  #: requests that waited


def standing(store: "Store") -> Standing:
    """What is not over. Part of a transaction that its caller has open."""
    live = store.rows("SELECT id, status, process, worker, until, deadline FROM lease WHERE status <> 'destroyed'")
    moving = store.rows(f"SELECT id, worker FROM resource WHERE {RESOURCE_MOVING} AND worker IS NOT NULL")
    names = {name for _, _, process, worker, _, _ in live for name in (process, worker) if name is not None}
    alive = names.union(worker for _, worker in moving)
    alive -= store.dead_among(alive)
    held = [row for row in live if row[1] != "pending"]
    return Standing(
        waiting=sorted(row[0] for row in live if row[1] == "pending"),
        held=sorted(row[0] for row in held),
        endless=sorted(
            id
            for id, status, process, _, until, deadline in held
            if status == "active" and process is not None and until is None and deadline is None
        ),
        at_work=[
            *(f"resource {id}" for id, worker in moving if worker in alive),
            # One that is acquired is being prepared, or its requester is about to.
            *(
                f"lease {id}"
                for id, status, process, worker, _, _ in sorted(held)
                if worker in alive or (status == "acquired" and process in alive)
            ),
        ],
    )


def freeze(store: "Store", to: str, until: float | None) -> None:
    """Let nobody write in the store any more, in one transaction. Whoever holds or waits is woken, and learns of it.

    With `until`, the leases that have no end but that of their process have this one too. Raises `Refused` for what
    cannot be left behind.
    """
    with store.write():
        found = standing(store)
        refuse_to_freeze(store, found, until)
        for id in found.endless:
            store.run("UPDATE lease SET until = :until, warned = 0 WHERE id = :id", id=id, until=until)
        for _, process in store.leases.bound():
            store.wake(process)
        store.events.add(FROZEN, to=to, until=until, leases=found.endless)
        store.set_frozen(True)


def thaw(store: "Store") -> bool:
    """Let the store be written again, and take back the ends that `freeze` gave. False if it was not frozen."""
    if not store.is_frozen():
        return False
    store.thaws = True
    try:
        with store.write():
            for event in store.events.latest(1, event=FROZEN):
                for id in event.data.get("leases", ()):
                    store.run(
                        "UPDATE lease SET until = NULL WHERE id = :id AND until = :until AND status = 'active'",
                        id=id,
                        until=event.data.get("until"),
                    )
            store.set_frozen(False)
            store.events.add(THAWED)
    finally:
        store.thaws = False
    return True


def tell_where(store: "Store", to: str) -> None:
    """Let a frozen store say that it has gone there."""
    store.thaws = True
    try:
        with store.write():
            store.events.add(FROZEN, to=to)
    finally:
        store.thaws = False


def refuse_full(store: "Store") -> None:
    """Raise `Refused` unless there is nothing in the store."""
    for table in EMPTY:
        if store.rows(f"SELECT 1 FROM {table} LIMIT 1"):
            raise Refused(f"{quoted(store.address)} is not empty (it has {table}s); give a store that is new")


def copy(source: "Store", target: "Store", *, check: Callable[["Store"], None], progress: Progress) -> Copied:
    """Copy everything, in one transaction of `target`. `check` is called in it when all is there, and may raise.

    The source must be frozen, or nothing may be going on in it: raises `Refused` otherwise.
    """
    frozen = source.is_frozen()
    with ExitStack() as reading:
        if not frozen:
            reading.enter_context(source.read())  # all that is copied is of one moment
            refuse_living(source, standing(source))
        # The clocks in this order: what is asked later shows more, so that no lease loses a second.
        left, last = _clocks(source), source.events.last()
        with target.write():
            target.take_time()
            refuse_full(target)
            arrived = Clocks(target.clock(), target.uptime(), target.boot)
            leases = _Leases(left, arrived)
            rows = {table: _fill(source, target, table, leases, progress) for table in TABLES}
            for resource, end in leases.ends.items():
                # The process does not hear of its end, so it must not come before that of the lease.
                target.run("UPDATE resource SET until = :end WHERE id = :id AND until < :end", id=resource, end=end)
            last_ids = source.last_ids()
            [(config, created_at)] = source.rows("SELECT config, created_at FROM store WHERE id = 1")
            reading.close()  # nobody is kept waiting for what follows
            target.run(
                "UPDATE store SET config = config + :config, created_at = :created_at WHERE id = 1",
                config=config,
                created_at=created_at,
            )
            ours = target.last_ids()
            target.set_last_ids({table: max(last_ids.get(table, 0), ours.get(table, 0)) for table in NUMBERED})
            target.settle(list(TABLES))
            if frozen:  # then the rows are not of one moment, and the numbers may differ
                _refuse_change(source, last)
            for table, number in rows.items():
                there = count(target, table)
                if there != number:
                    raise StoreDamaged(
                        f"{number} rows of {table} were copied to {quoted(target.address)}, which has {there}"
                    )
            for id in leases.over:
                target.events.add("lease.given-up", lease=id, reason=LEFT_BEHIND)
            target.events.add(ARRIVED, source=source.address)
            check(target)
            if frozen:
                _refuse_change(source, last)
    return Copied(rows, leases.live, leases.unbound, leases.over)


class _Leases:
    """Lease by lease, from a store with these clocks to one with those."""

    def __init__(self, left: Clocks, arrived: Clocks) -> None:
        self._left, self._arrived = left, arrived
        self.live = 0
        self.unbound: list[int] = []
        self.over: list[int] = []
        #: of resources on which a lease is that a process holds who is elsewhere: when the last of these leases ends
        self.ends: dict[int, float] = {}

    def moved(self, lease: dict[str, Any]) -> dict[str, Any]:
        if lease["status"] == "pending":
            self.over.append(lease["id"])
            lease |= {"status": "destroyed", "ended_at": self._arrived.clock, "reason": LEFT_BEHIND, "owed": None}
        elif lease["status"] != "destroyed":
            self.live += 1
            if lease["deadline"] is not None:
                seconds = lease["deadline"] - self._left.uptime if lease["boot"] == self._left.boot else 0.0
                lease |= {"deadline": self._arrived.uptime + seconds, "boot": self._arrived.boot}
            if lease["process"] is not None:
                self.unbound.append(lease["id"])
                if lease["until"] is not None:
                    # The process goes by the clock that it had.
                    lease["until"] += max(0.0, self._arrived.clock - self._left.clock)
                self._note_end(lease)
        return lease | {"process": None, "worker": None}

    def _note_end(self, lease: dict[str, Any]) -> None:
        ends = [] if lease["until"] is None else [lease["until"]]
        if lease["deadline"] is not None:
            ends.append(self._arrived.clock + lease["deadline"] - self._arrived.uptime)
        if ends:
            self.ends[lease["resource"]] = max(self.ends.get(lease["resource"], 0.0), min(ends))


def _fill(source: "Store", target: "Store", table: str, leases: _Leases, progress: Progress) -> int:
    columns = source.columns(table)
    if set(columns) != set(target.columns(table)):
        raise StoreDamaged(f"table {table} has other columns in {quoted(target.address)}; upgrade drydock")
    total, done = count(source, table), 0
    progress(table, done, total)
    for page in _pages(source, table, columns):
        if table == "lease":
            page = [tuple(leases.moved(dict(zip(columns, row, strict=True))).values()) for row in page]
        elif table == "resource":
            worker = columns.index("worker")
            page = [(*row[:worker], None, *row[worker + 1 :]) for row in page]
        target.fill(table, columns, page)
        done += len(page)
        progress(table, done, total)
    return total


def _pages(store: "Store", table: str, columns: Sequence[str]) -> Iterator[list["Row"]]:
    key = TABLES[table]
    most = 1 if table in LARGE else PAGE
    places = [columns.index(name) for name in key]
    after = ""
    last: dict[str, Any] = {}
    while rows := store.rows(
        f"SELECT {', '.join(columns)} FROM {table}{after} ORDER BY {', '.join(key)} LIMIT :most", most=most, **last
    ):
        yield rows
        last = {f"last_{name}": rows[-1][place] for name, place in zip(key, places, strict=True)}
        after = f" WHERE ({', '.join(key)}) > ({', '.join(f':{name}' for name in last)})"


def count(store: "Store", table: str) -> int:
    return int(store.rows(f"SELECT count(*) FROM {table}")[0][0])


def _clocks(store: "Store") -> Clocks:
    with ExitStack() as reading:
        # Where the clock is a server's, it is exact in a transaction alone, as that began.
        if store.is_frozen():
            reading.enter_context(store.read())
        return Clocks(store.clock(), store.uptime(), store.boot)


def refuse_to_freeze(store: "Store", found: Standing, until: float | None) -> None:
    """Raise if something of what is not over cannot be left behind, or not so."""
    if until is not None and until < store.clock() + LEAST_SECONDS:
        raise ConfigError(f"--until must be {LEAST_SECONDS:.0f}s away or more, so that holders can learn of it")
    _refuse_work(store, found)
    if found.endless and until is None:
        raise Refused(
            f"of the leases in {quoted(store.address)}, {_shown(found.endless)} last as long as their processes, which"
            " cannot follow; wait for them, or give them an end with: --until WHEN"
        )


def refuse_living(store: "Store", found: Standing) -> None:
    """Raise if something goes on in a store that is not frozen."""
    _refuse_work(store, found)
    if found.held or found.waiting:
        raise Refused(
            f"{quoted(store.address)} is in use ({len(found.held)} leases are held, {len(found.waiting)} requests wait);"
            " wait for its end, or move what is held too with: --freeze"
        )


def _refuse_change(store: "Store", last: int) -> None:
    """Raise if somebody has thawed the store since its last event was this one."""
    if store.events.last() != last or not store.is_frozen():
        raise Refused(f"{quoted(store.address)} was changed while it was copied; copy it again")


def _shown(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")


def _refuse_work(store: "Store", found: Standing) -> None:
    if found.at_work:
        raise Refused(
            f"{quoted(store.address)} cannot be left now: somebody is at work on {listed(found.at_work)}; try again soon"
        )
