"""Why a request waits, for whoever asks: what it wants, who holds that since when, and how many are ahead."""

from collections.abc import Sequence
from typing import NamedTuple

from .attributes import canonical
from .candidates import Candidates
from .errors import quoted
from .model import Demand
from .store.base import Store

HOLDERS_SHOWN = 5
MOST_COUNTED = 1000


class Holder(NamedTuple):
    """Somebody who has what a request waits for."""

    lease: int
    owner: str
    name: str  #: of the resource
    since: float


class Waiting(NamedTuple):
    """Why a request waits."""

    demand: Demand
    wanted: int  #: how many leases
    leases: tuple[int, ...]
    ahead: int  #: older requests for the same type that wait too
    holders: tuple[Holder, ...]  #: at most `HOLDERS_SHOWN` of those who hold what could serve it
    held: int  #: how many resources that could serve it are in use, counted up to `MOST_COUNTED`


def explain(store: Store, possible: Candidates, demand: Demand, leases: Sequence[int]) -> Waiting:
    """Who stands in the way of these requests, as of now."""
    shapes = [shape for c in possible.all for shape in c.shapes]
    return Waiting(
        demand,
        len(leases),
        tuple(leases),
        store.leases.ahead_of(min(leases), demand.type),
        tuple(Holder(*holder) for holder in store.leases.holders(shapes, HOLDERS_SHOWN)),
        store.resources.in_use(shapes, MOST_COUNTED),
    )


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
    return f"no free {what}: {held}; {why.ahead} waiting ahead; see: drydock leases"
