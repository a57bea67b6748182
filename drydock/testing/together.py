"""A kind under test, with several at once: real processes on a real store, and every order of their steps."""

import contextlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..blueprint import LeaseInfo, ResourceInfo
from ..config import parse_pool
from ..engine import Engine
from ..errors import BlueprintError, Conflict, quoted
from ..hooks import OwnProcess
from ..model import Demand
from ..store import open_store
from ..store.base import Store
from .children import Child
from .explore import Explorer, broken_promises, show
from .schedule import Operation, at_work
from .subject import Subject, offered

PROCESSES, ROUNDS = 4, 3
#: of each pair of operations; with its crashes
MOST_RUNS = 60

#: the kind, found by the processes as a drop-in
DROP_IN = """
import sys
from drydock.testing.apart import imported
sys.path[:0] = [path for path in {path!r} if path not in sys.path]
_kind = imported({module!r}, {name!r}, {file!r})
class UnderTest(_kind):
    pass
"""
SUPPORT = """
from drydock.blueprint import *
_about = {about!r}
class KitSupport(Pool):
    def bindings(self):
        yield Binding(_about[0], slot_lock("kit-support", _about[0]), _about[2])
    def interface(self, resource):
        return {interface}
"""

#: first all lease at once and say what they have while all have it; then they lease and give back, as fast as they can
HOLD = """
import json
from drydock.engine import Engine
from drydock.errors import DrydockError, NothingFree
from drydock.hooks import OwnProcess
from drydock.model import Demand
from drydock.store import open_store
store, kinds, type, wanted, rounds = sys.argv[1:]
engine = Engine(open_store(store), environment={"DRYDOCK_BLUEPRINTS": kinds}, hooks=OwnProcess())
say("ready")
hear()
for round in range(int(rounds)):
    try:
        lease = engine.lease(Demand(type, ("kit",), json.loads(wanted)), owner="kit", wait_seconds=60.0 if round else 0.0)[0]
    except NothingFree:
        lease = None
    except DrydockError as error:
        say("error", error)
        break
    if not round:
        say("has", lease.resource.name) if lease else say("nothing")
        hear()
    if lease:
        engine.release(lease.id)
engine.close()
"""


def pool(subject: Subject, kind: str) -> dict[str, Any]:
    """A pool file that offers it."""
    settings = {"kind": kind, "grace": "0s", **subject.settings}
    if subject.kind.type is None:
        settings["type"] = "thing"
    tables: dict[str, Any] = {"blueprint": {"kit": settings}}
    if subject.kind.source_table is not None and subject.source is not None:
        tables[subject.kind.source_table] = subject.source
    return tables


def race(subject: Subject, wanted: Mapping[str, Any], folder: Path) -> str:
    """Let several processes lease at once, and say in a sentence what went wrong; "" if nothing did."""
    kinds, store = folder / "kinds", str(folder / "drydock.db")
    kinds.mkdir()
    kind = subject.kind
    file = inspect.getsourcefile(kind)
    (kinds / "under_test.py").write_text(
        DROP_IN.format(path=sys.path, module=kind.__module__, name=kind.__qualname__, file=file)
    )
    offer = subject.offer(wanted).answer or ()
    tables = pool(subject, "under-test")
    needs = next((thing[4] for thing in offer if thing[4]), None)
    if needs:
        support = subject.support(*needs)
        interface = support.interface if support.interface is not None else "super().interface(resource)"
        (kinds / "kit_support.py").write_text(SUPPORT.format(about=list(support[:3]), interface=interface))
        tables["blueprint"]["kit-support"] = {"kind": "kit-support", "type": support.type, "seats": "unlimited"}
    counted = {name for name, _, locks, *_ in offer if locks and all(of for _, of in locks)}

    def by_one(do: Callable[[Engine], object]) -> str:
        def act() -> None:
            engine = Engine(open_store(store), environment={"DRYDOCK_BLUEPRINTS": str(kinds)}, hooks=OwnProcess())
            with contextlib.closing(engine):
                do(engine)

        return subject.apart(act).error

    error = by_one(lambda engine: engine.apply(parse_pool(tables, "the kit's pool file")))
    if error:
        return f"it cannot be applied: {error}"
    arguments = (store, kinds, kind.type or "thing", json.dumps(dict(wanted)), ROUNDS)
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(HOLD, *arguments)) for _ in range(PROCESSES)]
        for child in children:
            child.expect("ready")
        for child in children:
            child.tell()
        said = [child.hear() for child in children]
        wrong = _wrong(said, counted)
        if wrong:
            return wrong
        for child in children:
            child.tell()
        wrong = _wrong([line for child in children for line in child.rest()], counted)
        if wrong:
            return wrong
    error = by_one(_take_away)
    return f"what was leased cannot be taken away again: {error}" if error else ""


def _wrong(said: list[str], counted: Collection[str]) -> str:
    for line in said:
        if line.startswith("error "):
            return f"with {PROCESSES} processes at once, one was told: {line.removeprefix('error ')}"
    held = sorted(line.removeprefix("has ") for line in said if line.startswith("has "))
    for one, other in itertools.pairwise(held):
        if one == other and one not in counted:
            return f"two users had {quoted(one)} at once: two resources of that name were there, and no slot lock forbade it"
    return ""


def _take_away(engine: Engine) -> None:
    engine.tend()
    engine.reclaim()
    engine.reclaim()  # what stood on something else went first
    left = engine.store.resources.live()
    if left:
        raise BlueprintError("kit", "destroy", f"{quoted(left[0].name)} is still {left[0].status}")


def explored(subject: Subject, wanted: Mapping[str, Any]) -> str:
    """Explore two leases, and a lease and a release, in every order up to a bound; says what goes wrong, or ""."""
    kind = subject.kind
    hooks = {name: hook for name, hook in _STILL.items() if name in subject.hooks}
    if "destroy" not in hooks and "activate" in hooks:
        hooks["activate"] = _look_over
    still: Any = type("Explored", (kind,), hooks)
    demand = Demand(kind.type or "thing", ("kit",), wanted)
    if any(thing[4] for thing in offered(subject.made(), wanted)):
        return ""  # what it stands on is the allocator's, and is explored with the allocator

    def lease(engine: Engine) -> object:
        return engine.lease(demand, owner="kit", wait_seconds=0, keep=True)

    def set_up(engine: Engine) -> None:
        engine.apply(parse_pool(pool(subject, "explored"), "the kit's pool file"))
        lease(engine)

    def invariants(store: Store) -> str:
        return broken_promises(store) or twins(store, bool(hooks))

    leases = Operation("lease", lease, (Conflict,))
    release = Operation("release", lambda engine: engine.release(1), (Conflict,))
    for operations in ((leases, leases), (leases, release)):
        with Explorer(set_up, operations, kinds={"explored": still}, invariants=invariants) as explorer:
            for crashes in (0, 1):
                report = explorer.explore(crashes=crashes, limit=MOST_RUNS)
                if report.shortest is not None:
                    return show(report.shortest)
    return ""


def twins(store: Store, built: bool) -> str:
    """Two resources that are the same thing, where that can be told: they have one name, and hooks worked on it."""
    names: set[str] = set()
    for resource in store.resources.live():
        if resource.name in names and built:
            return f"two resources are {quoted(resource.name)} at once"
        names.add(resource.name)
    return ""


def _activate(self: object, resource: ResourceInfo) -> None:
    with at_work(resource.name) as world:
        world.built.add(resource.name)


def _look_over(self: object, resource: ResourceInfo) -> None:
    """Where nothing needs to be torn down, nothing was built."""
    with at_work(resource.name):
        pass


def _destroy(self: object, resource: ResourceInfo) -> None:
    with at_work(resource.name) as world:
        world.built.discard(resource.name)


def _of_a_lease(self: object, resource: ResourceInfo, lease: LeaseInfo) -> None:
    with at_work(f"lease:{lease.id}"):
        pass


_STILL: dict[str, Any] = {
    "activate": _activate, "destroy": _destroy, "activate_lease": _of_a_lease, "destroy_lease": _of_a_lease
}  # fmt: skip
