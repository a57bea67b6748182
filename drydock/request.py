"""One request, from asking to holding: one lease, or several that are granted together or not at all.

A request decides, does the work that the decision names, and decides again, until it holds all that it asked for or
its time is up. Whatever ends it early, ^C included, leaves nothing of it behind.
"""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from .allocator import Act, Allocator, Decision, Lab, Lost
from .attributes import canonical
from .candidates import Candidates, candidates
from .errors import BlueprintError, DrydockError, NeverPossible, NothingFree, StatusChanged, quoted
from .model import Demand, Lease, LeaseStatus
from .proposing import Proposals, first_bindings, proposals, refuse_what_nobody_builds
from .steps import Steps
from .store.base import Store
from .waiting import Waiting, explain, nothing_free

#: a request for which so many builds failed gives up
MOST_FAILURES = 5
FIRST_PAUSE_SECONDS = 0.25
#: time alone changes answers too (a grace runs out, a process dies), so look again at least so often
LOOK_EVERY_SECONDS = 1.0
#: who waits looks for the dead, but not each time that the living change something
TIDY_EVERY_SECONDS = 0.25


class Chosen(NamedTuple):
    """The race laboratory: what was chosen, and how long until it is allocated."""

    names: tuple[str, ...]
    delay_seconds: float


#: told each time that something changes: why the request waits, each slot lock that it lost, what it chose beforehand
Progress = Callable[[Waiting | Lost | Chosen], None]


class Request:
    """See the module. `pursue` is called once."""

    def __init__(
        self,
        store: Store,
        steps: Steps,
        demand: Demand,
        *,
        owner: str,
        count: int = 1,
        keep: bool = True,
        lab: Lab | None = None,
        progress: Progress | None = None,
        known: dict[str, Candidates] | None = None,
        tidy: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.steps, self.demand = store, steps, demand
        self.owner, self.count, self.keep, self.lab = owner, count, keep, lab
        self.progress, self.tidy, self.sleep = progress, tidy, sleep
        self.lost: list[Lost] = []  # to be told
        self.told: set[Lost] = set()
        self.ids: list[int] = []
        self.pending: list[int] = []  # not granted
        self.preparing: list[int] = []  # granted, and not known to be active
        self.proposals: Proposals | None = None
        self.deadline: float | None = None
        self._first: Decision | None = None
        self._tidy_at = 0.0
        self.failure: BlueprintError | None = None  # the last, told when time is up
        self.resting: dict[str, float] = {}  # blueprints that failed, and until when they are left alone
        self._known = {} if known is None else known
        self._key = f"{demand.type} {demand.blueprints} {canonical(demand.attributes)}"
        self.possible = self._known.get(self._key) or candidates(store, demand)
        if self._key not in self._known:
            refuse_what_nobody_builds(steps, self.possible, demand)
            self._known[self._key] = self.possible

    def pursue(self, wait_seconds: float | None) -> list[Lease]:
        """Hold all leases and return them, or raise and hold none. `wait_seconds` None: as long as it takes.

        Raises `NothingFree` when time is up, `BlueprintError` when what should be built cannot be.
        """
        self.deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
        try:
            if self.lab:
                self._choose_beforehand(self.lab.delay_seconds)
            self._ask()
            while self.pending or self.preparing:
                if self.preparing:
                    self._prepare(self.preparing[0])
                else:
                    self._advance()
            return [lease for lease in map(self.store.leases.get, self.ids) if lease]
        except BaseException as error:
            self._withdraw("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            raise

    def _withdraw(self, reason: str) -> None:
        for id in self.ids:
            with contextlib.suppress(DrydockError):
                self.steps.release(id, reason)

    # ---- one step

    def _ask(self) -> None:
        """Write the request down and decide at once: what is free is granted in the transaction that asked."""
        try:
            with self.store.write():
                process = None if self.keep else self.store.process
                self.ids = [self.store.leases.add(self.demand, self.owner, process) for _ in range(self.count)]
                self.pending = list(self.ids)
                if self.store.offered != self.possible.config:
                    self.possible = self._known[self._key] = candidates(self.store, self.demand)
                self._refuse_too_many()
                self._first = self._decide()
                if self.pending or self.preparing:
                    for id in self.ids:
                        self.store.events.add("lease.requested", lease=id)
                        self.store.leases.bind(id, self.store.process)
                    self.store.mark()
        except BaseException:
            if not self.store.committed:
                self.ids = []  # numbers that were rolled back may be somebody else's by now
            raise

    def _advance(self) -> None:
        while self.lost and self.progress:
            self.progress(self.lost.pop(0))
        decision, self._first = self._first, None
        if decision is None:
            with self.store.write():
                decision = self._decide()
                self._keep_if_complete()
                if decision.act is Act.WAIT:
                    self.store.mark()
        if decision.act is Act.PLANS:
            self.proposals = proposals(self.steps, self._rested(), self.demand.attributes, self.count)
            return
        self.proposals = None
        if decision.act is Act.WAIT:
            self._wait(decision.again_at)
        elif decision.act in (Act.BUILD, Act.CLEAR) and decision.resource is not None:
            self._work(decision.resource, decision.act)

    def _decide(self) -> Decision:
        """Decide for every lease that is still pending; part of the transaction that is open."""
        self._refresh()
        ready, in_the_way = self.proposals or (None, ())
        allocator = Allocator(
            self.store, self._rested(), self.demand.attributes,
            process=self.store.process, proposals=ready, in_the_way=in_the_way, lab=self.lab,
        )  # fmt: skip
        decision = self._decide_all(allocator)
        # Recorded last, so that what was lost is told although the attempt that lost it was undone; and once, or a
        # request that looks again every second would fill the history.
        for lost in allocator.lost:
            if lost in self.told:
                continue
            self.told.add(lost)
            self.lost.append(lost)
            self.store.events.add(
                "slot-lock.lost", lease=lost.lease, blueprint=lost.blueprint, key=lost.key, holder=lost.holder
            )
        return decision

    def _decide_all(self, allocator: Allocator) -> Decision:
        """One lease takes what it can get. Several take all or nothing: a part alone is undone."""
        granted: dict[int, Decision] = {}
        work: Decision | None = None
        try:
            with self.store.attempt() if self.count > 1 else contextlib.nullcontext():
                for id in self.pending:
                    decision = _decide_one(allocator, id)
                    if decision.act is Act.GRANTED:
                        granted[id] = decision
                    elif decision.act is Act.BUILD:
                        work = work or decision
                    elif self.count > 1:
                        raise _NotAllError(id, decision)
                    else:
                        return decision
        except _NotAllError as missing:
            # Room is made outside the attempt, or it would be undone with the part that was not enough.
            return missing.decision if missing.decision.act is Act.PLANS else allocator.make_room(missing.lease)
        self.pending = [id for id in self.pending if id not in granted]
        self.preparing += [id for id, decision in granted.items() if not decision.ready]
        return work or Decision(Act.GRANTED)

    def _work(self, resource: int, act: Act) -> None:
        outcome = self.steps.step_resource(resource)
        if outcome.error and act is Act.BUILD:
            self._count_failure(outcome.error)
        elif outcome.error:  # what must go first cannot be torn down yet: that is tried again, and this waits for it
            self.failure = outcome.error
            self._pause(outcome.again_after)
        elif not outcome.moved:
            self._pause(outcome.again_after)
        else:
            self.failure = None
        self._look_at_pending()

    def _look_at_pending(self) -> None:
        """What was built for a lease is granted when it is ready, by whoever built it."""
        granted = [id for id in self.pending if self._status(id) is not LeaseStatus.PENDING]
        self.preparing += granted
        self.pending = [id for id in self.pending if id not in granted]

    def _prepare(self, id: int) -> None:
        """See a granted lease through to active."""
        status = self._status(id)
        if status is LeaseStatus.ACQUIRED:
            outcome = self.steps.step_lease(id)
            if outcome.error:
                raise outcome.error
            if not outcome.moved:
                self._pause(outcome.again_after)
            return
        self.preparing.remove(id)
        if status is LeaseStatus.PENDING:  # thrown back: its resource failed before it was ready
            self.pending.append(id)
        elif status is not LeaseStatus.ACTIVE:
            raise StatusChanged("lease", id, (LeaseStatus.ACTIVE,), status)
        else:
            with self.store.write():
                self._keep_if_complete()

    def _keep_if_complete(self) -> None:
        # Until all of it is granted, the request dies with its process; from then on it outlives it.
        if self.keep and not self.pending and not self.preparing:
            for id in self.ids:
                self.store.leases.bind(id, None)

    # ---- waiting

    def _wait(self, again_at: float | None) -> None:
        if self._tidied():  # what seemed to be in use was held by the dead; nobody gives up before he has looked
            return
        self._check_time()
        if self.progress:
            self.progress(explain(self.store, self.possible, self.demand, self.ids))
        self._pause(None if again_at is None else max(0.0, again_at - self.store.clock()) + 0.001)
        self._tidied()
        self._look_at_pending()  # somebody may have given it up for us

    def _tidied(self) -> bool:
        """Finish what others left, unless that was looked after just now. True if there was something to finish."""
        now = time.monotonic()
        if now < self._tidy_at:
            return False
        self._tidy_at = now + TIDY_EVERY_SECONDS
        found = self.tidy()
        self._look_at_pending()
        return found

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            why = explain(self.store, self.possible, self.demand, self.ids)
            raise self.failure or NothingFree(nothing_free(self.possible, why))

    def _pause(self, seconds: float | None) -> None:
        """Until there is news, at most so long."""
        self._check_time()
        left = LOOK_EVERY_SECONDS if self.deadline is None else max(0.001, self.deadline - time.monotonic())
        self.store.wait_for_news(min(left, LOOK_EVERY_SECONDS, LOOK_EVERY_SECONDS if seconds is None else seconds))

    def _count_failure(self, error: BlueprintError) -> None:
        """A build failed. Other blueprints are tried first; one that goes on failing ends the request."""
        with self.store.write():
            failures = self.store.leases.count_failure(self.ids[0])
            self.store.events.add("lease.build-failed", lease=self.ids[0], blueprint=error.blueprint, error=str(error))
        if self.count > 1 or failures >= MOST_FAILURES:
            raise error
        self.failure = error
        self.resting[error.blueprint] = time.monotonic() + FIRST_PAUSE_SECONDS * 2**failures

    # ---- what could serve it

    def _refuse_too_many(self) -> None:
        capacity = self.possible.capacity
        if capacity is not None and self.count > capacity:
            what = f"{self.count} x {quoted(self.demand.type)}"
            raise NeverPossible(f"{what} requested, the pool can ever hold {capacity}")

    def _refresh(self) -> None:
        """See what is offered now. That nothing could serve it any more is no reason to break: it may come back."""
        if self.store.offered != self.possible.config:
            try:
                self.possible = candidates(self.store, self.demand)
            except DrydockError:
                self.possible = Candidates(self.store.offered, ())

    def _rested(self) -> Candidates:
        if not self.resting:
            return self.possible
        now = time.monotonic()
        awake = tuple(c for c in self.possible.all if self.resting.get(c.blueprint.name, 0) <= now)
        return self.possible._replace(all=awake)

    def _choose_beforehand(self, delay_seconds: float) -> None:
        """The race laboratory: choose, stop, and only then allocate what may have been taken meanwhile."""
        bindings = first_bindings(self.steps, self.possible, self.count)
        plans = proposals(self.steps, self.possible, self.demand.attributes, self.count)
        self.proposals = plans._replace(ready=[*bindings, *plans.ready])
        if self.progress:
            self.progress(Chosen(tuple(proposal.name for proposal in self.proposals.ready), delay_seconds))
        self.sleep(delay_seconds)

    def _status(self, id: int) -> LeaseStatus:
        ending = self.store.leases.ending(id)
        return ending.status if ending else LeaseStatus.DESTROYED


class _NotAllError(Exception):
    """Inside `_decide_all`: one of several leases cannot be served now."""

    def __init__(self, lease: int, decision: Decision) -> None:
        self.lease, self.decision = lease, decision


def _decide_one(allocator: Allocator, id: int) -> Decision:
    while (decision := allocator.decide(id)).act is Act.AGAIN and allocator.proposals is None:
        pass  # something became free in this very transaction
    return decision
