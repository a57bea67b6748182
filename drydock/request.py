"""One request, from asking to holding: one lease, or several that are granted together or not at all.

A request is in the queue from the moment it asks. In its turn it decides, does the work that the decision names, and
decides again, until it holds all that it asked for or its time is up. While there is nothing for it, it sleeps: whoever
frees something grants it from afar and wakes it. What is to be built on something asks for that first, by a request of
its own. Whatever ends it early, ^C included, leaves nothing of it behind.
"""

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from .allocator import Act, Ahead, Allocator, Decision, Lab, Lost, Proposal, decide_together
from .attributes import canonical
from .blueprint import Need
from .candidates import Candidates
from .errors import (
    BlueprintError,
    DrydockError,
    LeaseLost,
    NeverPossible,
    NothingFree,
    StatusChanged,
    StoreAway,
    StoreError,
    StoreFull,
    quoted,
)
from .model import Demand, Lease, LeaseStatus, Terms
from .proposing import Proposals, first_bindings, proposals, refuse_what_nobody_builds
from .serving import Mine, Queue, key_of
from .tending import Tender
from .waiting import Waiting, explain, nothing_free

#: a request for which so many builds failed gives up
MOST_FAILURES = 5
FIRST_PAUSE_SECONDS = 0.25
#: what stands on what stands on what: more than this stands on itself
MOST_STORIES = 10
#: the net below the wake-ups: who was not woken looks all the same, if others have changed something since
LOOK_EVERY_SECONDS = 2.0


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
        queue: Queue,
        tender: Tender,
        demand: Demand,
        terms: Terms,
        *,
        owner: str,
        count: int = 1,
        keep: bool = True,
        lab: Lab | None = None,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.queue, self.tender, self.demand, self.terms = queue, tender, demand, terms
        self.store, self.steps = queue.store, tender.steps
        self.owner, self.count, self.keep, self.lab = owner, count, keep, lab
        self.progress, self.sleep = progress, sleep
        self.lost: list[Lost] = []  # to be told
        self.told: set[Lost] = set()
        self.ids: list[int] = []
        self.pending: list[int] = []  # not granted
        self.preparing: list[int] = []  # granted, and not known to be active
        self.held: list[Lease] = []  # when all is granted
        self.proposals: Proposals | None = None
        self.under: _Under | None = None  # for what would be built for it to stand on
        self.upper: Request | None = None  # the one that it is under
        self.deadline: float | None = None
        self._kept_seconds: float | None = None  # for how long builders are kept for others who have not looked yet
        self._just_asked = False  # in the transaction that is open
        self._decision: Decision | None = None  # what the last look came to; None: there is something to look for
        self._seen = 0  # the version of the store in which there was nothing for it
        self._tended = False
        self.built = False  # something was built for it
        self.unsure = False  # a server may forget that it asked, and give its numbers to others
        self.failure: BlueprintError | None = None  # the last, told when time is up
        self.resting: dict[str, float] = {}  # blueprints that failed, and until when they are left alone
        config, self._crowded = self.store.outlook(demand.type)
        self.possible = queue.possible(demand, config)
        if not self.possible.pooled:
            key = key_of(demand.type, canonical(demand.blueprints), canonical(demand.attributes))
            if queue.buildable.get(key) != self.possible.config:
                refuse_what_nobody_builds(self.steps, self.possible, demand)
                queue.buildable[key] = self.possible.config

    def pursue(self, wait_seconds: float | None) -> list[Lease]:
        """Hold all leases and return them, or raise and hold none. `wait_seconds` None: as long as it takes.

        Raises `NothingFree` when time is up, `BlueprintError` when what should be built cannot be.
        """
        self.deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
        try:
            if self.lab:
                self._choose_beforehand(self.lab.delay_seconds)
            self.store.insist(self._ask)
            self.go_on()
            if self.built:
                self.store.insist(lambda: self.steps.drop_builds(self.ids))
            return self._checked(self.held)
        except BaseException as error:
            self._withdraw("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            raise
        finally:
            self._drop_under()
            self.store.stop_watching()

    def go_on(self) -> None:
        """Do all that there is to do, until all is held."""
        while self.pending or self.preparing:
            try:
                self.store.insist(self._step)
            except _ForgottenError:
                self.store.insist(self._ask)
        if not self.held:
            self.store.insist(self._keep)

    def _checked(self, leases: list[Lease]) -> list[Lease]:
        # The first of several may be over before the last is ready.
        for lease in leases:
            if lease.status is not LeaseStatus.ACTIVE:
                raise LeaseLost(lease.id, lease.reason or f"it is {lease.status}")
        return leases

    def _withdraw(self, reason: str) -> None:
        try:
            self.store.insist(
                lambda: self.steps.withdraw(self.ids, reason, of=self.store.process if self.unsure else None)
            )
        except (StoreError, StatusChanged):  # while this process lives nobody else would end them
            self.tender.unwanted.update(dict.fromkeys(self.ids, (reason, self.unsure)))
        except DrydockError:
            pass

    # ---- one step

    def _ask(self) -> None:
        """Join the queue and be served in turn: what is free is granted in the transaction that asked."""
        self.unsure = False
        try:
            with self.store.write(asks=True):
                crowded = self._crowded or self.store.crowded
                process = None if self.keep else self.store.process
                add = self.store.leases.add
                added = [add(self.demand, self.terms, self.owner, process, crowded=crowded) for _ in range(self.count)]
                self.ids = [one.id for one in added]
                self.pending, self.preparing, self.lost, self.told = list(self.ids), [], [], set()
                if self.count > 1:
                    self.store.leases.join(self.ids)
                if self.store.offered != self.possible.config:
                    self.possible = self.queue.possible(self.demand)
                self._refuse_too_many()
                if self.count == 1 and added[0].behind and self.possible.pooled and not self.lab:
                    # What could be had would be that one's, and nothing became free since it was served.
                    self._decision, self._seen = Decision(Act.WAIT), self.store.version()
                else:
                    self._just_asked = True
                    self._look(crowded=crowded, settled=True)
                # Who has to wait need not wait for the disk first: a request means nothing without its process.
                self.store.hasty = self._decision is not None and self._decision.act in (Act.WAIT, Act.PLANS)
                if self.pending or self.preparing:
                    for id in self.ids:
                        self.store.events.add("lease.requested", lease=id)
                        if self.keep:
                            self.store.leases.bind(id, self.store.process)
                    self.store.listen()
                else:
                    self.held = self._read()
        except BaseException:
            if not self.store.committed:
                self.ids = self._ours()
            raise
        finally:
            self._just_asked = False
            self.unsure = self.store.may_forget and self.store.hasty

    def _ours(self) -> list[int]:
        # A commit that failed may have been done all the same; numbers that were rolled back may be somebody else's.
        with contextlib.suppress(StoreError):
            return [id for id in self.ids if self.store.leases.process_of(id) == self.store.process]
        return []

    def _look(self, *, crowded: bool = True, settled: bool = False) -> None:
        """Take part in the queue once; part of the transaction that is open. `crowded`: others wait, too."""
        self._decision = None
        if crowded and not self.lab:
            self.queue.serve(self.demand.type, settled=settled, mine=Mine(self.ids[0], self._decide))
        else:
            self._decide(Ahead(), False)
        if self._decision is not None and self._decision.act is Act.WAIT:
            self._seen = self.store.version()  # read later, it would hide what was committed in between

    def _step(self) -> None:
        try:
            if self.preparing:
                self._prepare(self.preparing[0])
            else:
                self._advance()
        except (StoreAway, StoreFull):
            # What was granted in the transaction that is lost was not granted: look at all of it again.
            self.pending, self.preparing, self.held, self._decision = list(self.ids), [], [], None
            raise

    def _advance(self) -> None:
        while self.lost and self.progress:
            self.progress(self.lost.pop(0))
        decision, self._decision = self._decision, None
        if decision is None:
            with self.store.write():
                if self.unsure:
                    self._status(self.ids[0])
                self._look()
                self._keep_if_complete()
            self.unsure = False  # what was kept before that is kept, too
            decision, self._decision = self._decision, None
        asked, self.proposals = self.proposals is not None, None
        if decision is None:  # not in the queue any more: granted from afar, or ended
            self._look_at_pending()
        elif decision.act is Act.PLANS:
            self.proposals = self._plan()
        elif decision.act is Act.WAIT:
            if not asked:  # there is no room to build, so that what that needs is better used by others
                self._drop_under()
            self._wait(decision.again_at)
        elif decision.act in (Act.BUILD, Act.CLEAR) and decision.resource is not None:
            self._work(decision.resource, decision.act)

    def _decide(self, ahead: Ahead, hopeless: bool) -> Decision:
        """Decide for every lease that is still pending, now that it is its turn."""
        self._refresh()
        self._kept_seconds = ahead.seconds
        if hopeless and self.proposals is None and self.possible.pooled:
            self._decision = Decision(Act.WAIT)
            return self._decision
        if self.count > 1:  # some may have been granted since, by whoever finished what was built for them
            self._sort()
        ready, in_the_way = self.proposals or (None, ())
        allocator = Allocator(
            self.store, self._rested(),
            process=self.store.process, proposals=ready, in_the_way=in_the_way, ahead=ahead, lab=self.lab,
            just_asked=self._just_asked,
        )  # fmt: skip
        decision, granted = decide_together(allocator, self.pending)
        self._decision = decision
        self.pending = [id for id in self.pending if id not in granted]
        self.preparing += [id for id, one in granted.items() if not one.ready]
        # Recorded last, so that what was lost is told although the attempt that lost it was undone; and once, or a
        # request that looks again and again would fill the history.
        for lost in allocator.lost:
            if lost in self.told:
                continue
            self.told.add(lost)
            self.lost.append(lost)
            self.store.events.add(
                "slot-lock.lost", lease=lost.lease, blueprint=lost.blueprint, key=lost.key, holder=lost.holder
            )
        return decision

    def _plan(self) -> Proposals:
        """Ask the builders. One that fails is left alone for a while if there is somebody else to ask."""
        try:
            found = proposals(self.steps, self._rested(), self.demand.attributes, self.count)
        except BlueprintError as error:
            if not any(c.blueprint.name != error.blueprint for c in self._rested().enabled):
                raise
            self._rest(error, failures=MOST_FAILURES)
            return self._plan()
        return found._replace(ready=self._supported(found.ready))

    def _supported(self, ready: list[Proposal]) -> list[Proposal]:
        """Give each plan what it is to stand on, as far as that is leased by now; ask for it if nobody has."""
        need = next((proposal.on for proposal in ready if proposal.on is not None), None)
        if self.under is not None and (self.under.need, self.under.count) != (need, len(self.pending)):
            self._drop_under()
        if need is None:
            return ready
        if self.under is None:
            self._refuse_circles(next(p.blueprint for p in ready if p.on == need), need)
            self.under = _Under(self, need)
        leases = self.under.advance()
        if leases is None:  # lost before anything stood on it
            self._drop_under()
            return self._supported(ready)
        numbers = itertools.cycle(leases or [None])
        # More plans than leases: a lease that carries something already is taken no second time.
        return [p._replace(under=next(numbers)) if p.on == need else p for p in ready]

    def _refuse_circles(self, blueprint: int, need: Need) -> None:
        """Raise `BlueprintError` if what this would stand on is to stand on this again."""
        stories = [need.type]
        above: Request | None = self
        while above is not None:
            stories.append(above.demand.type)
            if above.demand == Demand(need.type, need.blueprints, need.attributes) or len(stories) > MOST_STORIES:
                name = next(c.blueprint.name for c in self.possible.all if c.blueprint.id == blueprint)
                raise BlueprintError(name, "plans", f"it would stand on itself: {' on '.join(reversed(stories))}")
            above = above.upper

    def _drop_under(self) -> None:
        under, self.under = self.under, None
        if under is not None:
            under.drop()

    def _work(self, resource: int, act: Act) -> None:
        self.built = self.built or act is Act.BUILD
        self.store.stop_watching()  # a hook may take long
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
        """What was built for a lease is granted when it is ready, by whoever built it; what was freed, by whoever freed it."""
        before = self.pending
        self._sort()
        if granted := [id for id in before if id not in self.pending]:
            self.store.secure(granted)  # whoever granted them may not have seen to the disk yet

    def _sort(self) -> None:
        found = self._read() if self.count == 1 else []  # most that are woken hold all that they asked for
        now = {lease.id: lease.status for lease in found} or {id: self._status(id) for id in self.pending}
        self.preparing += [id for id in self.pending if now[id] not in (LeaseStatus.PENDING, LeaseStatus.ACTIVE)]
        self.pending = [id for id in self.pending if now[id] is LeaseStatus.PENDING]
        if not self.pending and not self.preparing and not self.keep:
            self.held = found

    def _prepare(self, id: int) -> None:
        """See a granted lease through to active."""
        status = self._status(id)
        if status is LeaseStatus.ACQUIRED:
            self.store.stop_watching()  # a hook may take long
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
            lease = self.store.leases.get(id)
            raise LeaseLost(id, (lease and lease.reason) or f"it is {status}")

    def _keep(self) -> None:
        with self.store.write() if self.keep else contextlib.nullcontext():
            self._keep_if_complete()

    def _keep_if_complete(self) -> None:
        if self.pending or self.preparing:
            return
        # Until all of it is granted, the request dies with its process; from then on it outlives it.
        for id in self.ids if self.keep else ():
            self.store.leases.bind(id, None)
        self.held = self._read()

    def _read(self) -> list[Lease]:
        # Inside the transaction that grants: nothing may fail between that and our caller's knowing of it.
        return [lease for lease in map(self.store.leases.get, self.ids) if lease]

    # ---- waiting

    def _wait(self, again_at: float | None) -> None:
        """Sleep until this request was granted or woken, or time alone may have changed the answer."""
        if self._is_over():
            return
        if self.progress:
            self.progress(self._explain())
        if self.under is not None and self.under.again_at is not None:
            again_at = self.under.again_at if again_at is None else min(again_at, self.under.again_at)
        seldom = LOOK_EVERY_SECONDS * (5 if self.store.wakes_surely else 1)
        look_at = time.monotonic() + seldom
        moments = list(self.resting.values())  # a blueprint that failed is tried again then
        if self._kept_seconds is not None:
            moments.append(time.monotonic() + self._kept_seconds)
        kept_until = min(moments, default=None)
        while True:
            again_after = LOOK_EVERY_SECONDS if again_at is None else max(0.0, again_at - self.store.clock()) + 0.001
            if kept_until is not None:
                again_after = min(again_after, max(0.0, kept_until - time.monotonic()))
            woken = self.store.wait_for_news(min(self._time_left(), again_after, self.tender.pause()))
            if woken or not self.store.wakes_surely or time.monotonic() >= look_at:
                self._look_at_pending()
            # Where nobody can be woken, news is that anybody has changed anything: all would look, at each of them.
            woken = woken and not (self.store.guesses and self._is_served_by_others())
            if woken or not self.pending or (kept_until is not None and time.monotonic() >= kept_until):
                return
            if self.tender.watch() or (again_at is not None and self.store.clock() >= again_at) or self._is_over():
                return
            if time.monotonic() >= look_at:
                if self.store.version() != self._seen:
                    return
                look_at = time.monotonic() + seldom

    def _is_served_by_others(self) -> bool:
        """Whether whoever frees something can do all that is needed for it: there is no hook to run, and nobody to ask."""
        return all(c.blueprint.pooled and not c.blueprint.hooks for c in self.possible.all)

    def _is_over(self) -> bool:
        """Raise if time is up; but what seems to be in use may be held by the dead, so nobody gives up before he has
        looked for them. True if there were some."""
        if not self._tended and self.deadline is not None and time.monotonic() >= self.deadline:
            self._tended = True
            found = self.tender.tend()
            self._look_at_pending()
            if found or not self.pending:
                return True
        self._check_time()
        return False

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            about = self._in_the_way()
            raise self.failure or NothingFree(nothing_free(about.possible, self._explain()))

    def _in_the_way(self) -> "Request":
        """The request that waits: this one, or the one for what it needs first."""
        return self.under if self.under is not None and self.under.pending else self

    def _explain(self) -> Waiting:
        about = self._in_the_way()
        return explain(self.store, about.possible, about.demand, about.ids)

    def _pause(self, seconds: float | None) -> None:
        """While somebody else is at work for this request: until he wakes us, at most so long."""
        self._check_time()
        self.store.listen()
        self.store.wait_for_news(
            min(self._time_left(), self.tender.pause(), LOOK_EVERY_SECONDS if seconds is None else seconds)
        )
        self.tender.watch()

    def _time_left(self) -> float:
        return LOOK_EVERY_SECONDS if self.deadline is None else max(0.001, self.deadline - time.monotonic())

    def _count_failure(self, error: BlueprintError) -> None:
        """A build failed. Other blueprints are tried first; one that goes on failing ends the request."""
        with self.store.write():
            failures = self.store.leases.count_failure(self.ids[0])
            self.store.events.add("lease.build-failed", lease=self.ids[0], blueprint=error.blueprint, error=str(error))
        if self.count > 1 or failures >= MOST_FAILURES:
            raise error
        self._rest(error, failures)

    def _rest(self, error: BlueprintError, failures: int) -> None:
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
                self.possible = self.queue.possible(self.demand)
            except StoreError:
                raise  # then this transaction is lost
            except DrydockError:
                self.possible = Candidates(self.store.offered, ())

    def _rested(self) -> Candidates:
        now = time.monotonic()
        self.resting = {name: until for name, until in self.resting.items() if until > now}
        if not self.resting:
            return self.possible
        awake = tuple(c for c in self.possible.all if c.blueprint.name not in self.resting)
        return Candidates(self.possible.config, awake)

    def _choose_beforehand(self, delay_seconds: float) -> None:
        """The race laboratory: choose, stop, and only then allocate what may have been taken meanwhile."""
        bindings = first_bindings(self.steps, self.possible, self.count)
        plans = proposals(self.steps, self.possible, self.demand.attributes, self.count)
        self.proposals = plans._replace(ready=[*bindings, *plans.ready])
        if self.progress:
            self.progress(Chosen(tuple(proposal.name for proposal in self.proposals.ready), delay_seconds))
        self.sleep(delay_seconds)

    def _status(self, id: int) -> LeaseStatus:
        if self.unsure:
            status = self.store.leases.status_bound_to(self.store.process, id)
            if status is None:
                raise _ForgottenError
            self.unsure = status is LeaseStatus.PENDING  # what others have granted is kept
            return status
        return self.store.leases.status(id) or LeaseStatus.DESTROYED


class _Under(Request):
    """A request for what is to stand under another request's resource. It has a place of its own in the queue, and never
    sleeps: whoever asked for it does."""

    def __init__(self, upper: Request, need: Need) -> None:
        super().__init__(
            upper.queue, upper.tender, Demand(need.type, need.blueprints, need.attributes), Terms(upper.terms.priority),
            owner=upper.owner, count=len(upper.pending), keep=False, sleep=upper.sleep,
        )  # fmt: skip
        self.need, self.upper = need, upper
        self.again_at: float | None = None  # when time alone may have changed the answer
        self._sleeps = False
        try:
            self.store.insist(self._ask)
        except BaseException:
            self.drop()
            raise

    def advance(self) -> list[int] | None:
        """Do all that can be done for it now. Return its leases once it holds them all, nothing before; None when they
        were lost again."""
        if self.held:
            kept = all(self.store.leases.status(id) is LeaseStatus.ACTIVE for id in self.ids)
            return self.ids if kept else None
        due = self.again_at is not None and self.store.clock() >= self.again_at
        self._look_at_pending()
        if self._sleeps and self.pending and not due and self.store.version() == self._seen:
            return []
        self._sleeps = False
        while (self.pending or self.preparing) and not self._sleeps:
            try:
                self.store.insist(self._step)
            except _ForgottenError:
                self.store.insist(self._ask)
        if self.pending or self.preparing:
            return []
        if not self.held:
            self.store.insist(self._keep)
        return self.ids

    def drop(self) -> None:
        """Give back what nothing stands on: that alone is still bound to this process."""
        self._drop_under()
        self.unsure = True
        self._withdraw("nothing is to stand on it any more")

    def _wait(self, again_at: float | None) -> None:
        self._sleeps, self.again_at = True, again_at

    def _pause(self, seconds: float | None) -> None:
        self._sleeps = True
        self.again_at = None if seconds is None else self.store.clock() + seconds


class _ForgottenError(Exception):
    """The server has crashed, and does not know that this request has asked."""
