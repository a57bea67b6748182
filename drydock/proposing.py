"""What could be built, chosen before any transaction: ask the builders for plans, and see which look free.

What is chosen here may be lost until it is allocated; then the slot locks say so. That is what makes it safe to choose
without holding anything.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

from .allocator import Proposal, site_proposal
from .attributes import canonical, check, check_name, check_text, clean, fits
from .blueprint import Builder, Need, Plan
from .candidates import Candidates, free_sites
from .errors import BlueprintError, ConfigError, NeverPossible, quoted
from .model import Attributes, Blueprint, Demand
from .slots import checked_locks, dump
from .steps import Steps

#: a builder that yields plans without end is asked for no more
MOST_PLANS = 10_000


class Proposals(NamedTuple):
    """What builders would build now, best first, and the holders of the slot locks that forbid the rest."""

    ready: list[Proposal]
    in_the_way: set[str]


def proposals(steps: Steps, possible: Candidates, wanted: Attributes, count: int) -> Proposals:
    """Up to `count` plans of each enabled builder whose slot locks look free now, best first."""
    found: list[Proposal] = []
    in_the_way: set[str] = set()
    for candidate in possible.builders:
        free = (p for p in plans(steps, candidate.blueprint, wanted) if _looks_free(steps, p, in_the_way))
        shape = candidate.shapes[0]
        found += [_proposal(candidate.blueprint, shape, plan) for plan in itertools.islice(free, count)]
    return Proposals(found, in_the_way)


def first_bindings(steps: Steps, possible: Candidates, count: int) -> list[Proposal]:
    """Up to `count` free bindings of each enabled pool, for the race laboratory, which chooses beforehand there too."""
    pools = [c for c in possible.enabled if c.blueprint.pooled]
    return [site_proposal(site) for c in pools for site in free_sites(steps.store, c, count)[:count]]


def refuse_what_nobody_builds(steps: Steps, possible: Candidates, demand: Demand) -> None:
    """Raise `NeverPossible` if there are only builders, and none of them has any plan for `demand`."""
    if any(c.blueprint.pooled for c in possible.all):
        return
    if any(True for c in possible.all for _ in plans(steps, c.blueprint, demand.attributes)):
        return
    what = f" with {canonical(demand.attributes)}" if demand.attributes else ""
    names = ", ".join(quoted(c.blueprint.name) for c in possible.all)
    raise NeverPossible(f"no {demand.type}{what} can ever be built by {names}")


def plans(steps: Steps, row: Blueprint, wanted: Attributes) -> Iterator[Plan]:
    """The plans of a builder, one at a time, each checked."""
    builder = steps.blueprint(row)
    assert isinstance(builder, Builder)
    # A copy: what an author's code does to it changes nothing of what was asked for.
    given: Any = steps.ask(row.name, "plans", lambda: iter(builder.plans(clean(wanted, "wanted"))))
    for _ in range(MOST_PLANS):
        plan = steps.ask(row.name, "plans", lambda: next(given, None))
        if plan is None:
            return
        checked = cast(Plan, steps.call(row.name, "plans", partial(checked_plan, row.name, plan)))
        _refuse_another(row, checked, wanted)
        yield checked


def _refuse_another(row: Blueprint, plan: Plan, wanted: Attributes) -> None:
    """Raise `BlueprintError` for a plan that says itself that it is for something else than was asked for."""
    for name, value in wanted.items():
        if name in plan.attributes and name not in row.per_lease and not fits(plan.attributes, {name: value}):
            has, asked = canonical({name: plan.attributes[name]}), canonical({name: value})
            raise BlueprintError(row.name, "plans", f"plan {quoted(plan.name)} has {has}, and {asked} was asked for")


def _looks_free(steps: Steps, plan: Plan, in_the_way: set[str]) -> bool:
    locks = (*plan.slot_locks, *plan.lease_locks)
    if steps.store.slot_locks.look_free(locks):
        return True
    in_the_way |= steps.store.slot_locks.in_the_way(locks)
    return False


def checked_plan(blueprint: str, plan: object) -> Plan:
    """A plan of our own with the values of `plan`, each asked for once and then checked: what an author's code returns is
    data like any other. Raises `BlueprintError`."""
    if not isinstance(plan, Plan):
        raise BlueprintError(blueprint, "plans", f"must yield Plan, got {type(plan).__name__}")
    try:
        on = plan.on
        return Plan(
            name=check_name(plan.name, "plan"),
            slot_locks=checked_locks(plan.slot_locks),
            lease_locks=checked_locks(plan.lease_locks),
            attributes=check(plan.attributes, "plan"),
            on=None if on is None else _checked_need(on),
        )
    except ConfigError as error:
        raise BlueprintError(blueprint, "plans", str(error)) from error


def _checked_need(need: object) -> Need:
    if not isinstance(need, Need):
        raise ConfigError(f"what a plan stands on must be a Need, not {type(need).__name__}")
    return Need(
        type=check_name(need.type, "type of what it stands on"),
        blueprints=tuple(check_name(name, "blueprint of what it stands on") for name in need.blueprints),
        attributes=check(need.attributes, "what it stands on"),
        passes_on=tuple(check_text(name, "name of an attribute that is passed on") for name in need.passes_on),
    )


def _proposal(blueprint: Blueprint, shape: int, plan: Plan) -> Proposal:
    locks = dump(plan.lease_locks)
    return Proposal(blueprint.id, plan.name, plan.slot_locks, locks, plan.attributes, shape, on=plan.on)
