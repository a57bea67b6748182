"""How leases and resources end. Every function here is part of the transaction that its caller has open.

The order never varies: a lease takes no more, the blueprint cleans up after it, its slot locks and its seat are freed;
then the resource may be torn down, and only when it really is gone are its slot locks, its binding and its place in
the limit free. Ends may be asked for twice, by anybody, at any time: compare-and-set lets one through.
"""

from typing import Any, NamedTuple

from .errors import NotFound, StatusChanged
from .model import LeaseStatus, ResourceStatus
from .store.base import Store
from .store.leases import Ending


class Released(NamedTuple):
    """What a release did, and what it leaves for `Steps` to do."""

    released: bool  #: False: that had happened already
    lease: int | None = None  #: a lease that the blueprint must clean up after
    resource: int | None = None  #: a resource that must be torn down


def release_lease(store: Store, id: int, worker: str, reason: str | None = None) -> Released:
    """Give back a lease, or a request that still waits."""
    ending = store.leases.ending(id)
    if ending is None:
        raise NotFound("lease", id)
    if ending.status is LeaseStatus.DESTROYED:
        return Released(released=False)
    if ending.status in (LeaseStatus.RELEASED, LeaseStatus.BROKEN):
        return Released(released=False, lease=id)
    if ending.status is LeaseStatus.PENDING:
        end_lease(store, id, ending, worker=worker, event="lease.given-up", reason=reason)
        building = store.resources.built_for(id)
        if building is not None:
            start_destroying(store, building, ResourceStatus.PENDING, "resource.released")
        return Released(released=True, resource=building)
    if ending.status is LeaseStatus.ACTIVE and "destroy_lease" not in ending.hooks:
        to_tear_down = end_lease(store, id, ending, worker=worker, event="lease.released", reason=reason)
        return Released(released=True, resource=to_tear_down)
    # While it is acquired somebody may be preparing it: the claim stays his, and so does the next step.
    claim = {"worker": worker} if ending.status is LeaseStatus.ACTIVE else {}
    store.move("lease", id, ending.status, LeaseStatus.RELEASED, **claim)
    store.events.add("lease.released", lease=id, resource=ending.resource, blueprint=ending.blueprint, **_told(reason))
    return Released(released=True, lease=id)


def release_resource(store: Store, id: int, worker: str, reason: str | None = None) -> bool:
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
    columns = {"reason": reason} if reason else {}
    store.move("lease", id, ending.status, LeaseStatus.DESTROYED, ended_at=store.clock(), worker=None, **columns)
    store.slot_locks.free(ending.slot_locks, f"lease:{id}")
    store.events.add(event, lease=id, resource=ending.resource, blueprint=ending.blueprint, **_told(reason))
    return None if ending.resource is None else vacate(store, ending.resource, worker)


def vacate(store: Store, resource: int, worker: str | None) -> int | None:
    """One lease less on a resource. One that takes no new leases goes with its last: return it if a hook must see to it."""
    left = store.resources.leave_seat(resource)
    if left.used or (left.open and left.status is ResourceStatus.ACTIVE):
        return None
    if left.status is ResourceStatus.ACTIVE:
        start_destroying(store, resource, ResourceStatus.ACTIVE, "resource.drained", worker=worker)
    elif not left.has_destroy_hook:
        finish_destroying(store, resource, left.status)
    return resource if left.has_destroy_hook else None


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
    columns: dict[str, Any] = {"reclaimed_for": lease, "not_before": 0.0}
    # While it is pending somebody may be building it: the claim stays his, and so does the next step.
    idle = status is ResourceStatus.ACTIVE and not now.used
    if idle and "destroy" in now.hooks:
        columns["worker"] = worker
    store.move("resource", resource, status, ResourceStatus.RELEASED, **columns)
    store.events.add(event, lease=lease, resource=resource, blueprint=now.blueprint, name=now.name, **_told(reason))
    if idle and "destroy" not in now.hooks:
        finish_destroying(store, resource, ResourceStatus.RELEASED)


def finish_destroying(store: Store, resource: int, status: ResourceStatus) -> None:
    """Record that the thing is gone: only now are its slot locks, its binding and its place in the limit free."""
    now = store.resources.get(resource)
    if now is None or now.used:
        raise StatusChanged("resource", resource, (status,), "in use")
    store.move("resource", resource, status, ResourceStatus.DESTROYED, worker=None)
    store.slot_locks.free(now.slot_locks, f"resource:{resource}")
    store.offers.let_go(resource, now.fence)
    store.offers.free_room(store.resources.blueprint_of(resource))
    store.events.add("resource.destroyed", resource=resource, blueprint=now.blueprint, name=now.name)


def _told(reason: str | None) -> dict[str, str]:
    return {"reason": reason} if reason else {}
