"""The loop of `drydock worker`: all that time and death ask for is done on time, though no other command comes by.

Any number may run, on one store. Each does what is due and not done; compare-and-set and claims let one through.
"""

import time
from collections.abc import Callable

from .engine import Engine
from .errors import StoreDamaged, StoreError
from .model import Event

#: after the store could not be used
PAUSE_AFTER_FAILURE_SECONDS = 1.0


class Worker:
    """`tell` is called with each event that was recorded here, `complain` when the store cannot be used for now."""

    def __init__(
        self,
        engine: Engine,
        *,
        tell: Callable[[Event], None],
        complain: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tender, self._events = engine.tender, engine.store.events
        self._tell, self._complain, self._sleep = tell, complain, sleep
        self._complaint = ""
        self._stopping = False

    def stop(self) -> None:
        """End soon: a hook that is running comes to its end first. May be called from a signal handler."""
        self._stopping = self._tender.stopping = True

    def run(self) -> None:
        """Go on until `stop`. Raises `StoreDamaged` when going on makes no sense."""
        while not self._stopping:
            pause = self._round()
            if pause and not self._stopping:
                self._sleep(pause)

    def run_once(self) -> None:
        """Do all that is due now. Raises `StoreError` when the store cannot be used."""
        while not self._stopping and self._work(self._tender.tend):
            pass

    def _round(self) -> float:
        """Do what is due; return how long to sleep."""
        try:
            if self._work(self._tender.look):
                return 0.0
        except StoreDamaged:
            raise
        except StoreError as error:  # full, or busy for too long: it may be better soon
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._complain(self._complaint)
            return PAUSE_AFTER_FAILURE_SECONDS
        self._complaint = ""
        return self._tender.pause_of_a_look()

    def _work(self, look: Callable[[], bool]) -> bool:
        """Whether something came of it: then there may be more."""
        self._events.heard = []
        try:
            look()
            if self._tender.forgetting.unfinished:
                self._tender.forgetting.step()
        finally:
            heard, self._events.heard = self._events.heard, None
            for event in heard:
                self._tell(event)
        return bool(heard) or self._tender.forgetting.unfinished
