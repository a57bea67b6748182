"""The operations that are explored, and the stores on which they meet; and the command that explores them.

Three yards: `pool` has hosts, which need no hook; `works` builds and tears down, with all four hooks; what `stories` builds
stands on hosts of a pool. In each, one thing is held, one is idle, and there is no third, so that whatever two operations do,
they want the same.

A new operation is an entry of `OPERATIONS`, and what it must find there an entry of `PREPARATIONS`.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ..allocator import Lab
from ..blueprint import Builder, LeaseInfo, Need, Plan, ResourceInfo, Setting, slot_lock
from ..config import parse_pool
from ..engine import Engine
from ..errors import BlueprintError, Conflict, NeverPossible
from ..model import Attributes, Demand
from .explore import Explorer, Report, broken_promises, show
from .schedule import Operation, at_work, pass_time

HELD, IDLE, THIRD = "h1", "h2", "h3"
#: ids that the set-up gives
HELD_LEASE, HELD_RESOURCE, THIRD_LEASE = 1, 1, 3
HALF_TTL = 60.0


class Works(Builder):
    """Builds whatever it is told to, with every hook; one whose request says `fails` fails in that hook."""

    type = "thing"
    settings_schema: ClassVar = {"names": Setting(list, "what there can be")}
    grace = 0.0

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        for name in self.settings["names"]:
            yield Plan(name, (slot_lock("thing", name),), dict(wanted))

    def activate(self, resource: ResourceInfo) -> None:
        with at_work(resource.name) as world:
            world.built.add(resource.name)
            if resource.attributes.get("fails") == "activate":
                raise RuntimeError("it does not start")

    def destroy(self, resource: ResourceInfo) -> None:
        with at_work(resource.name) as world:
            world.built.discard(resource.name)

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        with at_work(f"lease:{lease.id}"):
            if lease.attributes.get("fails") == "activate_lease":
                raise RuntimeError("it cannot be prepared")

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        with at_work(f"lease:{lease.id}"):
            pass


class Stories(Works):
    """Works of which each stands on a host."""

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        for plan in super().plans(wanted):
            yield plan._replace(on=Need("host"))


class Yard(NamedTuple):
    """What is offered to the operations."""

    demand: Demand
    blueprint: Callable[[Sequence[str]], Mapping[str, Any]]  #: the pool file's table, for these things
    under: Callable[[Sequence[str]], Mapping[str, Any]] | None = None  #: and the table of what they stand on

    def apply(self, engine: Engine, names: Sequence[str]) -> None:
        tables = {"yard": {**self.blueprint(names)}}
        if self.under is not None:
            tables["under"] = {**self.under(names)}
        engine.apply(parse_pool({"blueprint": tables}, "yard"))

    def lease(self, engine: Engine, owner: str, *, fails: str = "", wait: float | None = 0, **options: Any) -> int:
        demand = self.demand._replace(attributes={"fails": fails}) if fails else self.demand
        return engine.lease(demand, owner=owner, wait_seconds=wait, **{"keep": True, **options})[0].id


YARDS = {
    "pool": Yard(Demand("host"), lambda names: {"kind": "host-pool", "hosts": list(names)}),
    "works": Yard(Demand("thing"), lambda names: {"kind": "works", "names": list(names), "limit": len(names)}),
    "stories": Yard(
        Demand("thing"),
        lambda names: {"kind": "stories", "names": list(names), "limit": len(names)},
        lambda names: {"kind": "host-pool", "hosts": list(names)},
    ),
}
KINDS = {"works": Works, "stories": Stories}

Act = Callable[[Yard, Engine], object]

OPERATIONS: dict[str, Act] = {
    "lease": lambda yard, engine: yard.lease(engine, "explorer"),
    "wait": lambda yard, engine: yard.lease(engine, "explorer", wait=None),
    "release": lambda _, engine: engine.release(HELD_LEASE),
    "renew": lambda _, engine: engine.renew(HELD_LEASE),
    "expire": lambda _, engine: _expire(engine),
    "reclaim": lambda _, engine: engine.reclaim(),
    "apply": lambda yard, engine: yard.apply(engine, [IDLE, THIRD]),
    "destroy": lambda _, engine: engine.release_resource(HELD_RESOURCE),
    "break": lambda yard, engine: yard.lease(engine, "explorer", fails="activate_lease"),
    "die": lambda _, engine: engine.tend(),
}
#: what must be there besides, for an operation that is not about what is held or idle
PREPARATIONS: dict[str, Act] = {"die": lambda yard, engine: _lease_of_the_dead(yard, engine)}
#: errors that an operation may end with
REFUSALS: dict[str, tuple[type[Exception], ...]] = {"break": (Conflict, BlueprintError, NeverPossible)}

TRIPLES = (
    ("lease", "lease", "release"),
    ("lease", "release", "reclaim"),
    ("lease", "expire", "release"),
    ("wait", "wait", "release"),
)


def _expire(engine: Engine) -> None:
    pass_time(engine, HALF_TTL)
    engine.tend()


def _lease_of_the_dead(yard: Yard, engine: Engine) -> None:
    store: Any = engine.store
    store.name, living = "the dead", store.name
    yard.lease(engine, "the dead", keep=False)
    store.name = living


def explorer(yard: Yard, names: Sequence[str]) -> Explorer:
    """An explorer of these operations in this yard."""
    prepared = [PREPARATIONS[name] for name in dict.fromkeys(names) if name in PREPARATIONS]

    def set_up(engine: Engine) -> None:
        yard.apply(engine, [HELD, IDLE, *([THIRD] if prepared else [])])
        held, idle = yard.lease(engine, "holder", ttl=2 * HALF_TTL), yard.lease(engine, "idler")
        assert held == HELD_LEASE
        for prepare in prepared:
            prepare(yard, engine)
        engine.release(idle)
        pass_time(engine, HALF_TTL)  # as much again ends the held lease, unless it is renewed

    operations = [
        Operation(name, lambda engine, name=name: OPERATIONS[name](yard, engine), REFUSALS.get(name, (Conflict,)))  # type: ignore[misc]
        for name in names
    ]
    return Explorer(set_up, operations, kinds=KINDS)


def race(*, slot_locks: bool) -> Explorer:
    """Two leases that choose the one free host beforehand, as in the race laboratory."""
    yard = YARDS["pool"]
    lab = Lab(0.0, slot_locks=slot_locks)
    operations = [Operation("lease", lambda engine: yard.lease(engine, "racer", lab=lab)) for _ in range(2)]
    return Explorer(
        lambda engine: yard.apply(engine, [HELD]),
        operations,
        invariants=lambda store: broken_promises(store, *(() if slot_locks else ("double-allocation",))),
    )


def pairs() -> list[tuple[str, str]]:
    return list(itertools.combinations_with_replacement(OPERATIONS, 2))


# ---- the command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m drydock.testing.explore", description=__doc__)
    parser.add_argument("--yard", choices=[*YARDS, "all"], default="all")
    parser.add_argument("--pairs", default="", metavar="A+B,...|all", help="of " + ", ".join(OPERATIONS))
    parser.add_argument("--triples", default="", metavar="A+B+C,...|all")
    parser.add_argument("--crash", action="store_true", help="somebody may die, at each step")
    parser.add_argument("--preemptions", type=int, default=2, metavar="N", help="most preemptions in a triple (2)")
    parser.add_argument("--limit", type=int, metavar="N", help="most schedules for each row")
    given = parser.parse_args()
    groups = [(names, None) for names in _chosen(given.pairs or ("" if given.triples else "all"), pairs())]
    groups += [(names, given.preemptions) for names in _chosen(given.triples, TRIPLES)]
    yards = YARDS if given.yard == "all" else {given.yard: YARDS[given.yard]}
    failed = False
    _say(
        f"{'yard':7} {'operations':24} {'schedules':>15} {'runs':>7} {'crashes':>8} {'ends':>5} {'seconds':>8} {'runs/s':>7}  found"
    )
    for yard, (names, preemptions) in itertools.product(yards, groups):
        with explorer(YARDS[yard], names) as found:
            report = found.explore(crashes=int(given.crash), preemptions=preemptions, limit=given.limit)
        _say(f"{yard:7} {'+'.join(names):24} {row(report)}")
        if report.shortest is not None:
            failed = True
            _say("\n" + show(report.shortest) + "\n")
    sys.exit(failed)


def row(report: Report) -> str:
    schedules = f"{report.schedules:,}" + ("" if report.complete else "+")
    rate = report.runs / report.seconds
    return (
        f"{schedules:>15} {report.runs:7} {report.crashes:8} {len(report.ends):5} {report.seconds:8.2f} {rate:7.0f}"
        f"  {report.found or 'none'}"
    )


def _chosen(given: str, every: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    if given == "all":
        return list(every)
    chosen = [tuple(group.split("+")) for group in given.split(",") if group]
    for name in {name for group in chosen for name in group} - set(OPERATIONS):
        sys.exit(f"there is no operation {name}; there are: {', '.join(OPERATIONS)}")
    return chosen


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
