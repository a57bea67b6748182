"""One decision for one request: use a free resource, wait for my build, build, share, reclaim, or wait.

An `Allocator` decides inside one writing transaction, by indexed look-ups alone: no pool, lock table or history is ever
loaded. Nothing here runs a blueprint's code; what a builder proposes is handed in as `Proposal`s.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from .attributes import fits
from .blueprint import Need
from .candidates import Candidate, Candidates, free_sites, sites_with
from .endings import start_destroying
from .errors import SlotLockHeld
from .model import Attributes, Blueprint, LeaseStatus, ResourceStatus
from .slots import SlotLock
from .slots import load as load_locks
from .store.base import Answer, Store
from .store.offers import UNLIMITED, Site
from .store.records import dump_texts
from .store.resources import Idle, Room

#: a seat is a slot lock up to so many seats; beyond, only the count of leases on the resource limits them
MOST_SEAT_LOCKS = 64
#: how many free things of one shape are tried in one decision, when slot locks of other origin are in the way
MOST_TRIES = 8
#: one is nearly always enough, and cheaper to fetch
FEW_THEN_MORE = (1, MOST_TRIES)


class Proposal(NamedTuple):
    """A resource that could be built: a plan that a builder made, or a binding chosen beforehand."""

    blueprint: int
    name: str
    slot_locks: tuple[SlotLock, ...]
    lease_locks: str
    attributes: Attributes
    shape: int
    site: Site | None = None
    under: int | None = None  #: the lease that it will stand on
    on: Need | None = None  #: what that must be a lease of


class Lab(NamedTuple):
    """The race laboratory: how a decision is to be spoilt on purpose. See `engine.Engine.lease`."""

    delay_seconds: float = 0.0
    slot_locks: bool = True

    def ask_for(self, store: Store, locks: Iterable[SlotLock], holder: str) -> Answer[list[str]]:
        """See `SlotLocks.ask_for`; without slot locks nothing is taken, whoever may hold it."""
        if self.slot_locks:
            return store.slot_locks.ask_for(locks, holder)
        keys = store.slot_locks.resolve(locks, holder)
        return lambda: keys


NO_LAB = Lab()


class Ahead:
    """What older requests could use, so that nobody behind them in the queue may have it."""

    def __init__(self) -> None:
        self.shapes: set[int] = set()  #: everything of these shapes
        self.things: list[tuple[tuple[int, ...], Attributes]] = []  #: of these shapes, what has these attributes
        self.builders: set[int] = set()  #: room to build in these blueprints
        self.seconds: float | None = None  #: after which some of that room is kept no longer

    def keep(self, possible: Candidates) -> None:
        """Everything that could serve this request is kept for it."""
        for candidate in possible.enabled:
            if candidate.traits and candidate.blueprint.pooled:
                self.things.append((candidate.shapes, candidate.traits))
            else:
                self.shapes.update(candidate.shapes)

    def keep_builders(self, builders: set[int], seconds: float) -> None:
        """Room in these builders is kept for so long."""
        if not builders <= self.builders:
            self.builders |= builders
            self.seconds = seconds if self.seconds is None else min(self.seconds, seconds)

    def keeps_all(self, shapes: Iterable[int]) -> bool:
        return self.shapes.issuperset(shapes)

    def keeps(self, shape: int, attributes: Attributes) -> bool:
        return any(shape in shapes and fits(attributes, traits) for shapes, traits in self.things)

    def keeps_room(self, room: Room) -> bool:
        """Whether nobody behind may have a seat there."""
        return room.shape in self.shapes or bool(self.things and self.keeps(room.shape, json.loads(room.attributes)))


class Act(Enum):
    """What came of a decision."""

    GRANTED = "granted"
    BUILD = "build"  # `Decision.resource` is being built for it: a place is reserved, a hook must run
    CLEAR = "clear"  # `Decision.resource` is being torn down to make room: nothing is reserved yet
    PLANS = "plans"  # builders must say first what they could build
    AGAIN = "again"  # something was lost or freed just now; decide once more
    WAIT = "wait"


class Decision(NamedTuple):
    act: Act
    resource: int | None = None
    again_at: float | None = None  #: with WAIT: when time alone changes the answer
    ready: bool = True  #: with GRANTED: False while the blueprint must prepare the resource for the lease


class Lost(NamedTuple):
    """A slot lock that somebody else held when it was needed."""

    lease: int
    blueprint: str
    key: str
    holder: str


def lease_locks(room: Room) -> tuple[SlotLock, ...]:
    """What a lease on this resource must hold: a numbered seat, where they are few enough to number, and its terms."""
    terms = load_locks(room.lease_locks)
    if room.seats > MOST_SEAT_LOCKS:
        return terms
    return (_seat(room.id, room.seats), *terms)


def _seat(resource: int, seats: int) -> SlotLock:
    return SlotLock(f"seat(resource:{resource})", seats)


@lru_cache(maxsize=1000)
def seat_keys(resource: int, seats: int) -> frozenset[str]:
    """The keys of its seats, where they are few enough to number."""
    numbers = range(seats) if seats <= MOST_SEAT_LOCKS else ()
    return frozenset(_seat(resource, seats).slot(number).key for number in numbers)


class Allocator:
    """Decides inside the transaction that its maker has open, for the leases it is asked about, one after the other.

    `proposals` are what builders would build, best first; None means that nobody has asked them yet. `lost` collects
    the slot locks that were lost on the way, for the maker to record when all that was lost is undone. `in_the_way` are
    the holders of slot locks without which more could be built. `process` is the requester's: what must be done for a
    lease is his to do. What is kept for those `ahead` is not touched. `may_reclaim` False: nothing has to go for this, since
    builders may have room that nobody has asked them about. `just_asked`: the leases are of this very transaction, so that
    nothing can have been built or reclaimed for them.
    """

    def __init__(
        self,
        store: Store,
        possible: Candidates,
        *,
        process: str | None = None,
        proposals: Iterable[Proposal] | None = None,
        in_the_way: Collection[str] = (),
        ahead: Ahead | None = None,
        may_reclaim: bool = True,
        just_asked: bool = False,
        lab: Lab | None = None,
    ) -> None:
        self.store = store
        self.ahead = ahead or Ahead()
        self.candidates = _not_kept(possible.enabled, self.ahead.shapes) if self.ahead.shapes else possible.enabled
        self.process = process
        self.proposals = None if proposals is None else list(proposals)
        self.in_the_way = in_the_way
        self.may_reclaim = may_reclaim
        self.just_asked = just_asked
        self.lab = lab or NO_LAB
        self.lost: list[Lost] = []
        self.chosen: int | None = None  # the idle resource that was let go last
        self._keys_lost: set[str] = set()
        # Where single things are kept for others, the first of a list may not be the one to take.
        self._tries = (*FEW_THEN_MORE, UNLIMITED) if self.ahead.things else FEW_THEN_MORE

    def decide(self, lease: int) -> Decision:
        """Take the first step for `lease` that is possible now, in the order that the module names."""
        return (
            self._use(lease, shared=False)
            or self._wait_for_my_build(lease)
            or self._build(lease)
            or self._use(lease, shared=True)
            or self.make_room(lease)
        )

    def make_room(self, lease: int) -> Decision:
        """See one idle resource go whose end gives room for `lease`, never more than one at a time."""
        going = None if self.just_asked else self._wait_for_my_reclaim(lease)
        return going or self._reclaim(lease)

    def _reclaim(self, lease: int) -> Decision:
        if not self.may_reclaim:
            return Decision(Act.WAIT)
        # A lost race leaves room behind; only what is really full makes somebody else's idle resource go.
        if self.lost and self.proposals is not None:
            return Decision(Act.AGAIN)
        now = self.store.clock()
        idle = [found for c in self.candidates for found in self._idle(c)]
        due = sorted((found.idle_since, found.id) for found in idle if found.idle_since + found.grace <= now)
        if not due:
            return Decision(Act.WAIT, again_at=min((f.idle_since + f.grace for f in idle), default=None))
        self.chosen = due[0][1]
        return self.clear(lease, self.chosen)

    def clear(self, lease: int, idle: int) -> Decision:
        """Let this idle resource go for `lease`."""
        start_destroying(
            self.store, idle, ResourceStatus.ACTIVE, "resource.reclaimed", lease=lease, worker=self.process
        )
        return self._wait_for_my_reclaim(lease) or Decision(Act.AGAIN)

    # ---- the steps

    def _use(self, lease: int, *, shared: bool) -> Decision | None:
        for most in self._tries:
            rooms = [(room, c) for c in self.candidates for room in self._rooms(c, most, shared=shared)]
            if not rooms:
                return None
            for room, candidate in sorted(rooms, key=lambda entry: (entry[0].used, entry[0].idle_since)):
                if self._granted(lease, room, candidate.blueprint):
                    return _granted(room.id, candidate.blueprint)
        return None

    def _wait_for_my_build(self, lease: int) -> Decision | None:
        if self.just_asked:
            return None
        building = self.store.resources.built_for(lease)
        return None if building is None else Decision(Act.BUILD, building)

    def _wait_for_my_reclaim(self, lease: int) -> Decision | None:
        going = self.store.resources.reclaimed_for(lease)
        return None if going is None else Decision(Act.CLEAR, going)

    def _build(self, lease: int) -> Decision | None:
        if self.proposals is None and any(self._may_plan(c) for c in self.candidates):
            return Decision(Act.PLANS)
        while self.proposals:
            proposal = self.proposals.pop(0)
            candidate = next((c for c in self.candidates if c.blueprint.id == proposal.blueprint), None)
            if (
                candidate
                and proposal.blueprint not in self.ahead.builders
                and (decision := self._built(lease, candidate.blueprint, proposal))
            ):
                return decision
        for candidate in self.candidates:
            if candidate.blueprint.pooled and (decision := self._build_on_a_binding(lease, candidate)):
                return decision
        return None

    def _may_plan(self, candidate: Candidate) -> bool:
        blueprint = candidate.blueprint
        return not blueprint.pooled and blueprint.id not in self.ahead.builders and not self._is_full(candidate)

    def _build_on_a_binding(self, lease: int, candidate: Candidate) -> Decision | None:
        for most in self._tries:
            sites = free_sites(self.store, candidate, most)
            if not sites:
                return None
            for site in sites:
                if decision := self._built(lease, candidate.blueprint, site_proposal(site)):
                    return decision
        return None

    # ---- how they choose

    def _rooms(self, candidate: Candidate, most: int, *, shared: bool) -> list[Room]:
        resources, traits = self.store.resources, candidate.traits
        if candidate.blueprint.pooled and traits:
            found = (resources.room(r) for _, _, r in sites_with(self.store, candidate.shapes, traits) if r)
            return [room for room in found if room and room.shape in candidate.shapes and bool(room.used) == shared]
        if most == 1 and not traits:
            best = resources.best_room(candidate.shapes, shared=shared)
            return [best] if best else []
        # A builder's resources are as many as its limit says, so looking at the attributes of each is no load.
        most = UNLIMITED if traits else most
        rooms = [r for shape in candidate.shapes for r in resources.with_room(shape, shared=shared, most=most)]
        return [room for room in rooms if fits(json.loads(room.attributes), traits)] if traits else rooms

    def _idle(self, candidate: Candidate) -> list[Idle]:
        """Idle resources that do not fit, and whose end would make room for one that does."""
        resources, blueprint = self.store.resources, candidate.blueprint
        found: list[Idle] = []
        if self._is_full(candidate):
            shapes = [s.id for s in self.store.offers.shapes(blueprint.id) if s.id not in self.ahead.shapes]
            idle = [(s, json.loads(i.attributes), i) for s in shapes for i in resources.idle(s, MOST_TRIES)]
            found += [i for s, has, i in idle if not fits(has, candidate.wanted) and not self.ahead.keeps(s, has)]
        elif not blueprint.pooled:
            holders = [int(holder[9:]) for holder in self.in_the_way if holder.startswith("resource:")]
            found += filter(None, (resources.idle_one(id, blueprint.id) for id in holders))
        if blueprint.pooled:
            in_the_way = filter(None, map(resources.idle_in_the_way, candidate.shapes))
            found += [idle for idle in in_the_way if not self._is_kept(idle)]
        for shape in candidate.shapes:
            upon = resources.idle_upon(shape, MOST_TRIES)
            found += [i for i, has in upon if fits(json.loads(has), candidate.traits) and not self._is_kept(i)]
        return found

    def _is_kept(self, idle: Idle) -> bool:
        if not self.ahead.shapes and not self.ahead.things:
            return False
        room = self.store.resources.room(idle.id)
        return room is not None and self.ahead.keeps_room(room)

    def _is_full(self, candidate: Candidate) -> bool:
        limit = candidate.blueprint.limit
        return limit is not None and self.store.offers.live(candidate.blueprint.id) >= limit

    # ---- how they commit

    def _granted(self, lease: int, room: Room, blueprint: Blueprint) -> bool:
        locks = lease_locks(room)
        if self._keys_lost and self._keys_lost.intersection(lock.key for lock in locks):
            return False
        if self.ahead.keeps_room(room):
            return False
        try:
            return grant(self.store, lease, room, blueprint, locks, self.process, lab=self.lab)
        except SlotLockHeld as lost:
            self._note(lease, blueprint, lost)
            return False

    def _built(self, lease: int, blueprint: Blueprint, proposal: Proposal) -> Decision | None:
        if self._keys_lost.intersection(lock.key for lock in (*proposal.slot_locks, *load_locks(proposal.lease_locks))):
            return None
        if self.ahead.things and self.ahead.keeps(proposal.shape, proposal.attributes):
            return None
        if proposal.on is not None and proposal.under is None:
            return None  # its requester has to lease that first
        try:
            with self.store.attempt():
                if not self.store.offers.take_room(blueprint.id):
                    return None
                resource = self._add(lease, blueprint, proposal)
                if "activate" in blueprint.hooks:
                    return Decision(Act.BUILD, resource)
                room = self.store.resources.room(resource)
                assert room is not None
                grant(self.store, lease, room, blueprint, lease_locks(room), self.process, lab=self.lab)
            return _granted(resource, blueprint)
        except SlotLockHeld as lost:
            self._note(lease, blueprint, lost)
            return None
        except _SupportLostError:
            return None

    def _add(self, lease: int, blueprint: Blueprint, proposal: Proposal) -> int:
        ready = "activate" not in blueprint.hooks
        resource = self.store.resources.add(
            blueprint=blueprint.id,
            binding=proposal.site.id if proposal.site else None,
            shape=proposal.shape,
            name=proposal.name,
            type=blueprint.type,
            status=ResourceStatus.ACTIVE if ready else ResourceStatus.PENDING,
            attributes={**self._passed_on(proposal), **proposal.attributes},
            lease_locks=proposal.lease_locks,
            seats=blueprint.seats,
            fence=proposal.site.fence if proposal.site else 0,
            built_for=lease,
            worker=None if ready else self.process,
            lifetime=blueprint.lifetime,
            ttl=blueprint.ttl,
            observe_every=None if blueprint.pooled else blueprint.observe_every,
        )
        if proposal.under is not None and not self.store.leases.carry(proposal.under, resource, self.store.process):
            raise _SupportLostError
        self.store.resources.set_slot_locks(
            resource, self.lab.ask_for(self.store, proposal.slot_locks, f"resource:{resource}")()
        )
        if proposal.site:
            self.store.offers.hold(proposal.site.slot_lock, resource)
        event = "resource.activated" if ready else "resource.building"
        self.store.events.add(event, lease=lease, resource=resource, blueprint=blueprint.name, name=proposal.name)
        if proposal.site is None:
            # The thing outside may be one that was there before, and must never see a smaller fence. Every grant has an
            # event, so this number is above all that it has seen.
            self.store.resources.set_fence(resource, self.store.events.last())
        return resource

    def _passed_on(self, proposal: Proposal) -> Attributes:
        if proposal.on is None or proposal.under is None:
            return {}
        under = self.store.leases.get(proposal.under)
        has = under.resource.attributes if under and under.resource else {}
        return {name: has[name] for name in proposal.on.passes_on if name in has}

    def _note(self, lease: int, blueprint: Blueprint, lost: SlotLockHeld) -> None:
        for key in lost.held:
            self._keys_lost.update((key, key.rpartition(".slot(")[0]))
        self.lost += [Lost(lease, blueprint.name, key, holder) for key, holder in lost.held.items()]


class _SupportLostError(Exception):
    """Inside `_built`: what it was to stand on is not ours any more."""


def decide_together(allocator: Allocator, leases: Sequence[int]) -> tuple[Decision, dict[int, Decision]]:
    """Decide for the leases of one request; also return which were granted.

    One takes what it can get. Several take all or nothing: a part alone is undone, and what was given then is nothing.
    """
    granted: dict[int, Decision] = {}
    work: Decision | None = None
    try:
        with allocator.store.attempt() if len(leases) > 1 else contextlib.nullcontext():
            for lease in leases:
                decision = _decide_one(allocator, lease)
                if decision.act is Act.GRANTED:
                    granted[lease] = decision
                elif decision.act is Act.BUILD:
                    work = work or decision
                elif len(leases) > 1:
                    raise _NotAllError(lease, decision)
                else:
                    return decision, {}
    except _NotAllError as missing:
        # Room is made outside the attempt, or it would be undone with the part that was not enough.
        if missing.decision.act is Act.PLANS:
            return missing.decision, {}
        if missing.decision.act in (Act.CLEAR, Act.AGAIN) and allocator.chosen is not None:
            # What had to go beside all that the others took; without that, it might not seem to be in the way.
            return allocator.clear(missing.lease, allocator.chosen), {}
        return allocator.make_room(missing.lease), {}
    return work or Decision(Act.GRANTED), granted


class _NotAllError(Exception):
    """Inside `decide_together`: one of several leases cannot be served now."""

    def __init__(self, lease: int, decision: Decision) -> None:
        self.lease, self.decision = lease, decision


def _decide_one(allocator: Allocator, lease: int) -> Decision:
    while (decision := allocator.decide(lease)).act is Act.AGAIN and allocator.proposals is None:
        pass  # something became free in this very transaction
    return decision


def _not_kept(candidates: list[Candidate], kept: set[int]) -> list[Candidate]:
    """The candidates without the shapes that are kept for others."""
    left = [c._replace(shapes=tuple(s for s in c.shapes if s not in kept)) for c in candidates]
    return [c for c in left if c.shapes]


def _granted(resource: int, blueprint: Blueprint) -> Decision:
    return Decision(Act.GRANTED, resource, ready="activate_lease" not in blueprint.hooks)


def site_proposal(site: Site) -> Proposal:
    """The proposal to build on a binding."""
    return Proposal(
        site.blueprint,
        site.name,
        (SlotLock(site.slot_lock),),
        site.lease_locks,
        site.attributes,
        site.shape,
        site,
    )


def give(
    store: Store, lease: int, room: Room, possible: Candidates, ahead: Ahead, process: str | None
) -> Decision | None:
    """Give `lease` this very seat, if it may have it and its slot locks are free."""
    if ahead.keeps_room(room):
        return None
    for candidate in possible.enabled:
        if room.shape not in candidate.shapes:
            continue
        try:
            if grant(store, lease, room, candidate.blueprint, lease_locks(room), process):
                return _granted(room.id, candidate.blueprint)
        except SlotLockHeld:
            continue
    return None


def grant(
    store: Store,
    lease: int,
    room: Room,
    blueprint: Blueprint,
    locks: Iterable[SlotLock],
    process: str | None,
    *,
    lab: Lab = NO_LAB,
) -> bool:
    """Give `lease` a seat and the slot `locks` that this needs: status, fence and event in one step.

    False, and nothing done, when the resource has no seat any more. Raises `SlotLockHeld`, with nothing done, when
    somebody else holds one of the locks, and `StatusChanged` when the lease does not wait any more.
    """
    holder = f"lease:{lease}"
    taking = lab.ask_for(store, locks, holder)
    fence = store.resources.take_seat(room.id)()  # the answer to both
    try:
        keys = taking()
    except SlotLockHeld:
        if fence is not None:
            store.resources.untake_seat(room.id)
        raise
    if fence is None:
        store.slot_locks.free(keys, holder)
        return False
    prepare = "activate_lease" in blueprint.hooks
    columns: dict[str, Any] = {
        "resource": room.id,
        "fence": fence,
        "slot_locks": dump_texts(tuple(keys)),
        "granted_at": store.clock(),
        "owed": None,
    }
    if prepare:  # its ttl begins when it is ready
        columns["worker"] = process
    else:
        columns |= {"counting_from": store.uptime(), "boot": store.boot}
    status = LeaseStatus.ACQUIRED if prepare else LeaseStatus.ACTIVE
    store.move("lease", lease, LeaseStatus.PENDING, status, **columns)
    event = "lease.acquired" if prepare else "lease.activated"
    store.events.add(event, lease=lease, resource=room.id, blueprint=blueprint.name, fence=fence)
    return True
