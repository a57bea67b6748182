"""The records that Drydock speaks of: frozen, plain, and ignorant of where they are kept.

Moments end in `_at` or `_since` and are UTC seconds since the epoch; `None` means that it has not happened.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

Attributes = Mapping[str, Any]


class LeaseStatus(StrEnum):
    """Where a lease stands. `lifecycle.LEASE_ARROWS` says what may follow what."""

    PENDING = "pending"  # asked for, not granted
    ACQUIRED = "acquired"  # has a resource; the blueprint still prepares it for this lease
    ACTIVE = "active"  # may be used
    RELEASED = "released"  # given back; the blueprint still cleans up after it
    BROKEN = "broken"  # went wrong; still to be cleaned up
    DESTROYED = "destroyed"  # over


class ResourceStatus(StrEnum):
    """Where a resource stands. `lifecycle.RESOURCE_ARROWS` says what may follow what."""

    PENDING = "pending"  # being built
    ACTIVE = "active"  # may be leased
    RELEASED = "released"  # takes no more leases; to be torn down
    BROKEN = "broken"  # went wrong; to be torn down
    DESTROYED = "destroyed"  # gone, its slot locks are free


class Demand(NamedTuple):
    """What a lease asks for."""

    type: str
    blueprints: tuple[str, ...] = ()  #: only these may serve it; empty: any of that type
    attributes: Attributes = {}  #: the resource must have these pairs


class Terms(NamedTuple):
    """When a lease is served, and how long it lasts."""

    priority: int = 0  #: larger is served first
    ttl: float | None = None  #: seconds for which it lives after it was granted or renewed; None: no such end
    until: float | None = None  #: the moment at which it ends; None: no such end


class Blueprint(NamedTuple):
    """A configured, named source of resources of one type, as the store keeps it."""

    id: int
    name: str
    kind: str
    type: str
    source: str | None  #: the shared table of the pool file that its kind draws on, such as "almanac"
    seats: int | None  #: concurrent leases on one resource; None: unlimited
    limit: int | None  #: most resources alive at once; None: no limit
    grace: float  #: seconds that an idle resource is left alone before it may be reclaimed
    pooled: bool  #: True: the kind declared its bindings; False: it makes plans for each request
    hooks: frozenset[str]  #: which of `HOOKS` the kind implements
    enabled: bool  #: switched on here, and in the pool file that was applied with --prune
    live: int  #: resources alive now, broken ones included
    cooldown: float = 0.0  #: seconds that a resource rests after a lease on it was lost instead of given back
    lifetime: float | None = None  #: seconds from its start after which a resource goes, with the leases on it
    ttl: float | None = None  #: seconds after its last lease at which an idle resource goes
    per_lease: tuple[str, ...] = ()  #: wanted attributes of these names are for the lease; no resource need have them
    observe_every: float | None = None  #: seconds between two looks at what is outside; None: no looks


class Binding(NamedTuple):
    """A real thing that a pool hands out, as one blueprint sees it."""

    id: int
    name: str
    blueprint: str
    enabled: bool  #: may take new leases: switched on here, and in service where it is declared
    resource: int | None  #: the resource that holds this binding's slot lock


class Resource(NamedTuple):
    """A thing under management."""

    id: int
    name: str
    type: str
    blueprint: str
    status: ResourceStatus
    attributes: Attributes
    slot_locks: tuple[str, ...]  #: the keys that it declared, and must hold until it is destroyed
    fence: int  #: grows with every grant
    seats: int | None
    used: int  #: leases on it that are not destroyed
    created_at: float
    idle_since: float  #: end of its last lease, or the moment it became active
    built_for: int | None  #: the lease that caused it
    reclaimed_for: int | None  #: the lease that wanted its room
    failures: int  #: how often its last hook failed in a row
    not_before: float  #: a hook that failed or yielded is not called again before this moment
    rests_until: float | None  #: it cools down: no new lease before this moment
    until: float | None  #: when it goes, with the leases on it
    ttl: float | None  #: seconds after its last lease at which it goes
    given_up: bool  #: a holder found it broken: it takes no new lease, and goes with its last
    hooks: frozenset[str]


class Lease(NamedTuple):
    """A request and, once granted, the right to use."""

    id: int
    status: LeaseStatus
    type: str
    blueprints: tuple[str, ...]
    owner: str
    priority: int
    attributes: Attributes
    slot_locks: tuple[str, ...]  #: the keys that it declared on being granted, and must hold until it is destroyed
    fence: int | None
    until: float | None  #: the moment at which it ends
    ttl: float | None  #: seconds for which it lives after it was granted or renewed
    created_at: float
    granted_at: float | None
    ended_at: float | None
    reason: str | None  #: why it broke or was given up
    resource: Resource | None  #: None until granted
    carries: int | None = None  #: the resource that stands on it, and must go before it

    @property
    def demand(self) -> Demand:
        return Demand(self.type, self.blueprints, self.attributes)


class SlotLockRow(NamedTuple):
    """A slot lock that is held."""

    key: str
    holder: str  #: `lease:12` or `resource:3`
    taken_at: float


class Event(NamedTuple):
    """One line of history: `subject.verb`, with the ids it is about."""

    id: int
    at: float
    event: str
    lease: int | None
    resource: int | None
    blueprint: str | None
    data: Attributes


class Finding(NamedTuple):
    """One broken promise, or one thing worth knowing, that `doctor` found."""

    broken: bool  #: False: only worth knowing
    rule: str  #: a short stable name, such as "double-allocation"
    sentence: str
    holders: Sequence[str] = ()  #: the leases and resources it is about


HOOKS = ("activate", "destroy", "activate_lease", "destroy_lease", "sockets")
