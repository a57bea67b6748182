"""The verbs: what the command line and the Python API call.

An engine has one connection to one store. Every verb may be called by any number of processes at once; each raises
`DrydockError`s alone.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .allocator import Lab
from .applying import Change, apply_pool
from .attributes import check, check_name, check_text
from .candidates import Candidates
from .config import PoolFile
from .endings import start_destroying
from .errors import ConfigError, Conflict, DrydockError, NotFound, quoted
from .model import Demand, Lease, ResourceStatus
from .request import Progress, Request
from .steps import Steps
from .store.base import Store

MOST_AT_ONCE = 10_000


class Reclaimed(NamedTuple):
    """What `reclaim` did with one resource, and why not more."""

    id: int
    name: str
    reclaimed: bool
    reason: str


class Engine:
    """See the module. `environment` is where kinds are looked for; `sleep` is handed in so that tests own time."""

    def __init__(
        self,
        store: Store,
        *,
        environment: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.steps = Steps(store, environment)
        self._sleep = sleep
        self._known: dict[str, Candidates] = {}  # who could serve a demand, until something offered changes

    def apply(self, pool: PoolFile, *, prune: bool = False, plan: bool = False) -> list[Change]:
        """Offer what the pool file says; see `applying.apply_pool`. Applying the same file twice changes nothing."""
        changes = apply_pool(self.store, self.steps, pool, prune=prune, plan=plan)
        if not plan:
            self.tidy()
        return changes

    def lease(
        self,
        demand: Demand,
        *,
        owner: str,
        count: int = 1,
        wait_seconds: float | None = None,
        keep: bool = False,
        progress: Progress | None = None,
        lab: Lab | None = None,
    ) -> list[Lease]:
        """Hold `count` leases, all of them or none, and return them active.

        `wait_seconds`: None waits as long as it takes, 0 not at all. `keep`: they outlive this process once all are
        granted; otherwise, and until then, they end with it. `progress` is called with what stands in the way, and
        with each slot lock that was lost, as it happens. `lab` spoils the decision on purpose: the race laboratory.

        Raises `NothingFree` when time is up, `NeverPossible`, `NoBlueprint` or `NotFound` when waiting cannot help,
        `BlueprintError` when what should be built cannot be, `ConfigError` for a demand that cannot be meant.
        Whatever it raises, no lease is left behind.
        """
        if not 1 <= count <= MOST_AT_ONCE:
            raise ConfigError(f"count must be 1 to {MOST_AT_ONCE}, not {count}")
        demand = checked_demand(demand)
        check_text(owner, "owner")
        request = Request(
            self.store, self.steps, demand,
            owner=owner, count=count, keep=keep, lab=lab, progress=progress, known=self._known, tidy=self.tidy, sleep=self._sleep,
        )  # fmt: skip
        return request.pursue(wait_seconds)

    def release(self, lease: int, reason: str | None = None) -> bool:
        """Give back a lease, or a request that still waits. False if that has happened already, which is no error.

        Raises `NotFound` when there never was such a lease.
        """
        return self.steps.release(lease, reason)

    def release_resource(self, resource: int, reason: str | None = None) -> bool:
        """Take a resource away: its leases end first, then it is torn down. False if it was on its way out already."""
        return self.steps.release_resource(resource, reason)

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
            elif left > 0:
                reason = f"idle for too short a time; {left:.0f}s to go"
            else:
                reason = self._reclaim(resource.id)
            results.append(Reclaimed(resource.id, resource.name, not reason, reason))
        return results

    def _reclaim(self, resource: int) -> str:
        """Reclaim an idle resource; return why not, or nothing."""
        try:
            with self.store.write():
                now = self.store.resources.get(resource)
                if now is None or now.used:
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
        with self.store.write():
            if kind == "blueprint":
                found = self.store.offers.switch_blueprint(name, enabled)
            else:
                found = bool(self.store.offers.switch_binding(binding, owner if slash else None, enabled))
            if not found:
                raise NotFound(kind, name)
            self.store.offers.changed()
            about = name if kind == "blueprint" else owner or None
            self.store.events.add(f"{kind}.{'enabled' if enabled else 'disabled'}", blueprint=about, name=name)
        self.tidy()

    def tidy(self) -> bool:
        """Finish what others left: end what died with its process, move on what is in transition.

        False when there was nothing to do, which is cheap. What a blueprint's hook raises here is an event, not an
        error: it must not keep anybody from leasing something else.
        """
        found = False
        for id, process in self.store.leases.bound():
            if not self.store.is_alive(process):
                found = True
                with contextlib.suppress(DrydockError):
                    self.steps.release(id, "its process died")
        for id in self.store.resources.idle_and_closed():
            found = True
            with contextlib.suppress(Conflict), self.store.write():
                start_destroying(self.store, id, ResourceStatus.ACTIVE, "resource.drained", worker=self.store.process)
        for id, _, worker, not_before in self.store.leases.moving():
            if self._may_step(worker, not_before):
                found = True
                with contextlib.suppress(DrydockError):
                    self.steps.step_lease(id)
        for id, _, worker, not_before in self.store.resources.moving():
            if self._may_step(worker, not_before):
                found = True
                with contextlib.suppress(DrydockError):
                    self.steps.step_resource(id)
        return found

    def _may_step(self, worker: str | None, not_before: float) -> bool:
        # A claim of our own is left over from a step that failed: whoever tidies is not at work on anything.
        idle = worker in (None, self.store.process) or not self.store.is_alive(worker)
        return idle and not_before <= self.store.clock()


def checked_demand(demand: Demand) -> Demand:
    """`demand` with its values checked. Raises `ConfigError`."""
    check_name(demand.type, "type")
    for name in demand.blueprints:
        check_name(name, "blueprint")
    twice = next((n for i, n in enumerate(demand.blueprints) if n in demand.blueprints[:i]), None)
    if twice is not None:
        raise ConfigError(f"blueprint {quoted(twice)} is given twice")
    return demand._replace(attributes=check(demand.attributes, "attributes"))
