"""Pass a seat on: what a lease gives back goes straight to the first who waits for it.

Most endings in a crowd are this: nothing else is to be had, and the first in the queue can use the very seat. Then its slot
lock and its place in the count change hands where they are, free to nobody in between, and half as much is written as when
both are freed and taken again. All else goes the long way, by `endings` and `serving`; where this one can be gone, that one
comes to the same.
"""

from .allocator import record_grant, seat_keys
from .endings import record_end
from .model import Blueprint
from .serving import Queue, fitting, key_of
from .store.base import loses_all
from .store.leases import Ending, Waiter
from .store.resources import Room


class Handover:
    """Passes on the seats of one store, as one connection serves its queue."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.store = queue.store

    def pass_on(self, id: int, ending: Ending, event: str, reason: str | None) -> bool:
        """Part of the transaction that is open: end this lease, and grant its seat to the first in the queue. False if there
        is more to it than that; then neither has been done."""
        room = ending.full
        if room is None or len(ending.slot_locks) != 1:
            return False
        [key] = ending.slot_locks
        if key not in seat_keys(room.id, room.seats):  # any other may be what somebody waits for, anywhere
            return False
        found = self._first(ending.type, room)
        if found is None:
            return False
        waiter, blueprint = found
        holder, heir = f"lease:{id}", f"lease:{waiter.id}"
        seat, lock = self.store.resources.pass_seat(room.id), self.store.slot_locks.pass_on(key, holder, heir)
        fence, had = seat(), lock()
        # It rests, or its time is up; or the lease never had what its row says, and a fence that nobody is given does no harm.
        if fence is None or not had:
            self.store.slot_locks.pass_on(key, heir, holder)
            return False
        record_end(self.store, id, ending, event, reason)
        record_grant(self.store, waiter.id, room.id, blueprint, fence, ending.slot_locks, waiter.process)
        self.store.wake(waiter.process, [waiter.id])
        return True

    def _first(self, type: str, room: Room) -> tuple[Waiter, Blueprint] | None:
        """The first in the queue, and as a lease of which blueprint he can have a seat there; None also if he must be looked at
        more closely."""
        try:
            waiting = self.store.leases.first_two(type)
            if not waiting or (len(waiting) > 1 and waiting[1].request == waiting[0].request):  # he wants several
                return None
            first = waiting[0]
            if first.until is not None or first.owed is not None or first.at_work:
                return None
            key = key_of(type, first.blueprints, first.attributes)
            candidate = fitting(self.queue.candidates_of(key, type, first, self.store.offered), room)
            if candidate is None or first.process is None or not self.store.is_alive(first.process):
                return None
            return first, candidate.blueprint
        except Exception as error:
            if loses_all(error):
                raise
            return None  # whatever is wrong with him keeps nobody from giving something back
