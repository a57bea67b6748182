"""What time and death do: end what is over, and see that what is in transition is moved on by somebody.

Whoever comes by does it: each command that touches the store, a worker, and, of all who wait, the one that keeps
watch. Everything here may be done by several at once; compare-and-set and claims let one through.
"""

import contextlib
import time

from .endings import is_over, release_lease, release_resource, start_destroying
from .errors import Conflict, DrydockError
from .forgetting import Forgetting
from .model import LeaseStatus, ResourceStatus
from .steps import Steps
from .store.base import Store

#: who keeps watch looks for the dead so often
WATCH_SECONDS = 0.2
#: and looks at everything so often, though nothing seems to have changed
ROUND_SECONDS = 1.0
#: a lease that ends is announced so long before, or a quarter of its time before if that is less
WARN_SECONDS = 60.0
#: what may be ended for its time
LIVE = (LeaseStatus.PENDING, LeaseStatus.ACQUIRED, LeaseStatus.ACTIVE)


class Tender:
    """Looks after one store, for one connection."""

    def __init__(self, store: Store, steps: Steps, forgetting: Forgetting) -> None:
        self.store, self.steps, self.forgetting = store, steps, forgetting
        #: set by whoever wants `tend` to end after the hook that is running
        self.stopping = False
        #: what this process asked for and could not give back when it gave up: why it gave up, and if it is to be given
        #: back only when it is bound to this process
        self.unwanted: dict[int, tuple[str, bool]] = {}
        self._version: int | None = None
        self._bound: list[tuple[int, str]] = []
        self._watched_at = self._round_at = 0.0

    # ---- what is over

    def reap(self) -> bool:
        """End what died with its process and what is past its time, and warn what soon will be. Runs no hook.

        False when there was nothing to do, which is cheap.
        """
        store = self.store
        found = self._give_back()
        # First, or a seat on what is about to go would be handed to somebody. Each is looked at again in its
        # transaction: somebody may have leased it since it was found.
        for id in store.resources.overdue(store.clock()):
            with contextlib.suppress(DrydockError), store.write():
                if store.resources.is_overdue(id, store.clock()):
                    found |= release_resource(store, id, None, "its time is up")
        found |= self._bury(store.leases.bound())
        for id, why in store.leases.overdue():
            found |= self._end(id, why, "lease.expired")
        if store.resources.rested(store.clock()):
            found = True
            with store.write():
                for id, type in store.resources.wake_up(store.clock()):
                    store.freed(type, id)
        for id in store.resources.idle_and_closed():
            with contextlib.suppress(Conflict), store.write():
                if store.resources.is_idle_and_closed(id):
                    start_destroying(store, id, ResourceStatus.ACTIVE, "resource.drained")
                    found = True
        self._warn()
        return found

    def _give_back(self) -> bool:
        found = False
        for id, (why, if_ours) in list(self.unwanted.items()):
            with contextlib.suppress(DrydockError):
                with self.store.write():
                    if not if_ours or self.store.leases.process_of(id) == self.store.process:
                        found |= release_lease(self.store, id, None, why).released
                del self.unwanted[id]
        return found

    def _bury(self, bound: list[tuple[int, str]]) -> bool:
        dead = self.store.dead_among({process for _, process in bound})
        found = False
        for id, process in bound:
            if process in dead:
                found |= self._end(id, "its process died", "lease.released")
        return found

    def _end(self, id: int, why: str, event: str) -> bool:
        try:
            with self.store.write():
                # Looked at again inside: it may have been renewed, or taken over, since it was found.
                if self._is_over(id, why):
                    return release_lease(self.store, id, None, why, event=event, lost=True).released
        except DrydockError:
            pass
        return False

    def _is_over(self, id: int, why: str) -> bool:
        if why == "its process died":
            process = self.store.leases.process_of(id)
            return process is not None and not self.store.is_alive(process)
        span = self.store.leases.span(id)
        return span is not None and span.status in LIVE and is_over(self.store, span)

    def _warn(self) -> None:
        if not self.store.leases.to_warn(WARN_SECONDS):
            return
        with self.store.write():
            for id, process in self.store.leases.to_warn(WARN_SECONDS):
                self.store.leases.warned(id)
                self.store.events.add("lease.ending", lease=id)
                self.store.wake(process)

    # ---- what is in transition

    def tend(self) -> bool:
        """`reap`, then run every hook that is due and that nobody is at work on, and look at what is to be looked at.

        What a hook raises here is an event, not an error: it must not keep anybody from leasing something else.
        """
        found = self.reap()
        for id, _, worker, not_before in self.store.leases.moving():
            if not self.stopping and self._may_step(worker, not_before):
                found = True
                with contextlib.suppress(DrydockError):
                    self.steps.step_lease(id)
        for id, _, worker, not_before in self.store.resources.moving():
            if not self.stopping and self._may_step(worker, not_before):
                found = True
                with contextlib.suppress(DrydockError):
                    self.steps.step_resource(id)
        now = self.store.clock()
        for id in self.store.resources.to_observe(now):
            if not self.stopping:
                with contextlib.suppress(DrydockError):
                    self.steps.observe(id)
        for name in self.store.offers.to_observe(now):
            if not self.stopping:
                with contextlib.suppress(DrydockError):
                    self.steps.look_for_missing(name)
        if self.forgetting.due():
            self.forgetting.step()
        return found

    def _may_step(self, worker: str | None, not_before: float) -> bool:
        # A claim of our own is left over from a step that failed: whoever tends is not at work on anything.
        idle = worker in (None, self.store.process) or not self.store.is_alive(worker)
        return idle and not self.store.too_early(not_before)

    # ---- keeping watch

    def watch(self) -> bool:
        """Of all that call this now and then, one looks after the others: `tend` when that may have something to do.

        True if it had. The others learn of what they wait for by being woken.
        """
        now = time.monotonic()
        if now < self._watched_at + WATCH_SECONDS * 0.9 and now < self._round_at:
            return False
        if not self.store.may_watch():
            return False
        self._watched_at = now
        return self.look()

    def look(self) -> bool:
        """`tend`, if something has changed, somebody has died or a moment has come: whether it had anything to do.

        To be called again after `pause_of_a_look` seconds."""
        version, now = self.store.version(), time.monotonic()
        if version == self._version and now < self._round_at:
            if not self.store.dead_among({process for _, process in self._bound}):
                return False
        else:
            self._version, self._bound = version, self.store.leases.bound()
            left = (self.store.leases.next_end(), self.store.leases.next_retry(), self.store.resources.next_end())
            self._round_at = now + min(
                [ROUND_SECONDS, *(max(seconds, 0.01) for seconds in left if seconds is not None)]
            )
        found = self.tend()
        if found:
            self._version = None
        return found

    def pause(self) -> float:
        """Seconds after which to call `watch` again."""
        if not self.store.may_watch():
            return ROUND_SECONDS
        return self.pause_of_a_look()

    def pause_of_a_look(self) -> float:
        """Seconds after which to call `look` again."""
        return min(WATCH_SECONDS, max(self._round_at - time.monotonic(), 0.001))
