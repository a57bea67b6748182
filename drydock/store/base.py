"""Transactions, and the one way to change a status. What a dialect must supply is marked abstract.

Every statement is written once, here or in a neighbour, with `:name` parameters, in the subset that SQLite and
PostgreSQL share. No plugin code, no I/O of ours and no sleep ever runs inside `write()`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from time import monotonic, sleep, time
from typing import Any, NamedTuple, TypeVar

from ..errors import StatusChanged, StoreAway, StoreError, StoreFull, StoreMoved, printable
from ..lifecycle import LEASE_ARROWS, LEASE_MOVING, RESOURCE_ARROWS, RESOURCE_MOVING
from ..model import Finding, LeaseStatus
from ..uptime import boot, uptime
from .events import Events
from .leases import Leases
from .offers import Offers
from .records import DamagedRow
from .resources import Resources, Room
from .seats import Seats
from .slot_locks import SlotLocks

#: what each transaction must know when it begins: what is offered, and whether anybody waits
STATE = "SELECT config, EXISTS (SELECT 1 FROM waiting) FROM store WHERE id = 1"
#: the event that says where a frozen store has gone
FROZEN = "store.frozen"
#: no hook is told to wait for longer
LONGEST_PAUSE_SECONDS = 3600.0
#: between one try and the next when a server went away; reaching it again has its own patience
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0)

Row = tuple[Any, ...]
Record = TypeVar("Record")
Result = TypeVar("Result")
#: called when the answer is needed, and as often as it is
Answer = Callable[[], Result]

_ARROWS: dict[str, Any] = {"lease": LEASE_ARROWS, "resource": RESOURCE_ARROWS}
_MOVING: dict[str, Any] = {"lease": LEASE_MOVING, "resource": RESOURCE_MOVING}


class News(NamedTuple):
    """Something that a request may have waited for."""

    type: str  #: who waits for this type may use it
    resource: int | None = None  #: it is a seat on this resource, and nothing else
    room: Room | None = None  #: that resource as it is now, if that is known


def loses_all(error: BaseException) -> bool:
    """Whether the whole transaction is lost with what raised this; SQLite may have undone all of it already."""
    return isinstance(error, StoreError) and not isinstance(error, DamagedRow)


class Store(ABC):
    """One open connection to one store, for one thread of one process."""

    #: whether a commit wakes whom it must, even if its process dies just then
    wakes_surely = False

    def __init__(self, clock: Callable[[], float] = time, uptime: Callable[[], float] = uptime) -> None:
        #: the wall clock
        self.clock = clock
        #: seconds on a clock that nobody sets; `boot` says since which start of the machine
        self.uptime = uptime
        self.boot = boot()
        #: called inside each transaction that freed something, just before its commit: whoever waits is served there
        self.serve: Callable[[list[News]], None] = lambda _: None
        #: called in a transaction as a lease is given back in a crowd; see `handover.Handover.pass_on`
        self.pass_on: Callable[[int, str | None, str | None, str, bool], bool] = lambda *_: False
        #: where nobody can wake us: the version that we last waited on, so that nothing is missed between two waits
        self._seen: int | None = None
        self._news: list[News] = []
        #: whom the open transaction wakes, and what it has granted them
        self._awake: dict[str, list[int]] = {}
        #: rows that a list had to leave out, for whoever shows the list
        self.damaged: list[DamagedRow] = []
        self.events = Events(self)
        self.slot_locks = SlotLocks(self)
        self.offers = Offers(self)
        self.resources = Resources(self)
        self.leases = Leases(self)
        self.seats = Seats(self)

    # ---- what a dialect supplies

    #: the address as it may be shown; never holds a password
    address: str
    #: the address as another process of ours needs it; may hold a password
    url: str
    #: a folder of this machine, maybe not there yet, for a file that is locked while a hook is at work; None: there is none
    hooks_folder: str | None = None
    #: for how long it is tried to get into the store, before a `StoreError`
    patience_seconds: float
    #: names this connection on what it waits for or works on; `is_alive` tells others whether it still runs
    process: str
    #: `Offers.config()` as it is in the transaction that is open
    offered: int = 0
    #: whether somebody waits in the transaction that is open; it may say so of one who waits no more
    crowded: bool = False
    #: whether `wait_for_news` tells only that something has changed, since nobody can be woken
    guesses: bool = False
    #: whether an index may lead to much that is no more there, since somebody may still look at it
    walks_through_the_dead: bool = False
    #: whether a power cut may undo the transaction that is open, as long as nothing later was kept. Its block may say so of
    #: what means nothing once its process is dead; until it does, whoever has it kept waits for the disk
    hasty: bool = False
    #: whether what was hasty may be undone while this process lives on, and its numbers be given to others
    may_forget: bool = False
    #: whether the last transaction was kept; after an interruption nothing else tells
    committed: bool = False
    #: whether this connection may write although the store is frozen
    thaws: bool = False

    @abstractmethod
    def rows(self, statement: str, **parameters: Any) -> list[Row]:
        """All rows that the statement gives, read to the end before anything else happens."""

    def ask(self, statement: str, **parameters: Any) -> Answer[list[Row]]:
        """Run a statement now, and read its rows when they are needed, before the transaction ends. Where an answer costs
        a journey, what is asked before the first is read costs one for all."""
        return self.rows(statement, **parameters).copy

    @abstractmethod
    def run(self, statement: str, **parameters: Any) -> object:
        """Run a statement that gives no rows, and may be done later in the transaction."""

    @abstractmethod
    def change(self, statement: str, **parameters: Any) -> int:
        """Run a statement that gives no rows; return how many it changed."""

    def ask_change(self, statement: str, **parameters: Any) -> Answer[bool]:
        """The same, and whether it changed any, which is answered like what one `ask`s."""
        changed = self.change(statement, **parameters)
        return lambda: bool(changed)

    @abstractmethod
    def confirm(self) -> None:
        """Part of the transaction that is open: what was to be changed until here has been changed, or this raises."""

    @abstractmethod
    def dead_among(self, processes: Iterable[str]) -> set[str]:
        """Those of these names whose process does not run any more. Never guesses by process number."""

    def forget_dead(self, most: int) -> bool:
        """Drop at most so many rows of processes that died long ago, if the store has any. False: there are no more."""
        return False

    @abstractmethod
    def life_left(self) -> float | None:
        """For how many seconds others will believe that this process lives, if they do not hear of it again; None: for
        as long as it does live."""

    @abstractmethod
    def listen(self) -> None:
        """From now on, `wake` reaches `wait_for_news` here. To be called before others can know of our `process`."""

    @abstractmethod
    def wait_for_news(self, seconds: float) -> bool:
        """Sleep until somebody wakes this process, at most so long; whether it was woken.

        It may have been woken before it slept, and more often than there was reason to.
        """

    @abstractmethod
    def news_fileno(self) -> int | None:
        """A descriptor that becomes readable when this process is woken, for who waits for other things too; None where
        there is no such thing. `wait_for_news(0)` makes it unreadable again."""

    @abstractmethod
    def version(self) -> int:
        """A number that is another one when somebody else has committed."""

    @abstractmethod
    def may_watch(self) -> bool:
        """Whether this connection is the one, of all that ask, that looks after the dead and the overdue."""

    @abstractmethod
    def stop_watching(self) -> None:
        """Let another one look after them. May be called twice."""

    @abstractmethod
    def health(self) -> list[Finding]:
        """What `doctor` must know of the database and its file, as far as reading tells."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the store. May be called twice."""

    @abstractmethod
    def _begin(self, *, asks: bool = False) -> None:
        """Start a writing transaction, after checking that the store is still the one that was opened, and set `offered`
        and `crowded` to its `STATE`."""

    @abstractmethod
    def _commit(self) -> None:
        """Keep the transaction. Those in `_awake` are woken after it, unless the commit does it, and empties that."""

    @abstractmethod
    def secure(self, granted: Collection[int] = ()) -> None:
        """Return once no power cut can undo what this connection has seen kept, whoever has kept it; with `granted`, no more
        of that than the grant of these leases."""

    @abstractmethod
    def _look_around(self) -> None:
        """Raise unless what was kept is where others find it. Called after a commit, when all have been told who wait for it."""

    @abstractmethod
    def _wake(self, process: str, secure: Sequence[int] = ()) -> None:
        """Wake a process that waits, if it still does; or tell it that no power cut can undo the grant of these leases.
        Never raises, never blocks."""

    @abstractmethod
    def _begin_reading(self) -> None:
        """Start a transaction that only reads, and sees one moment."""

    @abstractmethod
    def _undo(self) -> None:
        """Undo what is open, if anything is. Never raises."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo the transaction. Never raises."""

    # ---- what a dialect supplies for moving house (see `copying`); all but the first two are part of a transaction

    @abstractmethod
    def columns(self, table: str) -> list[str]:
        """The columns of a table."""

    @abstractmethod
    def is_frozen(self) -> bool:
        """Whether the store may only be read."""

    @abstractmethod
    def set_frozen(self, frozen: bool) -> None:
        """Let the store only be read from now on, by whoever has it open; or let it be written again."""

    @abstractmethod
    def take_time(self) -> None:
        """The transaction may take long."""

    @abstractmethod
    def fill(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows as they are. Raises `StoreDamaged` when the table does not take one of them."""

    @abstractmethod
    def last_ids(self) -> dict[str, int]:
        """The last number that was given to a row, for each table that has given one."""

    @abstractmethod
    def set_last_ids(self, ids: Mapping[str, int]) -> None:
        """Let the next rows of these tables have the numbers that follow."""

    @abstractmethod
    def settle(self, tables: Sequence[str]) -> None:
        """These tables have just been filled."""

    # ---- what all share

    def row(self, statement: str, **parameters: Any) -> Row | None:
        """The first row, or None."""
        rows = self.rows(statement, **parameters)
        return rows[0] if rows else None

    def records(self, rows: Iterable[Row], read: Callable[[Row], Record]) -> list[Record]:
        """Each row as a record. One that cannot be read is left out, and told in `damaged`."""
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except DamagedRow as damaged:
                self.damaged.append(damaged)
        return found

    def write(self, *, asks: bool = False) -> "_Transaction":
        """One writing transaction: all of it is kept, or, when the block raises, nothing.

        What was freed in it is given to those who wait before it is committed, and they are woken after. `asks`: it
        asks for more, and fails on a full disk, where what room is kept is for all that ends or goes on.
        """
        return _Transaction(self, asks)

    def outlook(self, type: str) -> tuple[int, bool]:
        """What is good to know before one asks for this type: `Offers.config()`, and whether others wait for it. The
        transaction that asks knows better."""
        return self.leases.outlook(type)

    def moved_to(self) -> str | None:
        """Where a frozen store has gone; None: it is not frozen."""
        if not self.is_frozen():
            return None
        return next((str(event.data.get("to")) for event in self.events.latest(1, event=FROZEN)), "another one")

    def _refuse_frozen(self) -> None:
        """Raise `StoreMoved`, unless this connection thaws the store that was found frozen as a transaction began."""
        if not self.thaws:
            raise StoreMoved(self.address, self.moved_to() or "another one")

    def _serve(self, news: list[News]) -> None:
        # Whatever is wrong with the queue, or with what is offered, must keep nobody from giving something back.
        try:
            with self.attempt():
                self.serve(news)
        except Exception as error:
            if loses_all(error):
                raise
            self.events.add("queue.not-served", error=printable(f"{type(error).__name__}: {error}"))

    @property
    def seems_crowded(self) -> bool:
        """`crowded`, or what it was in the last transaction where this one has not begun yet."""
        return self.crowded

    @property
    def now(self) -> Any:
        """The clock, as the parameter `now` of a statement: one that uses nothing else of the transaction's may be the
        first in it, and then need not wait until that has begun."""
        return self.clock()

    def freed(self, type: str, resource: int | None = None, room: Room | None = None) -> None:
        """Part of the transaction that is open: somebody who waits for this type may be able to go on; with
        `resource`, only since there is a seat on it."""
        self._news.append(News(type, resource, room))

    def _look_for_news(self, seconds: float, every_seconds: float) -> bool:
        """What `wait_for_news` is where nobody can wake us: look so often whether others have changed something."""
        deadline = monotonic() + seconds
        while (version := self.version()) == self._seen:
            left = deadline - monotonic()
            if left <= 0:
                return False
            sleep(min(every_seconds, left))
        self._seen = version
        return True

    def wake(self, process: str | None, granted: Iterable[int] = ()) -> None:
        """Wake this process once the transaction that is open is committed, and tell it which leases it was granted."""
        if process is not None:
            self._awake.setdefault(process, []).extend(granted)

    def attempt(self) -> AbstractContextManager[None]:
        """Part of a transaction that can be lost alone: when the block raises, only what it wrote is undone. What fails
        after the block loses all of it, so a block that may have come too late ends with `confirm`."""
        return _Attempt(self)

    @contextmanager
    def read(self) -> Iterator[None]:
        """Several statements that see one and the same moment."""
        self._begin_reading()
        try:
            yield
        finally:
            self._undo()

    def insist(self, work: Callable[[], Result]) -> Result:
        """Do `work`, and again as a whole when the store went away, or was full, before anything of it was kept.

        Only for work that may begin anew then: what it has changed outside its transactions stays changed.
        """
        for pause in PAUSES_SECONDS:
            try:
                return work()
            except StoreAway:
                from random import uniform  # costs a command a tenth of its start, and few need it

                sleep(pause * uniform(0.5, 1.5))  # noqa: S311 - so that not all come back at once
            except StoreFull:  # an ending finds room now: the store sees it coming, and has kept some
                break
        return work()

    def is_alive(self, process: str) -> bool:
        """Whether the process that owns this name still runs."""
        return not self.dead_among([process])

    def move(self, table: str, id: int, old: Any, new: Any, **columns: Any) -> None:
        """Change the status of a lease or resource from `old` to `new`, and `columns` with it.

        Compare-and-set, so that nobody acts on a status that is no longer true: raises `StatusChanged` when the row
        has another status, at the latest when the transaction would be kept, and `ValueError` when `lifecycle` has no
        such arrow, which is a bug of ours.
        """
        if (old, new) not in _ARROWS[table]:
            raise ValueError(f"a {table} cannot go from {old} to {new}")
        statement = _move_statement(table, tuple(columns))
        # Plain text, since what is more than that the driver first tries to adapt, which takes its time.
        self._move(table, id, old, statement, dict(columns, id=id, old=str(old), new=str(new)))
        self.leases.foreseen = None
        if new is LeaseStatus.PENDING:
            self.crowded = True

    def _move(self, table: str, id: int, old: Any, statement: str, values: dict[str, Any]) -> None:
        if not self.change(statement, **values):
            now = self.row(f"SELECT status FROM {table} WHERE id = :id", id=id)
            raise StatusChanged(table, id, (old,), now[0] if now else None)

    def anything_over(self) -> bool:
        """Whether something has ended by time or with its process, and nobody has recorded that yet. Cheap, and
        changes nothing."""
        return bool(
            self.leases.overdue()
            or self.resources.overdue(self.clock())
            or self.resources.rested(self.clock())
            or self.dead_among({process for _, process in self.leases.bound()})
        )

    def claim(self, table: str, id: int) -> bool:
        """Write this process's name on a lease or resource in transition, unless a living one works on it already,
        or it is too early. True when it is ours now; a claim of ours counts again."""
        row = self.row(f"SELECT status, worker, not_before FROM {table} WHERE id = :id", id=id)
        if row is None or row[0] not in _MOVING[table]:
            return False
        _, worker, not_before = row
        if worker == self.process:
            return True
        if self.too_early(not_before) or (worker is not None and self.is_alive(worker)):
            return False
        self.run(f"UPDATE {table} SET worker = :me WHERE id = :id", id=id, me=self.process)
        return True

    def has_claimed(self, table: str, id: int) -> bool:
        """Whether the claim on a lease or resource is this process's."""
        row = self.row(f"SELECT worker FROM {table} WHERE id = :id", id=id)
        return row is not None and row[0] == self.process

    def too_early(self, not_before: float) -> bool:
        """Whether a hook is not to be called yet. A pause that is too long to be one was set by a clock that has been
        set back since, and is over."""
        return 0 < not_before - self.clock() <= LONGEST_PAUSE_SECONDS

    def put_down(self, table: str, id: int, after_seconds: float) -> None:
        """Give up a claim; nobody is to take it up before `after_seconds` have passed."""
        later = self.clock() + min(after_seconds, LONGEST_PAUSE_SECONDS)
        self.run(f"UPDATE {table} SET worker = NULL, not_before = :later WHERE id = :id", id=id, later=later)


# Both are entered and left while others wait for their turn, where a generator would take twice as long.


class _Transaction:
    """See `Store.write`."""

    def __init__(self, store: Store, asks: bool) -> None:
        self._store, self._asks = store, asks

    def __enter__(self) -> None:
        store = self._store
        store.hasty = False
        store._news, store._awake, store.leases.foreseen = [], {}, None
        store.events.uncommitted.clear()
        store._begin(asks=self._asks)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        store = self._store
        if error is not None:
            store._roll_back()
            return
        try:
            while store._news:
                news, store._news = store._news, []
                if store.crowded:
                    store.hasty = False
                    store._serve(news)
        except BaseException:
            store._roll_back()
            raise
        store._commit()
        if store.events.heard is not None:
            store.events.heard += store.events.uncommitted
        for process in store._awake:
            store._wake(process)
        if store.hasty:
            return
        store.secure()  # while they look at what they were granted
        for process, granted in store._awake.items():
            if granted:
                store._wake(process, granted)
        store._look_around()


class _Attempt:
    """See `Store.attempt`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._recorded = len(self._store.events.uncommitted)
        self._store.run("SAVEPOINT attempt")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        store = self._store
        if error is not None:
            if loses_all(error):
                return
            del store.events.uncommitted[self._recorded :]
            for granted in store._awake.values():  # who is told of less than he was granted sees to the disk himself
                granted.clear()
            store.run("ROLLBACK TO SAVEPOINT attempt")
        store.run("RELEASE SAVEPOINT attempt")


#: a value that is worked out from the row itself: a ttl, where there is one, begins with the grant
_CHANGES = {"counting_from": "deadline = :counting_from + ttl"}


@lru_cache
def _move_statement(table: str, columns: tuple[str, ...]) -> str:
    changes = "".join(f", {_CHANGES.get(column, f'{column} = :{column}')}" for column in columns)
    return f"UPDATE {table} SET status = :new{changes} WHERE id = :id AND status = :old"
