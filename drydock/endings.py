"""How leases and resources end. Every function here is part of the transaction that its caller has open.

The order never varies: what stands on a lease goes before it; the lease takes no more, the blueprint cleans up after
it, its slot locks and its seat are freed; then the resource may be torn down, and only when it really is gone are its
slot locks, its binding and its place in the limit free, and what it stood on is given back. Ends may be asked for twice,
by anybody, at any time: compare-and-set lets one through. Whoever waits for what became free is served in the same
transaction, and the process that a lease is bound to is told.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from .errors import LeaseLost, NotFound, StatusChanged
from .model import LeaseStatus, ResourceStatus
from .store.base import Store
from .store.leases import Ending, Span
from .store.seats import Seat

HELD = (LeaseStatus.ACQUIRED, LeaseStatus.ACTIVE)


class Released(NamedTuple):
    """What a release did, and what it leaves for `Steps` to do."""

    released: bool  #: False: that had happened already
    lease: int | None = None  #: a lease that the blueprint must clean up after
    resource: int | None = None  #: a resource that must be torn down


def check_held(store: Store, id: int, fence: int | None = None) -> None:
    """Raise `LeaseLost` unless the lease is active, neither its time nor its process is over, and, if given, `fence` is
    its fence.

    `NotFound` if there never was such a lease.
    """
    span = store.leases.span(id)
    if span is None:
        raise NotFound("lease", id)
    if span.status is not LeaseStatus.ACTIVE:
        lease = store.leases.get(id)
        why = f", since {lease.reason}" if lease and lease.reason else ""
        raise LeaseLost(id, f"it is {span.status}{why}")
    if fence is not None and fence != span.fence:
        raise LeaseLost(id, f"its fence is {span.fence}, not {fence}")
    if is_over(store, span):
        raise LeaseLost(id, "its time is over")
    if span.process is not None and not store.is_alive(span.process):
        raise LeaseLost(id, "its process died")


def seconds_left(store: Store, span: Span | Ending | Seat) -> float | None:
    """How long a lease still lasts unless it is renewed; None: without end."""
    if span.until is None and span.deadline is None:
        return None
    ends = [] if span.until is None else [span.until - store.clock()]
    if span.deadline is not None:
        ends.append(span.deadline - store.uptime() if span.boot == store.boot else 0.0)
    return min(ends, default=None)


def is_over(store: Store, span: Span | Ending | Seat) -> bool:
    """Whether its time is over, though it may be that nobody has noted that."""
    left = seconds_left(store, span)
    return left is not None and left <= 0


def tell_holder(store: Store, process: str | None, worker: str | None) -> None:
    """Wake the process that a lease was bound to, unless it gave that back itself: it would only wake itself the next time
    that it sleeps."""
    if process != worker:
        store.wake(process)


def release_lease(
    store: Store,
    id: int,
    worker: str | None,
    reason: str | None = None,
    *,
    event: str = "lease.released",
    lost: bool = False,
) -> Released:
    """Give back a lease, or a request that still waits. `lost`: its holder did not give it back, so its resource cools
    down if its blueprint says so. So it is when its time is over, though nobody has noted that: it was lost by then."""
    if store.seems_crowded and store.pass_on(id, worker, reason, event, lost):
        return Released(released=True)
    ending = store.leases.ending(id)
    if ending is None:
        raise NotFound("lease", id)
    if ending.status is LeaseStatus.DESTROYED:
        return Released(released=False)
    if ending.status in (LeaseStatus.RELEASED, LeaseStatus.BROKEN):
        return Released(released=False, lease=id)
    late = not lost and ending.status in HELD and is_over(store, ending)
    if late:
        event, reason, lost = "lease.expired", reason or "its time was over", True
    tell_holder(store, ending.process, worker)
    if lost and ending.cooldown and ending.resource is not None:
        store.resources.rest(ending.resource, store.clock() + ending.cooldown)
        store.events.add("resource.cooling-down", lease=id, resource=ending.resource, blueprint=ending.blueprint)
    if ending.status is LeaseStatus.PENDING:
        end_lease(store, id, ending, worker=worker, event="lease.given-up", reason=reason)
        store.freed(ending.type)  # those behind a request that wanted several may go on
        building = store.resources.built_for(id)
        if building is not None:
            start_destroying(store, building, ResourceStatus.PENDING, "resource.released")
        return Released(released=True, resource=building)
    if ending.carries is not None:  # what it stands on may be nobody else's before it is gone
        store.move("lease", id, ending.status, LeaseStatus.RELEASED, not_before=0.0, failures=0)
        told = {"carries": ending.carries, **_told(reason)}
        store.events.add(event, lease=id, resource=ending.resource, blueprint=ending.blueprint, **told)
        release_resource(store, ending.carries, worker, "what it stands on was " + ("lost" if lost else "given back"))
        return Released(released=not late, lease=id)
    if ending.status is LeaseStatus.ACTIVE and "destroy_lease" not in ending.hooks:
        to_tear_down = end_lease(store, id, ending, worker=worker, event=event, reason=reason)
        return Released(released=not late, resource=to_tear_down)
    # While it is acquired somebody may be preparing it: the claim stays his, and so does the next step.
    claim = {"worker": worker} if ending.status is LeaseStatus.ACTIVE else {}
    store.move("lease", id, ending.status, LeaseStatus.RELEASED, not_before=0.0, failures=0, **claim)
    store.events.add(event, lease=id, resource=ending.resource, blueprint=ending.blueprint, **_told(reason))
    return Released(released=not late, lease=id)


def release_broken(store: Store, id: int, worker: str | None, reason: str) -> Released:
    """Give back an active lease whose holder found its resource broken: nobody else gets that. It goes with its last
    lease, after it has cooled down if its blueprint says so."""
    ending = store.leases.ending(id)
    held = ending is not None and ending.status is LeaseStatus.ACTIVE and not is_over(store, ending)
    if ending is not None and held and ending.resource is not None:
        store.events.add(
            "resource.given-up", lease=id, resource=ending.resource, blueprint=ending.blueprint, reason=reason
        )
        store.resources.close(ending.resource)
    return release_lease(store, id, worker, reason, lost=held)


def release_resource(store: Store, id: int, worker: str | None, reason: str | None = None) -> bool:
    """Take a resource out of use and give back the leases on it. False if it was on its way out already.

    A lease that was not ready yet is left for `Steps` to throw back, since its request can be served elsewhere.
    """
    resource = store.resources.get(id)
    if resource is None:
        raise NotFound("resource", id)
    if resource.status not in (ResourceStatus.PENDING, ResourceStatus.ACTIVE):
        return False
    start_destroying(store, id, resource.status, "resource.released", worker=worker, reason=reason)
    for lease in store.leases.on_resource(id):
        ending = store.leases.ending(lease)
        if ending and ending.status is LeaseStatus.ACTIVE:
            release_lease(store, lease, worker, reason or "its resource was released")
    return True


def end_lease(
    store: Store,
    id: int,
    ending: Ending,
    *,
    worker: str | None,
    event: str = "lease.destroyed",
    reason: str | None = None,
) -> int | None:
    """Record that a lease is over: its slot locks and its seat are free now.

    Return its resource if that must now be torn down by a hook.
    """
    why = _told(reason)
    store.move("lease", id, ending.status, LeaseStatus.DESTROYED, ended_at=store.clock(), worker=None, **why)
    store.events.add(event, lease=id, resource=ending.resource, blueprint=ending.blueprint, **why)
    store.slot_locks.free(ending.slot_locks, f"lease:{id}")
    if [key for key in ending.slot_locks if not key.startswith("seat(")]:
        # Others may need it, on any resource of any type.
        for type in {ending.type, *store.leases.waited_for()}:
            store.freed(type)
    if ending.resource is None:
        return None
    if store.crowded:
        store.leases.foresee(ending.type)
    return vacate(store, ending.resource, ending.hooks, worker)


def vacate(store: Store, resource: int, hooks: Collection[str], worker: str | None) -> int | None:
    """One lease less on a resource whose blueprint has these hooks. One that takes no new leases goes with its last: return
    it if a hook must see to it."""
    left = store.resources.leave_seat(resource)
    # One that rests goes when it has rested, or its binding could be handed out again at once.
    if (left.open or left.rests) and left.status is ResourceStatus.ACTIVE:
        store.freed(left.type, resource, left.room)
        return None
    if left.used:
        return None
    if left.status is ResourceStatus.ACTIVE:
        start_destroying(store, resource, ResourceStatus.ACTIVE, "resource.drained", worker=worker)
    elif "destroy" not in hooks:
        finish_destroying(store, resource, left.status)
    return resource if "destroy" in hooks else None


def start_destroying(
    store: Store,
    resource: int,
    status: ResourceStatus,
    event: str,
    *,
    lease: int | None = None,
    worker: str | None = None,
    reason: str | None = None,
) -> None:
    """Take a resource out of use; where no hook has to tear it down and no lease is on it, that is the end of it."""
    now = store.resources.get(resource)
    if now is None:
        raise NotFound("resource", resource)
    columns: dict[str, Any] = {"reclaimed_for": lease, "not_before": 0.0, "failures": 0}
    # While it is pending somebody may be building it: the claim stays his, and so does the next step.
    idle = status is ResourceStatus.ACTIVE and not now.used
    if idle and "destroy" in now.hooks:
        columns["worker"] = worker
    store.move("resource", resource, status, ResourceStatus.RELEASED, **columns)
    store.events.add(event, lease=lease, resource=resource, blueprint=now.blueprint, name=now.name, **_told(reason))
    if idle and "destroy" not in now.hooks:
        finish_destroying(store, resource, ResourceStatus.RELEASED)


def finish_destroying(store: Store, resource: int, status: ResourceStatus, worker: str | None = None) -> int | None:
    """Record that the thing is gone: only now are its slot locks, its binding and its place in the limit free, and what
    it stood on is given back. Return the lease of that, after which a blueprint may have to clean up."""
    now = store.resources.get(resource)
    if now is None or now.used:
        raise StatusChanged("resource", resource, (status,), "in use")
    # A builder's plan may name any key, also that of a binding.
    built = store.offers.built_types().intersection(store.leases.waited_for())
    for type in {now.type, *store.resources.types_beside(resource), *built}:
        store.freed(type)
    store.move("resource", resource, status, ResourceStatus.DESTROYED, worker=None, ended_at=store.clock())
    store.slot_locks.free(now.slot_locks, f"resource:{resource}")
    store.offers.let_go(resource, now.fence)
    store.offers.free_room(store.resources.blueprint_of(resource))
    store.events.add("resource.destroyed", resource=resource, blueprint=now.blueprint, name=now.name)
    under = store.leases.under(resource)
    if under is None:
        return None
    store.leases.put_down(under)
    ending = store.leases.ending(under)
    if ending and ending.status is LeaseStatus.RELEASED and "destroy_lease" not in ending.hooks:
        end_lease(store, under, ending, worker=worker)
    else:
        release_lease(store, under, worker, "what stood on it is gone")
    return under


def _told(reason: str | None) -> dict[str, str]:
    return {"reason": reason} if reason else {}
