"""Pass a seat on: what a lease gives back goes straight to the first who waits for it.

Most endings in a crowd are this: nothing else is to be had, and the first in the queue can use the very seat. Then its slot
lock and its place in the count change hands where they are, free to nobody in between, and half as much is written as when
both are freed and taken again. All else goes the long way, by `endings` and `serving`; where this one can be gone, that one
comes to the same.
"""

from .allocator import seat_keys
from .endings import is_over, tell_holder
from .serving import Queue, fitting, key_of
from .store.base import loses_all
from .store.seats import Seat


class Handover:
    """Passes on the seats of one store, as one connection serves its queue."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.store = queue.store

    def pass_on(self, lease: int, worker: str | None, reason: str | None, event: str, lost: bool) -> bool:
        """Part of the transaction that is open: what `endings.release_lease` does with an active lease, and what `serving`
        then does with its seat. False if there is more to it than that; then neither has been done."""
        seat = self._simple(lease, lost)
        if seat is None:
            return False
        self.store.seats.pass_on(seat, event, reason)
        tell_holder(self.store, seat.process, worker)
        self.store.wake(seat.heirs_process, [seat.heir])
        return True

    def _simple(self, lease: int, lost: bool) -> Seat | None:
        """The seat of this lease, if it can be passed on; None also if its heir must be looked at more closely."""
        try:
            seat = self.store.seats.held_by(lease)
            if seat is None or (seat.cooldown if lost else is_over(self.store, seat)):
                return None
            # Any other key may be what somebody waits for, anywhere.
            if seat.key not in seat_keys(seat.resource, seat.seats):
                return None
            key = key_of(seat.type, seat.blueprints, seat.attributes)
            possible = self.queue.candidates_of(key, seat.type, seat, self.store.offered)
            useful = fitting(possible, seat.shape, seat.offered)
            return seat if useful and self.store.is_alive(seat.heirs_process) else None
        except Exception as error:
            if loses_all(error):
                raise
            return None  # whatever is wrong with him keeps nobody from giving something back
