"""A page of memory that the tormentor and all workers share: what each is to do, and how far it is."""

import mmap
from enum import IntEnum

STOP = 0  #: not 0: finish what you have, take one more lease at most, and say PARKED
FULL = 1  #: not 0: the store must not grow (where there is no small disk to fill)
BAIT = 2  #: not 0: the number of the slot, plus one, that is to take a lease with a short ttl and wait to be stopped
_ORDERS = 3
_GRANTS, _STATE, _CLOCK, _REFUSALS, _WIDTH = range(5)


class State(IntEnum):
    BUSY = 0
    EXPOSED = 1  #: holds a lease with a short ttl, and waits to be stopped
    PARKED = 2


class Board:
    """Each number is written by one process at a time, so what whoever is killed wrote last still stands."""

    def __init__(self, slots: int) -> None:
        self.slots = range(slots)
        self._numbers = memoryview(mmap.mmap(-1, 8 * (_ORDERS + slots * _WIDTH))).cast("q")

    def order(self, what: int, value: int) -> None:
        self._numbers[what] = value

    def ordered(self, what: int) -> int:
        return self._numbers[what]

    def grants(self) -> int:
        return sum(self._get(slot, _GRANTS) for slot in self.slots)

    def refusals(self) -> int:
        """How often the store could not be used."""
        return sum(self._get(slot, _REFUSALS) for slot in self.slots)

    def granted(self, slot: int) -> None:
        self._set(slot, _GRANTS, self._get(slot, _GRANTS) + 1)

    def refused(self, slot: int) -> None:
        self._set(slot, _REFUSALS, self._get(slot, _REFUSALS) + 1)

    def state(self, slot: int) -> State:
        return State(self._get(slot, _STATE))

    def set_state(self, slot: int, state: State) -> None:
        self._set(slot, _STATE, state)

    def clock_offset(self, slot: int) -> int:
        """How many seconds the wall clock of this worker is ahead."""
        return self._get(slot, _CLOCK)

    def set_clock_offset(self, slot: int, seconds: int) -> None:
        self._set(slot, _CLOCK, seconds)

    def _get(self, slot: int, column: int) -> int:
        return self._numbers[_ORDERS + slot * _WIDTH + column]

    def _set(self, slot: int, column: int, value: int) -> None:
        self._numbers[_ORDERS + slot * _WIDTH + column] = value
