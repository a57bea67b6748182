"""A kind under test: asked and told to work in processes of its own, as Drydock would, with its answers as plain data."""

import contextlib
import inspect
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..applying import _declare
from ..attributes import check
from ..blueprint import Binding, Builder, Gone, LeaseInfo, Need, Plan, Pool, ResourceInfo, Support, Yield
from ..discovery import KindClass, make
from ..errors import BlueprintError, ConfigError, printable
from ..hooks import perform
from ..proposing import checked_plan
from .apart import Code, Ended, apart, imported, in_another_interpreter

#: of a builder that could go on
MOST_PLANS = 200
#: a hook that goes on raising `Yield` is called no more often
MOST_YIELDS = 200
LONGEST_YIELD_SECONDS = 0.5

HOOKS = ("activate", "activate_lease", "destroy_lease", "destroy")


class Thing(NamedTuple):
    """A binding or a plan, as plain data."""

    name: str
    attributes: Mapping[str, Any]
    slot_locks: tuple[tuple[str, int], ...]
    lease_locks: tuple[tuple[str, int], ...]
    on: tuple[str, Mapping[str, Any]] | None = None

    @property
    def exact(self) -> set[str]:
        """The slot locks of one holder, without those that are counted."""
        return {key for key, of in self.slot_locks if not of}


class Step(NamedTuple):
    """One call of a hook."""

    hook: str
    holder: int = 1  #: which lease, where it is about one
    attributes: Mapping[str, Any] = {}  #: what that lease asked for


class Subject:
    """A kind with settings, in a folder."""

    def __init__(
        self,
        kind: KindClass,
        folder: Path,
        settings: Mapping[str, Any],
        source: Mapping[str, Any] | None,
        support: Callable[[str, Mapping[str, Any]], Support],
        seconds: float,
    ) -> None:
        self.kind, self.folder, self.settings, self.source = kind, folder, settings, source
        self.support, self.seconds = support, seconds
        self.code = Code.of(kind)

    def made(self, name: str = "kit", settings: Mapping[str, Any] | None = None) -> Pool | Builder:
        """A fresh instance, as a fresh process would have it."""
        # What the store keeps is JSON, so that is what it is made from.
        plain = json.loads(json.dumps([self.settings if settings is None else settings, self.source]))
        return make(self.kind, name, *plain)

    @property
    def hooks(self) -> list[str]:
        """The hooks that it has."""
        return [hook for hook in HOOKS if self.overrides(hook)]

    def overrides(self, method: str) -> bool:
        base = Pool if issubclass(self.kind, Pool) else Builder
        return getattr(self.kind, method, None) is not getattr(base, method, None)

    # ---- asking

    def apart(self, do: Callable[[], Any], **options: Any) -> Ended:
        return apart(do, seconds=self.seconds, folder=self.folder.parent, **options)

    def offer(self, wanted: Mapping[str, Any], **options: Any) -> Ended:
        """Ask in a process of its own what it offers; its answer is a list of what `things` reads."""
        return self.apart(lambda: offered(self.made(**options), wanted))

    def offer_twice(self, wanted: Mapping[str, Any]) -> Ended:
        """Ask one instance twice."""

        def ask() -> Any:
            one = self.made()
            return [offered(one, wanted), offered(one, wanted)]

        return self.apart(ask)

    def offer_elsewhere(self, wanted: Mapping[str, Any], seed: int) -> Ended:
        """Ask in an interpreter of its own, which orders sets in its own way."""
        where = [self.kind.__module__, self.kind.__qualname__, inspect.getsourcefile(self.kind)]
        given = [where, self.settings, self.source, wanted]
        function = f"{__name__}:offered_elsewhere"
        return in_another_interpreter(function, given, seed=seed, seconds=4 * self.seconds, folder=self.folder.parent)

    # ---- working

    def resource(self, thing: Thing) -> ResourceInfo:
        """What a hook is told of a resource made of `thing`."""
        on = self.support(*thing.on) if thing.on else None
        return ResourceInfo(1, thing.name, self.kind.type or "thing", thing.attributes, on)

    def run(self, thing: Thing, *steps: Step, crash_at: int = 0, together: bool = False) -> Ended:
        """Call hooks for `thing`, each in a process of its own, until one does not return; or all in one, `together`."""
        resource = self.resource(thing)
        if together or len(steps) == 1:

            def work() -> None:
                blueprint = self.made()
                for step in steps:
                    called(blueprint, resource, step)

            return self.apart(work, code=self.code if len(steps) == 1 else None, crash_at=crash_at)
        ended = Ended()
        for step in steps:
            ended = self.run(thing, step)
            if ended.error:
                return ended._replace(error=f"{step.hook}: {ended.error}")
        return ended

    def look(self, thing: Thing) -> Ended:
        """Ask how to get there, and, where it has such a look, whether it is there: "there", "gone" or None."""
        resource = self.resource(thing)

        def look() -> str | None:
            blueprint = self.made()
            if isinstance(blueprint, Pool) or not self.overrides("observe"):
                return None
            try:
                blueprint.observe(resource)
            except Gone:
                return "gone"
            return "there"

        return self.apart(look)


def called(blueprint: Pool | Builder, resource: ResourceInfo, step: Step) -> None:
    """Call one hook, and again when it says so."""
    lease = LeaseInfo(step.holder, f"holder-{step.holder}", step.attributes, step.holder)
    for _ in range(MOST_YIELDS):
        try:
            perform(blueprint, step.hook, resource, lease if step.hook.endswith("_lease") else None, None)
        except Yield as later:
            time.sleep(min(later.after, LONGEST_YIELD_SECONDS))
        else:
            return
    raise TimeoutError(f"it raised Yield {MOST_YIELDS} times")


def offered(blueprint: Pool | Builder, wanted: Mapping[str, Any]) -> list[Any]:
    """What it offers, checked as Drydock checks it. Raises as Drydock would."""
    if type(blueprint).source_table is not None:
        type(blueprint).check_source(blueprint.source)
    blueprint.check()
    if isinstance(blueprint, Pool):
        bindings: list[Any] = list(islice(blueprint.bindings(), 100_001))
        _declare(blueprint.name, bindings)
        return [_binding(binding) for binding in bindings]
    plans: Iterable[Any] = islice(blueprint.plans(wanted), MOST_PLANS)
    return [_plan(checked_plan(blueprint.name, plan)) for plan in plans]


def lost_in_json(blueprint: Pool | Builder, wanted: Mapping[str, Any]) -> list[Any]:
    """For each thing whose attributes do not come back from JSON as they were given: its name, and why."""
    given: Iterable[Any] = blueprint.bindings() if isinstance(blueprint, Pool) else blueprint.plans(wanted)
    lost = []
    for thing in islice(given, MOST_PLANS):
        try:
            back = json.loads(json.dumps(check(thing.attributes, "attributes")))
        except ConfigError as error:
            lost.append([printable(thing.name), str(error)])
            continue
        if back != thing.attributes:
            lost.append([printable(thing.name), f"{printable(back)} for {printable(thing.attributes)}"])
    return lost


def offered_elsewhere(given: Sequence[Any]) -> list[Any]:
    """The same, in another interpreter."""
    where, settings, source, wanted = given
    return offered(make(imported(*where), "kit", settings, source), wanted)


def things(answer: Any) -> list[Thing]:
    """What `offered` has told, read."""
    return [
        Thing(name, attributes, tuple(map(tuple, slots)), tuple(map(tuple, leases)), tuple(on) if on else None)
        for name, attributes, slots, leases, on in answer
    ]


def _binding(binding: Binding) -> list[Any]:
    attributes = check(binding.attributes, "attributes")
    return [binding.name, attributes, [binding.slot_lock], sorted(set(binding.lease_locks)), None]


def _plan(plan: Plan) -> list[Any]:
    on = plan.on
    if on is not None and not isinstance(on, Need):
        raise BlueprintError("kit", "plans", "`on` of a plan must be a Need")
    need = [on.type, check(on.attributes, "attributes")] if on else None
    return [plan.name, plan.attributes, list(plan.slot_locks), list(plan.lease_locks), need]


def tree(folder: Path, *, without: Path | None = None) -> set[str]:
    """All that is below a folder, links not followed."""
    found = set()
    for where, folders, files in os.walk(folder):
        here = Path(where)
        if without is not None:
            with contextlib.suppress(ValueError):
                folders.remove(without.name) if here == without.parent else None
        found |= {str((here / name).relative_to(folder)) for name in (*folders, *files)}
    return found
