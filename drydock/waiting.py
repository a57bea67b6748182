"""Why a request waits, for whoever asks: its place in the queue, what is missing, who holds that, and for how long yet.

The estimate. Each lease in the way is expected to end at its `until`, or when it has been held as long as things of these
shapes were held lately (the median of those holds, among the last `HOLDS_LOOKED_AT` leases, that lasted longer than
this one has by now), whichever is first. A ttl says nothing, since its holder renews it. Those ahead are taken to need
the same things, to be served in their order and to hold them for the median of all those holds. Where any of that is
not known, or too much would have to be looked at, there is no estimate.
"""

import heapq
import json
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from .attributes import canonical, fits
from .candidates import Candidates, candidates, free_sites
from .errors import DrydockError, quoted
from .model import Demand
from .store.base import Store
from .store.waits import Before, Hold, Waits

HOLDERS_SHOWN = 5
MOST_COUNTED = 1000
#: beyond so many holders or requests ahead there is no estimate
MOST_LOOKED_AT = 200
HOLDS_LOOKED_AT = 200


class Kept(NamedTuple):
    """An older request that keeps what is free until there is enough for it."""

    lease: int
    wants: int


class Waiting(NamedTuple):
    """Why a request waits."""

    demand: Demand
    wanted: int  #: how many leases
    leases: tuple[int, ...]
    ahead: int  #: requests for the same type that are served before
    holders: tuple[Hold, ...]  #: at most `HOLDERS_SHOWN` of those who hold what could serve it, longest first
    held: int  #: how many resources that could serve it are in use, counted up to `MOST_COUNTED`
    free: int = 0  #: how many could be had now, if they were not kept or were enough; counted up to `MOST_COUNTED`
    kept_for: tuple[Kept, ...] = ()
    estimate_seconds: float | None = None

    @property
    def rank(self) -> int:
        """Its place in the queue; 1 is served next."""
        return self.ahead + 1


def explain(store: Store, possible: Candidates, demand: Demand, leases: Sequence[int]) -> Waiting:
    """Who and what stands in the way of these leases, which are one request, as of now."""
    waits, first = Waits(store), min(leases)
    shapes = tuple(dict.fromkeys(shape for c in possible.all for shape in c.shapes))
    holds = waits.holds(shapes, MOST_LOOKED_AT + 1)
    held = store.resources.in_use(shapes, MOST_COUNTED)
    before = waits.before(first, demand.type, MOST_LOOKED_AT + 1)
    free = _free(store, possible)
    return Waiting(
        demand,
        len(leases),
        tuple(leases),
        _requests(before) if len(before) <= MOST_LOOKED_AT else store.leases.ahead_of(first, demand.type),
        tuple(holds[:HOLDERS_SHOWN]),
        held,
        free,
        _kept_for(store, before, demand.type, set(shapes)) if free else (),
        _estimate(store, waits, demand.type, shapes, len(leases), free, holds, before),
    )


def everybody(store: Store) -> list[Waiting]:
    """Why each request waits, in the order in which those for one type are served."""
    known: dict[str, Candidates] = {}
    found = []
    for ids in Waits(store).requests():
        lease = store.leases.get(ids[0])
        if lease is None:
            continue
        key = canonical([lease.type, lease.blueprints, lease.attributes])
        if key not in known:
            known[key] = _candidates(store, lease.demand)
        found.append(explain(store, known[key], lease.demand, ids))
    return found


def _candidates(store: Store, demand: Demand) -> Candidates:
    try:
        return candidates(store, demand)
    except DrydockError:  # nobody offers it any more, for now
        return Candidates(store.offers.config(), ())


def _requests(before: Sequence[Before]) -> int:
    return len({one.request for one in before})


def _free(store: Store, possible: Candidates) -> int:
    """How many free bindings and seats would do. What a builder could build is not counted: only it knows."""
    found = 0
    for c in possible.enabled:
        if c.blueprint.pooled and store.offers.has_room(c.blueprint.id) and free_sites(store, c, 1):
            sites = len(free_sites(store, c, MOST_COUNTED))
            limit = c.blueprint.limit
            found += sites if limit is None else min(sites, limit - store.offers.live(c.blueprint.id))
        for shared in (False, True):
            if c.shapes and store.resources.best_room(c.shapes, shared=shared) is not None:
                rooms = [r for s in c.shapes for r in store.resources.with_room(s, shared=shared, most=MOST_COUNTED)]
                found += sum(
                    r.seats - r.used for r in rooms if not c.traits or fits(json.loads(r.attributes), c.traits)
                )
    return min(found, MOST_COUNTED)


def _kept_for(store: Store, before: Sequence[Before], type: str, shapes: set[int]) -> tuple[Kept, ...]:
    """Those ahead that want several at once, and could use what is free."""
    wants: dict[int, int] = {}
    demands = {}
    for one in before:
        wants[one.request] = wants.get(one.request, 0) + 1
        demands[one.request] = Demand(type, tuple(json.loads(one.blueprints)), json.loads(one.attributes))
    several = [request for request, number in wants.items() if number > 1][:HOLDERS_SHOWN]
    return tuple(
        Kept(request, wants[request])
        for request in several
        if any(shapes.intersection(c.shapes) for c in _candidates(store, demands[request]).enabled)
    )


def _estimate(
    store: Store,
    waits: Waits,
    type: str,
    shapes: Sequence[int],
    wanted: int,
    free: int,
    holds: Sequence[Hold],
    before: Sequence[Before],
) -> float | None:
    """See the module."""
    if not holds or len(holds) > MOST_LOOKED_AT or len(before) > MOST_LOOKED_AT:
        return None
    past, now = waits.past_holds(type, shapes, HOLDS_LOOKED_AT), store.clock()
    ends = [0.0] * min(free, MOST_LOOKED_AT) + [_left(hold, past, now) for hold in holds]
    heapq.heapify(ends)
    typical = _median(past) if past else inf
    wants: dict[int, int] = {}
    for one in before:
        wants[one.request] = wants.get(one.request, 0) + 1
    for number in wants.values():
        if number <= len(ends):  # or it cannot be meant to be served by these
            served = [heapq.heappop(ends) for _ in range(number)]
            for _ in range(number):
                heapq.heappush(ends, served[-1] + typical)
    if wanted > len(ends):
        return None
    seconds = [heapq.heappop(ends) for _ in range(wanted)][-1]
    return seconds if 0 < seconds < inf else None


def _left(hold: Hold, past: Sequence[float], now: float) -> float:
    """For how many seconds a lease will go on to be held; infinite: nobody knows."""
    so_far = max(0.0, now - hold.since)
    longer = [seconds for seconds in past if seconds > so_far]
    expected = _median(longer) - so_far if longer else inf
    return expected if hold.until is None else min(expected, max(0.0, hold.until - now))


def _median(values: Sequence[float]) -> float:
    # The module `statistics` would cost every command a tenth of its start-up.
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def nothing_free(possible: Candidates, why: Waiting) -> str:
    """The sentence for a request that gives up."""
    what = f"{why.wanted} x {quoted(why.demand.type)}" if why.wanted > 1 else quoted(why.demand.type)
    if why.demand.attributes:
        what += f" with {canonical(why.demand.attributes)}"
    if possible.all and not possible.enabled:
        names = ", ".join(quoted(c.blueprint.name) for c in possible.all)
        return f"no free {what}: blueprint {names} is disabled; switch it on with: drydock enable blueprint:NAME"
    by = ", ".join(f"lease {h.lease} of {quoted(h.owner)}" for h in why.holders[:2])
    held = f"{why.held} in use ({by}{', ...' if why.held > 2 else ''})" if by else "none in use"
    if why.free:
        kept = ", ".join(f"lease {one.lease}, which wants {one.wants}" for one in why.kept_for)
        held += f"; {why.free} free" + (f", kept for {kept}" if kept else "")
    return f"no free {what}: {held}; {why.ahead} waiting ahead; see: drydock leases --waiting"
