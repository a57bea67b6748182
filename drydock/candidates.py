"""Who could ever serve a demand, and where the things that fit it are found.

The answer changes only when what is offered changes, so whoever asked may keep it until then: it says where to look,
by shape and by trait, and never what is free.
"""

from collections.abc import Sequence
from typing import NamedTuple

from .attributes import canonical, fits
from .errors import ConfigError, NeverPossible, NoBlueprint, NotFound, quoted
from .model import Attributes, Blueprint, Demand
from .store.base import Store
from .store.offers import Shape, Site


class Candidate(NamedTuple):
    """A blueprint that could serve a demand, and where its fitting things are found."""

    blueprint: Blueprint
    shapes: tuple[int, ...]
    traits: Attributes  #: wanted pairs that no shape decides; each thing must be looked at
    wanted: Attributes  #: all that a thing must have
    capacity: int | None  #: most leases of this demand at once; None: no bound


class Candidates:
    """All blueprints that could ever serve a demand, switched-off ones included. Never changed once it is made."""

    def __init__(self, config: int, found: tuple[Candidate, ...]) -> None:
        self.config, self.all = config, found
        self.enabled = [c for c in found if c.blueprint.enabled]
        self.builders = [c for c in self.enabled if not c.blueprint.pooled]
        #: whether no plans are needed, whoever is switched on
        self.pooled = all(c.blueprint.pooled for c in found)
        bounds = [c.capacity for c in found if c.capacity is not None]
        #: most leases at once; None: no bound
        self.capacity = sum(bounds) if len(bounds) == len(found) else None


def candidates(store: Store, demand: Demand) -> Candidates:
    """Who could ever serve `demand`.

    Raises `NoBlueprint` when no blueprint makes the type, `NotFound` for a blueprint that is named and not there,
    `ConfigError` for one that makes another type, `NeverPossible` when none of them can ever have such a thing.
    """
    config = store.offers.config()
    blueprints = store.offers.blueprints()
    named = {b.name: b for b in blueprints}
    for name in demand.blueprints:
        if name not in named:
            raise NotFound("blueprint", name)
        if named[name].type != demand.type:
            raise ConfigError(f"blueprint {quoted(name)} makes {quoted(named[name].type)}, not {quoted(demand.type)}")
    chosen = [b for b in blueprints if b.type == demand.type and (not demand.blueprints or b.name in demand.blueprints)]
    if not chosen:
        raise NoBlueprint(demand.type, {b.type for b in blueprints})
    possible = tuple(c for c in (_candidate(store, b, demand.attributes) for b in chosen) if c)
    if not possible:
        what = f" with {canonical(demand.attributes)}" if demand.attributes else ""
        names = ", ".join(quoted(b.name) for b in chosen)
        raise NeverPossible(f"no {demand.type}{what} can ever come from {names}; see: drydock bindings")
    return Candidates(config, possible)


def _candidate(store: Store, blueprint: Blueprint, wanted: Attributes) -> Candidate | None:
    shapes = store.offers.shapes(blueprint.id)
    if not blueprint.pooled:
        seats = blueprint.seats
        bound = None if blueprint.limit is None or seats is None else blueprint.limit * seats
        wanted = {name: value for name, value in wanted.items() if name not in blueprint.per_lease}
        return Candidate(blueprint, tuple(s.id for s in shapes), wanted, wanted, bound)
    decided = {name for shape in shapes for name in shape.attributes}
    traits = {name: value for name, value in wanted.items() if name not in decided}
    fitting = [s for s in shapes if s.things and fits(s.attributes, {n: v for n, v in wanted.items() if n in decided})]
    things = _count_things(store, fitting, traits)
    if not things:
        return None
    if blueprint.limit is not None:
        things = min(things, blueprint.limit)
    bound = None if blueprint.seats is None else things * blueprint.seats
    return Candidate(blueprint, tuple(s.id for s in fitting), traits, wanted, bound)


def _count_things(store: Store, shapes: Sequence[Shape], traits: Attributes) -> int:
    if not traits:
        return sum(s.things for s in shapes)
    return len(sites_with(store, tuple(s.id for s in shapes), traits))


def free_sites(store: Store, candidate: Candidate, most: int) -> list[Site]:
    """Free bindings that fit: the first, or more than one of each shape; all that there are with the wanted traits."""
    if candidate.traits:
        return [site for site, free, _ in sites_with(store, candidate.shapes, candidate.traits) if free]
    if most == 1:
        first = store.offers.first_free_site(candidate.shapes)
        return [first] if first else []
    return [site for shape in candidate.shapes for site in store.offers.free_sites(shape, most)]


def sites_with(store: Store, shapes: tuple[int, ...], traits: Attributes) -> list[tuple[Site, bool, int | None]]:
    """The listed bindings of these shapes that have all `traits`: each, whether it is free, and who holds it."""
    name, value = next(iter(traits.items()))
    found = store.offers.sites_with_trait(name, canonical(value), shapes)
    return [entry for entry in found if fits(entry[0].attributes, traits)]
