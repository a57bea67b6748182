"""Which status may follow which, and who fires each arrow. Nothing else.

Every change of status in the store goes through one helper that looks here first; `tests/test_lifecycle.py` walks
these tables and draws the diagram of `drydock/README.md` from them.
"""

from .model import LeaseStatus as L
from .model import ResourceStatus as R

LEASE_ARROWS: dict[tuple[L, L], str] = {
    (L.PENDING, L.ACTIVE): "the allocator, when the blueprint need not prepare the resource for a lease",
    (L.PENDING, L.ACQUIRED): "the allocator, when the blueprint prepares the resource for each lease",
    (L.PENDING, L.DESTROYED): "the requester, giving up; or whoever finds that it died or its time is over",
    (L.ACQUIRED, L.ACTIVE): "the engine, after the hook activate_lease",
    (L.ACQUIRED, L.PENDING): "the engine, when the resource failed first: the lease is thrown back",
    (L.ACQUIRED, L.BROKEN): "the engine, when the hook activate_lease failed",
    (L.ACQUIRED, L.RELEASED): "release, or the end of its time, before it was ready",
    (L.ACTIVE, L.RELEASED): "release, or the end of its time, when the blueprint cleans up or something stands on it",
    (L.ACTIVE, L.DESTROYED): "release, or the end of its time, when there is nothing to clean up",
    (L.BROKEN, L.DESTROYED): "the engine, after the hook destroy_lease",
    (L.RELEASED, L.DESTROYED): "the engine, after the hook destroy_lease",
}

RESOURCE_ARROWS: dict[tuple[R, R], str] = {
    (R.PENDING, R.ACTIVE): "the engine, after the hook activate",
    (R.PENDING, R.BROKEN): "the engine, when the hook activate failed",
    (R.PENDING, R.RELEASED): "release-resource, before it was ready",
    (R.ACTIVE, R.RELEASED): "release-resource, reclaim, the end of its time, or of a drained resource's last lease",
    (R.BROKEN, R.DESTROYED): "the engine, after the hook destroy",
    (R.RELEASED, R.DESTROYED): "the engine, after the hook destroy, when no lease is left on it",
}

#: statuses that somebody must move on
LEASE_MOVING = (L.ACQUIRED, L.RELEASED, L.BROKEN)
RESOURCE_MOVING = (R.PENDING, R.RELEASED, R.BROKEN)
