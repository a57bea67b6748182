"""The verbs: what the command line and the Python API call.

An engine has one connection to one store. Every verb may be called by any number of processes at once; each raises
`DrydockError`s alone.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .allocator import Lab
from .attributes import check, check_name, check_text, duration
from .endings import check_held, seconds_left, start_destroying
from .errors import REASON_CHARACTERS, ConfigError, Conflict, NotFound, printable, quoted
from .forgetting import Forgetting, keep_seconds
from .handover import Handover
from .hooks import HookRunner, InProcess
from .interfaces import Interface
from .model import Demand, Lease, Resource, ResourceStatus, Terms
from .request import Progress, Request
from .serving import Queue
from .steps import Steps
from .store.base import Store
from .tending import Tender

if TYPE_CHECKING:
    from socket import socket

    from .applying import Change
    from .config import PoolFile

MOST_AT_ONCE = 10_000
MOST_PRIORITY = 1000
LEAST_TTL_SECONDS = 0.1
LONGEST_SECONDS = 10 * 365 * 86_400.0


#: while a command runs under a lease, no try to reach the store's server takes longer: a look at the lease that takes
#: long would come after the end of the time that it looks at
PATIENCE_SECONDS = 2.0


class Reclaimed(NamedTuple):
    """What `reclaim` did with one resource, and why not more."""

    id: int
    name: str
    reclaimed: bool
    reason: str


class Engine:
    """See the module. `environment` is where kinds are looked for; `sleep` is handed in so that tests own time;
    `hooks` says where hooks run: right here, unless it says otherwise."""

    def __init__(
        self,
        store: Store,
        *,
        environment: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
        hooks: HookRunner | None = None,
    ) -> None:
        self.store = store
        self.steps = Steps(store, environment, hooks or InProcess())
        self._sleep = sleep
        self.queue = Queue(store)
        store.pass_on = Handover(self.queue).pass_on
        self.tender = Tender(store, self.steps, Forgetting(store, keep_seconds(environment)))

    def close(self) -> None:
        """Run no more hooks, and let go of the store. May be called twice."""
        self.steps.hooks.close()
        self.store.close()

    def tend(self) -> bool:
        """See `tending.Tender.tend`."""
        return self.store.insist(self.tender.tend)

    def reap(self) -> bool:
        """See `tending.Tender.reap`."""
        return self.store.insist(self.tender.reap)

    def apply(self, pool: "PoolFile", *, prune: bool = False, plan: bool = False) -> "list[Change]":
        """Offer what the pool file says; see `applying.apply_pool`. Applying the same file twice changes nothing."""
        from .applying import apply_pool  # costs every other command a fiftieth of its start

        changes = self.store.insist(lambda: apply_pool(self.store, self.steps, pool, prune=prune, plan=plan))
        if not plan:
            self.tend()
        return changes

    def lease(
        self,
        demand: Demand,
        *,
        owner: str,
        count: int = 1,
        wait_seconds: float | None = None,
        keep: bool = False,
        priority: int = 0,
        ttl: float | None = None,
        until: float | None = None,
        progress: Progress | None = None,
        lab: Lab | None = None,
    ) -> list[Lease]:
        """Hold `count` leases, all of them or none, and return them active.

        `wait_seconds`: None waits as long as it takes, 0 not at all. `keep`: they outlive this process once all are
        granted; otherwise, and until then, they end with it. `priority`: larger is served first. They end `ttl` seconds
        after they became active or were last renewed, and at the moment `until`. `progress` is called with what stands in the way, and
        with each slot lock that was lost, as it happens. `lab` spoils the decision on purpose: the race laboratory.

        Raises `NothingFree` when time is up, `NeverPossible`, `NoBlueprint` or `NotFound` when waiting cannot help,
        `BlueprintError` when what should be built cannot be, `ConfigError` for a demand that cannot be meant.
        Whatever it raises, no lease is left behind.
        """
        if not 1 <= count <= MOST_AT_ONCE:
            raise ConfigError(f"count must be 1 to {MOST_AT_ONCE}, not {count}")
        demand = checked_demand(demand)
        check_text(owner, "owner")
        terms = Terms(priority, ttl, until)
        check_terms(terms, self.store.clock())
        if self.tender.unwanted:
            self.tend()
        request = Request(
            self.queue, self.tender, demand, terms,
            owner=owner, count=count, keep=keep, lab=lab, progress=progress, sleep=self._sleep,
        )  # fmt: skip
        return request.pursue(wait_seconds)

    def release(
        self, lease: int, reason: str | None = None, *, fence: int | None = None, broken: str | None = None
    ) -> bool:
        """Give back a lease, or a request that still waits. False if that has happened already, which is no error.

        `broken` says what is wrong with its resource: then that takes no new lease and is torn down after its last, once
        it has cooled down if its blueprint says so.

        Raises `NotFound` when there never was such a lease. With `fence`, raises `LeaseLost` unless the lease is held
        with that fence.
        """
        if self.tender.unwanted:
            self.tend()
        why = None if broken is None else printable(broken, REASON_CHARACTERS)
        return self.store.insist(lambda: self.steps.release(lease, reason, fence=fence, broken=why))

    def renew(
        self, lease: int, *, fence: int | None = None, ttl: float | None = None, until: float | None = None
    ) -> Lease:
        """Let the ttl of a lease begin anew, and give it another `ttl` or `until` if one is named.

        Raises `LeaseLost` when it is not held any more, also when its time is over and nobody has ended it yet, or
        when `fence` is not its fence; `NotFound` when there never was such a lease.
        """
        check_terms(Terms(ttl=ttl, until=until), self.store.clock())

        def renew() -> Lease:
            with self.store.write():
                check_held(self.store, lease, fence)
                self.store.leases.extend(lease, ttl, until)
                self.store.leases.count_from_now(lease)
                return self._lease(lease)

        return self.store.insist(renew)

    def keep(self, lease: int, *, until: float) -> Lease:
        """Let a lease outlive its process, and end at `until`. Raises as `renew` does."""
        check_terms(Terms(until=until), self.store.clock())

        def keep() -> Lease:
            with self.store.write():
                check_held(self.store, lease)
                self.store.leases.outlive(lease, until)
                return self._lease(lease)

        return self.store.insist(keep)

    def verify(self, lease: int, *, fence: int | None = None) -> Lease:
        """The lease, if it is held: active, its time not over and, if given, `fence` its fence. Raises as `renew` does."""

        def verify() -> Lease:
            with self.store.read():
                check_held(self.store, lease, fence)
                return self._lease(lease)

        return self.store.insist(verify)

    def sockets(self, resource: Resource) -> "list[socket]":
        """Open sockets for a command under a lease on this resource, which are the caller's from now on.

        Raises `Gone` when it is not fit for that any more.
        """
        return self.steps.sockets(resource)

    def interface(self, lease: Lease) -> Interface:
        """Where commands for what a lease holds run. Raises `ConfigError` when its kind knows no way."""
        assert lease.resource is not None
        return self.steps.interface(lease.resource)

    @contextmanager
    def while_a_command_runs(self) -> Iterator[None]:
        """Be patient with the store's server for `PATIENCE_SECONDS` at most."""
        patience_seconds = self.store.patience_seconds
        self.store.patience_seconds = min(patience_seconds, PATIENCE_SECONDS)
        try:
            yield
        finally:
            self.store.patience_seconds = patience_seconds

    def command_started(self, lease: Lease) -> None:
        """Record that a command for what a lease holds is about to start. Raises as `renew` does."""
        self._tell_of_command("command.started", lease)

    def command_ended(self, lease: Lease, code: int | None) -> None:
        """Record how a command ended, whatever has become of the lease; `code`: None if that is not known."""
        self._tell_of_command("command.ended", lease, code=code)

    def _tell_of_command(self, event: str, lease: Lease, **data: int | None) -> None:
        # Not what it is: its arguments may hold secrets.
        def tell() -> None:
            with self.store.write():
                if not data:
                    check_held(self.store, lease.id, lease.fence)
                resource = lease.resource
                self.store.events.add(
                    event, lease=lease.id, resource=resource and resource.id,
                    blueprint=resource and resource.blueprint, **data,
                )  # fmt: skip

        self.store.insist(tell)

    def seconds_left(self, lease: int) -> float | None:
        """How long a lease lasts unless it is renewed; None: without end. Not more than 0: it is over."""
        span = self.store.leases.span(lease)
        if span is None:
            raise NotFound("lease", lease)
        return seconds_left(self.store, span)

    def ends_at(self, lease: int) -> float | None:
        """The moment at which a lease ends unless it is renewed; None: without end, or over."""
        ends = self.store.leases.ends([lease])
        return ends.get(lease)

    def _lease(self, id: int) -> Lease:
        lease = self.store.leases.get(id)
        if lease is None:
            raise NotFound("lease", id)
        return lease

    def release_resource(self, resource: int, reason: str | None = None) -> bool:
        """Take a resource away: its leases end first, then it is torn down. False if it was on its way out already."""
        return self.store.insist(lambda: self.steps.release_resource(resource, reason))

    def reclaim(self) -> list[Reclaimed]:
        """Take away every idle resource that is past its blueprint's grace; tell why the others stay."""
        graces = {b.name: b.grace for b in self.store.offers.blueprints()}
        results = []
        for resource in self.store.resources.live():
            left = resource.idle_since + graces[resource.blueprint] - self.store.clock()
            if resource.status is not ResourceStatus.ACTIVE:
                reason = f"it is {resource.status}"
            elif resource.used:
                reason = f"{resource.used} leases on it"
            elif resource.rests_until is not None:
                reason = f"it cools down; {max(0.0, resource.rests_until - self.store.clock()):.0f}s to go"
            elif left > 0:
                reason = f"idle for too short a time; {left:.0f}s to go"
            else:
                reason = self.store.insist(partial(self._reclaim, resource.id))
            results.append(Reclaimed(resource.id, resource.name, not reason, reason))
        return results

    def _reclaim(self, resource: int) -> str:
        """Reclaim an idle resource; return why not, or nothing."""
        try:
            with self.store.write():
                now = self.store.resources.get(resource)
                if now is None or now.used or now.rests_until is not None:
                    return "leased just now"
                start_destroying(
                    self.store, resource, ResourceStatus.ACTIVE, "resource.reclaimed", worker=self.store.process
                )
        except Conflict as changed:
            return str(changed)
        outcome = self.steps.step_resource(resource)
        return str(outcome.error) if outcome.error else ""

    def switch(self, target: str, *, enabled: bool) -> None:
        """Switch `blueprint:NAME`, `binding:NAME` or `binding:BLUEPRINT/NAME` on or off.

        Off means no new leases; those that are there stay. Raises `NotFound`, or `ConfigError` for another target.
        """
        kind, colon, name = target.partition(":")
        if kind not in ("blueprint", "binding") or not colon:
            raise ConfigError(f"cannot switch {quoted(target)}; give blueprint:NAME or binding:NAME")
        owner, slash, binding = name.rpartition("/")
        check_name(binding if kind == "binding" else name, kind)
        about = name if kind == "blueprint" else owner or None

        def switch() -> None:
            with self.store.write():
                if kind == "blueprint":
                    found = self.store.offers.switch_blueprint(name, enabled)
                else:
                    found = bool(self.store.offers.switch_binding(binding, owner if slash else None, enabled))
                if not found:
                    raise NotFound(kind, name)
                self.store.offers.changed()
                self.store.events.add(f"{kind}.{'enabled' if enabled else 'disabled'}", blueprint=about, name=name)

        self.store.insist(switch)
        self.tend()


def checked_demand(demand: Demand) -> Demand:
    """`demand` with its values checked. Raises `ConfigError`."""
    check_name(demand.type, "type")
    for number, name in enumerate(demand.blueprints):
        check_name(name, "blueprint")
        if name in demand.blueprints[:number]:
            raise ConfigError(f"blueprint {quoted(name)} is given twice")
    return Demand(demand.type, demand.blueprints, check(demand.attributes, "attributes"))


def check_terms(terms: Terms, now: float) -> None:
    """Raise `ConfigError` for terms that cannot be meant."""
    if not -MOST_PRIORITY <= terms.priority <= MOST_PRIORITY or terms.priority != int(terms.priority):
        raise ConfigError(f"priority must be -{MOST_PRIORITY} to {MOST_PRIORITY}, not {terms.priority}")
    if terms.ttl is not None and not LEAST_TTL_SECONDS <= terms.ttl <= LONGEST_SECONDS:
        raise ConfigError(f"ttl must be {duration(LEAST_TTL_SECONDS)} to {duration(LONGEST_SECONDS)}, not {terms.ttl}")
    if terms.until is not None and not now < terms.until <= now + LONGEST_SECONDS:
        raise ConfigError(f"until must be in the future, at most {duration(LONGEST_SECONDS)} away")
