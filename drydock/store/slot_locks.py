"""The slot-lock table: one row for each key that is held.

The key is stored whole and compared byte for byte. Keys are taken in sorted order, one order for everyone, so that
two requests for the same two keys cannot wait for one another, and with ON CONFLICT DO NOTHING, since a failed INSERT
would poison a PostgreSQL transaction.
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import SlotLockHeld
from ..model import SlotLockRow
from ..slots import SlotLock
from .records import check_moments, check_texts, reads

if TYPE_CHECKING:
    from .base import Answer, Row, Store

#: Counts up from 0 as long as that slot is taken, so it costs what is taken, not what there is. The walk itself gives the
#: order: a join would come in whichever the server likes.
_FIRST_FREE = """
WITH RECURSIVE slot (number) AS (
    SELECT 0 UNION ALL
    SELECT number + 1 FROM slot
    WHERE number < :of AND (SELECT 1 FROM slot_lock WHERE key = :key || '.slot(' || number || ')') = 1
)
SELECT max(number) FROM slot
"""
_TAKE = "INSERT INTO slot_lock (key, holder, taken_at) VALUES (:key, :holder, :now) ON CONFLICT DO NOTHING RETURNING 1"


class SlotLocks:
    def __init__(self, store: "Store") -> None:
        self._store = store

    def take(self, locks: Iterable[SlotLock], holder: str) -> list[str]:
        """Take all of `locks` for `holder` and return their keys, or raise `SlotLockHeld` naming every key in the way.

        A key that the same holder has counts as taken, and a key asked for twice is one key. When it raises, nothing
        is taken that was not held before.
        """
        return self.ask_for(locks, holder)()

    def ask_for(self, locks: Iterable[SlotLock], holder: str) -> "Answer[list[str]]":
        """Take them as `take` does, which is answered when the keys are needed; to be called once."""
        asked = []
        for lock in sorted(set(locks)):
            key = lock.key if not lock.of else self._numbered(lock, holder)
            answer = self._store.ask(_TAKE, key=key, holder=holder, now=self._store.clock())
            asked.append((key, answer))
        return partial(self._taken, asked, holder)

    def _taken(self, asked: "Iterable[tuple[str, Answer[list[Row]]]]", holder: str) -> list[str]:
        taken: list[str] = []
        new: list[str] = []
        held: dict[str, str] = {}
        for key, answer in asked:
            if answer():
                taken.append(key)
                new.append(key)
                continue
            other = self.holder_of(key)
            if other == holder:
                taken.append(key)
            else:
                held[key] = other or "nobody any more"
        if held:
            self.free(new, holder)
            raise SlotLockHeld(held)
        return taken

    def resolve(self, locks: Iterable[SlotLock], holder: str) -> list[str]:
        """The keys that `take` would take, without taking them. For the race laboratory alone."""
        return [lock.key if not lock.of else self._numbered(lock, holder) for lock in sorted(set(locks))]

    def free(self, keys: Iterable[str], holder: str) -> None:
        """Free those of `keys` that `holder` holds. May be called twice."""
        for key in keys:
            self._store.run("DELETE FROM slot_lock WHERE key = :key AND holder = :holder", key=key, holder=holder)

    def look_free(self, locks: Iterable[SlotLock]) -> bool:
        """Whether all of `locks` are free at this moment. Advice for choosing; only `take` decides."""
        return all(
            self.holder_of(lock.key) is None if not lock.of else self._first_free(lock) is not None
            for lock in set(locks)
        )

    def in_the_way(self, locks: Iterable[SlotLock]) -> set[str]:
        """Who holds what would have to be free for `locks`. Advice, too."""
        held: set[str] = set()
        for lock in locks:
            if not lock.of:
                held.update(filter(None, [self.holder_of(lock.key)]))
            elif self._first_free(lock) is None:
                rows = self._store.rows(
                    "SELECT holder FROM slot_lock WHERE key >= :low AND key < :high",
                    low=f"{lock.key}.slot(",
                    high=f"{lock.key}.slot)",
                )
                held.update(holder for (holder,) in rows)
        return held

    def holder_of(self, key: str) -> str | None:
        row = self._store.row("SELECT holder FROM slot_lock WHERE key = :key", key=key)
        return row[0] if row else None

    def all(self) -> list[SlotLockRow]:
        """Every slot lock that is held, by key."""
        rows = self._store.rows("SELECT key, holder, taken_at FROM slot_lock ORDER BY key")
        return self._store.records(rows, _slot_lock)

    def _numbered(self, lock: SlotLock, holder: str) -> str:
        if lock.of == 1:  # there is nothing to choose, and taking it tells whether it was free
            return lock.slot(0).key
        own = self._own_numbers(lock, holder)
        number = min(own) if own else self._first_free(lock)
        return lock.slot(0 if number is None else number).key

    def _own_numbers(self, lock: SlotLock, holder: str) -> list[int]:
        """Which of the numbered slots `holder` has. Other keys may begin like one, or count further."""
        low = f"{lock.key}.slot("
        rows = self._store.rows(
            "SELECT key FROM slot_lock WHERE key >= :low AND key < :high AND holder = :holder",
            low=low,
            high=f"{lock.key}.slot)",
            holder=holder,
        )
        numbers = [int(digits) for (key,) in rows if (digits := key[len(low) : -1]).isascii() and digits.isdecimal()]
        exact = {key for (key,) in rows}
        return [n for n in numbers if n < lock.of and lock.slot(n).key in exact]

    def _first_free(self, lock: SlotLock) -> int | None:
        if lock.of == 1:
            return None if self.holder_of(lock.slot(0).key) else 0
        [(number,)] = self._store.rows(_FIRST_FREE, key=lock.key, of=lock.of)
        return int(number) if number < lock.of else None


@reads("slot lock")
def _slot_lock(row: tuple[Any, ...]) -> SlotLockRow:
    key, holder, taken_at = row
    check_texts(key=key, holder=holder)
    check_moments(taken_at=taken_at)
    return SlotLockRow(key, holder, taken_at)
