"""What is over is kept for a while, so that one can see what happened, and then forgotten.

That is done a few rows at a time, by whoever tends the store: a worker all of it, any other command one small step.
"""

import contextlib
import time
from collections.abc import Mapping

from .attributes import parse_duration
from .errors import DrydockError
from .store.base import Store
from .store.retention import TABLES, Retention

KEEP = "DRYDOCK_KEEP"
DEFAULT_KEEP = "30d"
LEAST_KEEP_SECONDS = 60.0
LONGEST_KEEP_SECONDS = 10 * 365 * 86_400.0
#: rows that one step looks at
ROWS_A_STEP = 200
#: so long from one pass over the store to the next
PAUSE_SECONDS = 60.0


def keep_seconds(environment: Mapping[str, str]) -> float | None:
    """How long `environment` wants things that are over to be kept; None: for ever. Raises `ConfigError`."""
    said = environment.get(KEEP, DEFAULT_KEEP)
    if said == "forever":
        return None
    return parse_duration(said, KEEP, least=LEAST_KEEP_SECONDS, most=LONGEST_KEEP_SECONDS)


class Forgetting:
    """One pass after the other over one store, for one connection."""

    def __init__(self, store: Store, keep: float | None) -> None:
        self.store, self.keep = store, keep
        self._rows = Retention(store)
        self._all = [] if keep is None else list(TABLES)
        self._left = list(self._all)  # of this pass; the first is the one that is walked
        self._after = 0
        self._due_at = 0.0

    def due(self) -> bool:
        """Whether it is time for a step."""
        return time.monotonic() >= self._due_at

    @property
    def unfinished(self) -> bool:
        """Whether a pass has begun and not ended."""
        return self._after > 0 or len(self._left) < len(self._all)

    def step(self) -> bool:
        """One small step of a pass, at most one transaction; the next is due after a while. False: the pass is over.

        What goes wrong is left for the next time: it must not keep anybody from what he came for.
        """
        self._due_at = time.monotonic() + PAUSE_SECONDS
        with contextlib.suppress(DrydockError):
            if self._walk(self.store.clock() - (self.keep or 0.0)):
                return True
        self._left, self._after = list(self._all), 0
        return False

    def _walk(self, before: float) -> bool:
        while self._left and self._rows.is_young(self._left[0], self._after, before):
            self._next_table()
        if not self._left:
            return self.store.forget_dead(ROWS_A_STEP)  # they are no history: nobody can see them
        table = self._left[0]
        window = self._rows.window(table, self._after, before, ROWS_A_STEP)
        if window.old:
            with self.store.write():
                self._rows.drop(table, self._after, window.last, before)
        self._after = window.last
        return True

    def _next_table(self) -> None:
        del self._left[0]
        self._after = 0
