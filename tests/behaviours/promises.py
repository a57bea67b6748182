"""The global invariants: what must be true of a store at its end and, replayed from its events, at every moment.

Events are numbered in the order of their commits, so the replay passes through every state that anybody could see.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from drydock.doctor import examine
from drydock.lifecycle import LEASE_ARROWS, LEASE_MOVING, RESOURCE_ARROWS, RESOURCE_MOVING
from drydock.model import Event, LeaseStatus, ResourceStatus
from drydock.store.base import Store

ALL = 1_000_000
GRANTED = (LeaseStatus.ACQUIRED, LeaseStatus.ACTIVE, LeaseStatus.RELEASED, LeaseStatus.BROKEN)

LEASE_EVENTS = {
    "lease.acquired": LeaseStatus.ACQUIRED,
    "lease.activated": LeaseStatus.ACTIVE,
    "lease.reacquired": LeaseStatus.PENDING,
    "lease.broken": LeaseStatus.BROKEN,
    "lease.released": LeaseStatus.RELEASED,
    "lease.expired": LeaseStatus.RELEASED,
    "lease.given-up": LeaseStatus.DESTROYED,
    "lease.destroyed": LeaseStatus.DESTROYED,
}
RESOURCE_EVENTS = {
    "resource.building": ResourceStatus.PENDING,
    "resource.activated": ResourceStatus.ACTIVE,
    "resource.broken": ResourceStatus.BROKEN,
    "resource.released": ResourceStatus.RELEASED,
    "resource.reclaimed": ResourceStatus.RELEASED,
    "resource.drained": ResourceStatus.RELEASED,
    "resource.destroyed": ResourceStatus.DESTROYED,
}


def broken_promises(store: Store, *, settled: bool) -> list[str]:
    """Every invariant that does not hold. `settled`: nothing may be under way or waiting any more."""
    found = [f"{finding.rule}: {finding.sentence}" for finding in examine(store) if finding.broken]
    found += _Replay(store).run()
    if settled:
        found += _unsettled(store)
    return found


def _unsettled(store: Store) -> Iterator[str]:
    for lease in store.leases.live():
        if lease.status in (*LEASE_MOVING, LeaseStatus.PENDING):
            yield f"lease:{lease.id} is still {lease.status}"
    for resource in store.resources.live():
        if resource.status in RESOURCE_MOVING:
            yield f"resource:{resource.id} is still {resource.status}"


class _Replay:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.blueprints = {b.name: b for b in store.offers.blueprints()}
        self.resources = {r.id: r for r in store.resources.latest(ALL)}
        self.leases = {lease.id: lease for lease in store.leases.latest(ALL)}
        self.lease_now: dict[int, LeaseStatus] = {}
        self.resource_now: dict[int, ResourceStatus] = {}
        self.on: dict[int, set[int]] = defaultdict(set)  # leases on a resource
        self.live: Counter[str] = Counter()
        self.holders: dict[str, int] = {}  # resources by the keys that they declared
        self.fences: dict[int | str, int] = {}
        self.found: list[str] = []

    def run(self) -> list[str]:
        for event in self.store.events.after(0, ALL):
            if event.event in RESOURCE_EVENTS:
                self._resource(event)
            elif event.event in LEASE_EVENTS:
                self._lease(event)
        for id, lease in self.leases.items():
            self._expect(
                self.lease_now.get(id, LeaseStatus.PENDING) is lease.status,
                f"lease:{id} is {lease.status}, its events say {self.lease_now.get(id)}",
            )
        for id, resource in self.resources.items():
            self._expect(
                self.resource_now.get(id) is resource.status,
                f"resource:{id} is {resource.status}, its events say {self.resource_now.get(id)}",
            )
        return self.found

    def _expect(self, true: bool, sentence: str) -> None:
        if not true:
            self.found.append(sentence)

    def _resource(self, event: Event) -> None:
        assert event.resource is not None
        assert event.blueprint is not None
        id, new = event.resource, RESOURCE_EVENTS[event.event]
        old = self.resource_now.get(id)
        self.resource_now[id] = new
        keys = self.resources[id].slot_locks
        if old is None:
            self._expect(new in (ResourceStatus.PENDING, ResourceStatus.ACTIVE), f"resource:{id} began {new}")
            self.live[event.blueprint] += 1
            limit = self.blueprints[event.blueprint].limit
            self._expect(
                limit is None or self.live[event.blueprint] <= limit,
                f"event {event.id}: {event.blueprint} was over its limit {limit}",
            )
            for key in keys:
                self._expect(
                    key not in self.holders,
                    f"event {event.id}: {key} was declared by resources {self.holders.get(key)} and {id} at once",
                )
                self.holders[key] = id
        else:
            self._expect((old, new) in RESOURCE_ARROWS, f"event {event.id}: resource:{id} went from {old} to {new}")
        if new is ResourceStatus.DESTROYED:
            self.live[event.blueprint] -= 1
            self._expect(not self.on[id], f"event {event.id}: resource:{id} was destroyed under leases {self.on[id]}")
            for key in keys:
                self.holders.pop(key, None)

    def _lease(self, event: Event) -> None:
        assert event.lease is not None
        id, new = event.lease, LEASE_EVENTS[event.event]
        old = self.lease_now.get(id, LeaseStatus.PENDING)
        hooks = self.blueprints[event.blueprint].hooks if event.blueprint else frozenset()
        at_once = "destroy_lease" not in hooks and "carries" not in event.data
        if new is LeaseStatus.RELEASED and old is LeaseStatus.ACTIVE and at_once:
            new = LeaseStatus.DESTROYED
        self._expect((old, new) in LEASE_ARROWS, f"event {event.id}: lease:{id} went from {old} to {new}")
        self.lease_now[id] = new
        if event.resource is None:
            return
        resource = self.resources[event.resource]
        if old is LeaseStatus.PENDING and new in GRANTED:
            self.on[resource.id].add(id)
            self._expect(
                resource.seats is None or len(self.on[resource.id]) <= resource.seats,
                f"event {event.id}: resource:{resource.id} had leases {self.on[resource.id]} and {resource.seats} seats",
            )
            self._expect(
                self.resource_now[resource.id] is ResourceStatus.ACTIVE,
                f"event {event.id}: lease:{id} was granted on a resource that was {self.resource_now[resource.id]}",
            )
            self._fence(event, resource.id)
        elif old in GRANTED and new not in GRANTED:
            self.on[resource.id].discard(id)
        if new is LeaseStatus.ACTIVE:
            self._expect(
                self.resource_now[resource.id] is ResourceStatus.ACTIVE,
                f"event {event.id}: lease:{id} became active on a resource that was {self.resource_now[resource.id]}",
            )

    def _fence(self, event: Event, resource: int) -> None:
        pooled = event.blueprint is not None and self.blueprints[event.blueprint].pooled
        what: int | str = self.resources[resource].slot_locks[0] if pooled else resource
        fence = event.data["fence"]
        self._expect(
            fence > self.fences.get(what, 0),
            f"event {event.id}: fence {fence} of {what} follows {self.fences.get(what)}",
        )
        self.fences[what] = fence
