"""What every kind must do, as tests that its author runs on it.

    class TestUsbBoards(BlueprintContract):
        kind = UsbBoards

        def settings(self, folder: Path) -> dict[str, Any]:
            return {"serials": ["A100", "A101"]}

The kit calls each hook in a process of its own, as Drydock does; kills it at each line; and asks for what nobody should
ask for. Whatever fails says in a sentence what would happen to a user.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ..attributes import canonical, fits
from ..blueprint import API, REQUIRED, Builder, Local, Pool, Setting, Ssh, Support
from ..discovery import KindClass, _checked, checked_settings
from ..errors import BlueprintError, ConfigError, Refused, listed, printable, quoted
from . import hostile, together
from .apart import Ended
from .subject import HOOKS, Step, Subject, Thing, lost_in_json, offered, things, tree

A, ACTIVATE_LEASE, DESTROY_LEASE, D = (Step(hook) for hook in HOOKS)
NEXT_ACTIVATE, NEXT_DESTROY = Step("activate_lease", 2), Step("destroy_lease", 2)

#: orders in which hooks can come when somebody dies between a hook and the record of it
ORDERS: Mapping[str, tuple[Step, ...]] = {
    "as-it-should-be": (A, ACTIVATE_LEASE, DESTROY_LEASE, D),
    "activate-twice": (A, A, D),
    "destroy-twice": (A, D, D),
    "destroy-without-activate": (D,),
    "built-again-after-destroy": (A, D, A, D),
    "activate_lease-twice": (A, ACTIVATE_LEASE, ACTIVATE_LEASE, DESTROY_LEASE, D),
    "destroy_lease-twice": (A, ACTIVATE_LEASE, DESTROY_LEASE, DESTROY_LEASE, D),
    "destroy_lease-without-activate_lease": (A, DESTROY_LEASE, D),
    "the-next-holder": (A, ACTIVATE_LEASE, DESTROY_LEASE, NEXT_ACTIVATE, NEXT_DESTROY, D),
    "everything-twice": (A, A, ACTIVATE_LEASE, ACTIVATE_LEASE, DESTROY_LEASE, DESTROY_LEASE, D, D),
}

#: for each hook: what came before, and what the next process may do after a crash in it, before it destroys
CRASHES: Mapping[str, tuple[tuple[Step, ...], tuple[tuple[Step, ...], ...]]] = {
    "activate": ((), ((A, ACTIVATE_LEASE, DESTROY_LEASE), ())),
    "activate_lease": ((A,), ((ACTIVATE_LEASE, DESTROY_LEASE), (DESTROY_LEASE,))),
    "destroy_lease": ((A, ACTIVATE_LEASE), ((DESTROY_LEASE,),)),
    "destroy": ((A, ACTIVATE_LEASE, DESTROY_LEASE), ((),)),
}

REFUSALS = {"ConfigError", "Refused"}


class BlueprintContract:
    """Subclass it under a name that begins with `Test`, and say at least `kind`."""

    #: the class under test
    kind: ClassVar[KindClass]
    #: what a request asks for; for a builder, something that it can build
    wanted: ClassVar[Mapping[str, Any]] = {}
    #: True: two blueprints with the same settings are two different things, as two counters would be
    one_of_its_own_for_each_blueprint: ClassVar[bool] = False
    #: seconds after which a hook, or an answer, is taken to hang
    patience: ClassVar[float] = 20.0
    #: at most so many moments are tried in each hook, spread evenly, if there are more
    most_crashes: ClassVar[int] = 40
    #: at most so many hostile requests that were not refused are served
    most_hostile: ClassVar[int] = 20

    def settings(self, folder: Path) -> Mapping[str, Any]:
        """The settings, as in a pool file. `folder` is an empty folder, for what the kind builds."""
        return {}

    def source(self, folder: Path) -> Mapping[str, Any] | None:
        """The shared table, for a kind that has a `source_table`."""
        return None

    def support(self, type: str, attributes: Mapping[str, Any]) -> Support:
        """What a resource stands on, for a kind whose plans ask for something (`Plan.on`)."""
        return Support("support", type, attributes, Local())

    def leftovers(self, folder: Path) -> Iterable[str]:
        """Names of all that the kind has built and that is there now; without this, what is in the folder."""
        return tree(folder)

    # ---- what the tests start from

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "world" / "deep" / "folder"
        folder.mkdir(parents=True)
        victim = tmp_path / "world" / "victim"
        victim.mkdir()
        (victim / "precious").write_text("somebody else's")
        return folder

    @pytest.fixture
    def subject(self, folder: Path) -> Subject:
        kind = getattr(type(self), "kind", None)
        if kind is None:
            pytest.fail(f"{type(self).__name__} must say which class it tests: kind = YourKind", pytrace=False)
        given = dict(self.settings(folder))
        try:
            settings = checked_settings(kind, given, "settings")
        except ConfigError as error:
            pytest.fail(f"{error}; correct what {type(self).__name__}.settings returns", pytrace=False)
        return Subject(kind, folder, settings, self.source(folder), self.support, self.patience)

    @pytest.fixture
    def offer(self, subject: Subject) -> list[Thing]:
        """All that it offers for `wanted`."""
        return self._offer(subject)

    # ---- the class

    def test_drydock_can_load_it(self, subject: Subject) -> None:
        kind = subject.kind
        if kind.api != API:
            self._fail(
                f"{kind.__name__} was written for version {kind.api} of the interface, and this Drydock has {API}: it is not loaded"
            )
        try:
            _checked(kind.__name__, kind)
        except BlueprintError as error:
            self._fail(f"Drydock does not load it, so nobody gets a lease: {error}")
        if "<locals>" in kind.__qualname__:
            self._fail(
                f"{kind.__name__} is defined in a function, where no other process finds it; define it in a module"
            )
        ended = subject.offer_elsewhere(self.wanted, 0)
        if {"ModuleNotFoundError", "ImportError", "AttributeError", "SyntaxError"} & set(ended.errors) or ended.died:
            self._fail(f"another process cannot import {kind.__name__}, so no command can use it: {ended.error}")

    def test_its_settings_can_be_understood(self, subject: Subject) -> None:
        schema = subject.kind.settings_schema
        for name, setting in schema.items():
            if setting.type not in (list, str, int, float, bool, dict):
                self._fail(f"setting {quoted(name)} is of type {printable(setting.type)}, which no pool file can give")
            if not setting.help.strip():
                self._fail(f"setting {quoted(name)} has no help: a user who leaves it out is not told what is missing")
            if setting.default is not REQUIRED:
                self._check_default(name, setting)

    def _check_default(self, name: str, setting: Setting) -> None:
        try:
            schema: Any = type("Schema", (), {"settings_schema": {name: setting}})
            checked_settings(schema, {name: setting.default}, "its default")
            json.dumps(setting.default)
        except (ConfigError, TypeError) as error:
            self._fail(f"a user who leaves out {quoted(name)} gets a default that he could not write: {error}")

    # ---- what it offers

    def test_it_offers_something(self, subject: Subject) -> None:
        self._first(self._offer(subject))

    def _first(self, offer: list[Thing]) -> Thing:
        if not offer:
            what = f" for {canonical(self.wanted)}" if self.wanted else ""
            self._fail(
                f"it offers nothing{what}, so every request is refused at once; give settings, or `wanted`, that it can serve"
            )
        return offer[0]

    def test_it_offers_the_same_whenever_it_is_asked(self, subject: Subject, offer: list[Thing]) -> None:
        twice = subject.offer_twice(self.wanted)
        self._answered(twice)
        one, two = map(things, twice.answer)
        others = [("when one object is asked", one), ("when it is asked a second time", two)]
        others.append(("in another process", self._offer(subject)))
        for seed in (1, 2, 3):
            elsewhere = self._answered(subject.offer_elsewhere(self.wanted, seed))
            others.append(("in another process, where sets have another order", things(elsewhere.answer)))
        for when, other in others:
            if other != offer:
                self._fail(
                    f"it offers something else {when} ({_difference(offer, other)}): a thing that is leased can be forgotten or"
                    " built twice, because nobody can tell that it is the same"
                )

    def test_each_thing_has_a_slot_lock_of_its_own(self, subject: Subject, offer: list[Thing]) -> None:
        for thing in offer:
            if not thing.slot_locks:
                self._fail(
                    f"two users would get {quoted(thing.name)} at once, because it locks nothing; give it a slot lock that names it"
                )
            if not thing.exact and subject.hooks:
                key, of = thing.slot_locks[0]
                self._fail(
                    f"{of} users would get {quoted(thing.name)} at once and {subject.hooks[0]} would work on it for each, because"
                    f" {quoted(key)} only counts; give it a slot lock that names it as well"
                )
        for number, one in enumerate(offer):
            for other in offer[number + 1 : number + 20]:
                self._compare(one, other)

    def _compare(self, one: Thing, other: Thing) -> None:
        if not one.exact or not other.exact:
            return
        if one.name == other.name and not one.exact & other.exact:
            self._fail(
                f"two users would get {quoted(one.name)} at once: it is offered twice, and the two share no slot lock"
                f" ({listed(sorted(one.exact))}; {listed(sorted(other.exact))})"
            )
        if one.name != other.name and not (one.exact - other.exact and other.exact - one.exact):
            shared = listed(sorted(one.exact & other.exact))
            self._fail(
                f"a user who has {quoted(one.name)} keeps everybody from {quoted(other.name)}: they share the slot lock {shared},"
                " and one of them has none of its own"
            )

    def test_two_blueprints_that_list_one_thing_lock_the_same(self, subject: Subject) -> None:
        if self.one_of_its_own_for_each_blueprint:
            return
        offers = (self._offer(subject, name=name) for name in ("one", "two"))
        ours, theirs = ({thing.name: thing for thing in offer if thing.exact} for offer in offers)
        for name in ours.keys() & theirs.keys():
            if not ours[name].exact & theirs[name].exact:
                self._fail(
                    f"two users would get {quoted(name)} at once if two blueprints list it: the slot locks"
                    f" {listed(sorted(ours[name].exact))} depend on the blueprint's name"
                )

    def test_it_offers_what_was_asked_for(self, subject: Subject, offer: list[Thing]) -> None:
        if issubclass(subject.kind, Pool):
            return
        about_the_lease = subject.kind.per_lease if issubclass(subject.kind, Builder) else ()
        wanted = {name: value for name, value in self.wanted.items() if name not in about_the_lease}
        for thing in offer:
            if not fits(thing.attributes, wanted):
                self._fail(
                    f"whoever asks for {canonical(wanted)} again would not get the idle {quoted(thing.name)}, and a new one is built"
                    f" each time, because its attributes are {canonical(thing.attributes)}; repeat there what was asked for"
                )

    def test_its_attributes_survive_json(self, subject: Subject) -> None:
        for name, what in self._answered(subject.apart(lambda: lost_in_json(subject.made(), self.wanted))).answer:
            self._fail(f"whoever holds {quoted(name)}, and its hooks, find other attributes than you gave it: {what}")

    def test_to_ask_changes_nothing(self, subject: Subject, folder: Path) -> None:
        before, around = self._outside(folder), tree(folder.parent.parent)
        self._offer(subject)
        made = (self._outside(folder) - before) | (tree(folder.parent.parent) - around)
        gone = (before - self._outside(folder)) | (around - tree(folder.parent.parent))
        if made or gone:
            what = f"made {listed(sorted(made))}" if made else f"removed {listed(sorted(gone))}"
            self._fail(
                f"to ask what it offers {what}: that happens at every `apply --plan` and every request, and nobody takes it back"
            )

    # ---- hostile input

    def test_hostile_settings_are_refused_or_harmless(self, subject: Subject, folder: Path) -> None:
        around = self._around(folder)
        types = {name: setting.type for name, setting in subject.kind.settings_schema.items()}
        for name, bad in hostile.settings(subject.settings, types, self._victim(folder)):
            self._refused_or_harmless(
                subject.offer(self.wanted, settings=bad), f"a pool file with {name} = {_shown(bad[name])}"
            )
        self._nothing_happened(folder, around, "a hostile setting")

    def test_hostile_attributes_are_refused_or_harmless(
        self, subject: Subject, offer: list[Thing], folder: Path
    ) -> None:
        around = self._around(folder)
        before = self._outside(folder)
        accepted = list(self._hostile_plans(subject, offer, folder)) if issubclass(subject.kind, Builder) else []
        self._nothing_happened(folder, around, "asking for hostile attributes")
        step = max(1, len(accepted) // self.most_hostile)
        for wanted, thing in accepted[::step]:
            asked = f"a lease that asks for {_shown(wanted)}"
            # What cannot be built may well be refused here too; but it must be possible to end it.
            subject.run(thing, A._replace(attributes=wanted))
            subject.run(thing, ACTIVATE_LEASE._replace(attributes=wanted))
            for hook in (DESTROY_LEASE, D):
                ended = subject.run(thing, hook._replace(attributes=wanted))
                if ended.error:
                    self._fail(
                        f"{asked} could never be ended, and {quoted(thing.name)} is lost to all others: {hook.hook}: {ended.error}"
                    )
            self._nothing_happened(folder, around, asked)
            self._nothing_left(folder, before, asked)

    def _hostile_plans(
        self, subject: Subject, offer: list[Thing], folder: Path
    ) -> Iterable[tuple[Mapping[str, Any], Thing]]:
        kind = subject.kind
        known = {
            *self.wanted,
            *getattr(kind, "per_lease", ()),
            *(name for thing in offer[:5] for name in thing.attributes),
        }
        requests = list(hostile.attributes(sorted(known), self.wanted, self._victim(folder)))

        def ask() -> list[Any]:
            told: list[Any] = []
            for wanted in requests:
                try:
                    told.append([None, offered(subject.made(), wanted)[:1]])
                except (ConfigError, Refused):
                    told.append([None, []])
                except BaseException as error:  # noqa: BLE001 - it is told below
                    told.append([f"{type(error).__name__}: {error}", []])
            return told

        ended = subject.apart(ask)
        if ended.hung or ended.died:
            self._fail(f"a user who asks for hostile attributes makes the command hang or die: {ended.error}")
        for wanted, (error, plans) in zip(requests, ended.answer, strict=True):
            if error:
                self._fail(
                    f"a user who asks for {_shown(wanted)} is told of a bug of yours instead of his mistake, {error};"
                    " check it, and raise ConfigError"
                )
            for thing in things(plans):
                yield wanted, thing

    def _refused_or_harmless(self, ended: Ended, who: str) -> None:
        if ended.error and not REFUSALS & set(ended.errors):
            self._fail(
                f"{who} is told of a bug of yours instead of a mistake in the file, {ended.error}; check it, and raise ConfigError"
            )

    # ---- hooks

    def test_each_hook_finds_what_it_needs_in_a_process_of_its_own(self, subject: Subject, offer: list[Thing]) -> None:
        thing = self._first(offer)
        steps = ORDERS["as-it-should-be"]
        ended = subject.run(thing, *steps)
        if not ended.error:
            return
        subject.run(thing, DESTROY_LEASE)
        subject.run(thing, D)
        if not subject.run(thing, *steps, together=True).error:
            self._fail(
                f"it keeps something in memory between hooks, and each runs in a process of its own, so no lease ever works: {ended.error}"
            )
        self._fail(f"no lease ever works: {ended.error}")

    @pytest.mark.parametrize("order", ORDERS)
    def test_hooks_may_come_in_every_order_that_a_crash_gives(
        self, order: str, subject: Subject, offer: list[Thing], folder: Path
    ) -> None:
        before, thing = self._outside(folder), self._first(offer)
        done: list[str] = []
        for step in ORDERS[order]:
            if step.hook not in subject.hooks:
                continue
            self._check_step(subject.run(thing, step), step, done)
            done.append(step.hook)
        self._nothing_left(folder, before, ", ".join(done))

    def _check_step(self, ended: Ended, step: Step, done: list[str]) -> None:
        if not ended.error:
            return
        after = f" after {', '.join(done)}" if done else " before anything else"
        why = {
            "activate": "whoever asked for it gets nothing, though it could be built",
            "activate_lease": "whoever asked for it gets a broken lease",
            "destroy_lease": "its seat is never free again",
            "destroy": "it is never free again, and nobody else gets it",
        }[step.hook]
        if ended.hung:
            self._fail(f"{step.hook}{after} hangs: the user waits until `time_limit`, and {why}")
        self._fail(f"when a crash makes it come{after}, {step.hook} fails, so {why}: {ended.error}")

    @pytest.mark.parametrize("hook", HOOKS)
    def test_a_crash_leaves_nothing_behind(self, hook: str, subject: Subject, offer: list[Thing], folder: Path) -> None:
        if hook not in subject.hooks:
            return
        before, thing = self._outside(folder), self._first(offer)
        up_to, recoveries = CRASHES[hook]
        moments, usual = 0, {}
        for step in ORDERS["as-it-should-be"]:
            ended = self._done(subject, thing, step)
            moments = ended.moments if step.hook == hook else moments
            usual[step.hook] = self._outside(folder)
        tried = sorted({round(moments * n / self.most_crashes) for n in range(1, self.most_crashes + 1)} - {0})
        for recovery in recoveries:
            for moment in tried:
                for step in up_to:
                    self._done(subject, thing, step)
                crashed = subject.run(thing, Step(hook), crash_at=moment)
                where = f"{hook} at {crashed.crashed_at}" if crashed.crashed_at else f"{hook} after its last line"
                for step in (*recovery, D):
                    self._recovers(subject, thing, step, where)
                    if step.hook != "destroy":
                        self._as_usual(usual[step.hook], self._outside(folder), where, of_a_holder="_lease" in hook)
                self._nothing_left(folder, before, f"a crash in {where}, and all that comes after,")

    def _recovers(self, subject: Subject, thing: Thing, step: Step, where: str) -> None:
        ended = subject.run(thing, step) if step.hook in subject.hooks else Ended()
        if ended.error:
            lost = "nobody ever gets it again" if step.hook.startswith("destroy") else "whoever is next gets nothing"
            self._fail(f"after a crash in {where}, {step.hook} fails, and {lost}: {ended.error}")

    def _as_usual(self, usual: set[str], now: set[str], where: str, *, of_a_holder: bool) -> None:
        # What is left of building it goes with it; what is left of a holder may not wait for that.
        left = now - usual if of_a_holder else set()
        if usual - now or left:
            what = f"{listed(sorted(left))} is left" if left else f"{listed(sorted(usual - now))} is missing"
            self._fail(f"after a crash in {where}, the next holder finds it otherwise than usual: {what}")

    def _done(self, subject: Subject, thing: Thing, step: Step) -> Ended:
        ended = subject.run(thing, step) if step.hook in subject.hooks else Ended()
        self._check_step(ended, step, [])
        return ended

    def test_its_looks_do_no_harm(self, subject: Subject, offer: list[Thing], folder: Path) -> None:
        """`interface` and `missing` answer what they may, and `observe` tells what is there from what is gone."""
        thing = self._first(offer)
        told = subject.apart(lambda: _look_around(subject, thing))
        if told.error:
            self._fail(f"a look of a user or of the worker fails: {told.error}")
        if not subject.overrides("observe"):
            return
        self._done(subject, thing, A)
        there = subject.look(thing)
        self._done(subject, thing, D)
        gone = subject.look(thing)
        if there.answer != "there":
            self._fail(
                f"observe takes a thing for gone that was just built, so every lease is lost at once: {there.error or 'Gone'}"
            )
        if gone.answer == "there":
            self._fail("observe takes a thing for there that was destroyed: one that dies is handed out for ever")

    # ---- several processes

    def test_two_processes_never_get_the_same_thing(self, subject: Subject, folder: Path, tmp_path: Path) -> None:
        """Real processes, all at once, on a store of their own."""
        before = self._outside(folder)
        said = together.race(subject, self.wanted, tmp_path)
        if said:
            self._fail(said)
        self._nothing_left(folder, before, "when all leases of several processes are over, something of theirs")

    def test_in_no_order_of_steps_do_two_get_the_same_thing(self, subject: Subject, tmp_path: Path) -> None:
        """The explorer of `drydock.testing.explore`, with hooks that do nothing; and somebody may die at each step."""
        ended = subject.apart(lambda: together.explored(subject, self.wanted))
        if ended.error:
            self._fail(f"it cannot be leased: {ended.error}")
        if ended.answer:
            self._fail(
                f"two users would get the same thing, or one would get none, in this order of steps: {ended.answer}"
            )

    # ---- what they share

    def _offer(self, subject: Subject, **options: Any) -> list[Thing]:
        return things(self._answered(subject.offer(self.wanted, **options)).answer)

    def _answered(self, ended: Ended) -> Ended:
        if ended.hung:
            self._fail(
                f"it hangs when it is asked what it offers, and so does every command of every user: {ended.error}"
            )
        if ended.error:
            self._fail(f"nobody gets a lease, because it cannot say what it offers: {ended.error}")
        return ended

    def _outside(self, folder: Path) -> set[str]:
        return set(self.leftovers(folder))

    def _victim(self, folder: Path) -> str:
        return str(folder.parent.parent / "victim")

    def _nothing_left(self, folder: Path, before: set[str], after: str) -> None:
        now = self._outside(folder)
        if now - before:
            self._fail(f"{after} leaves {listed(sorted(now - before))} behind, and nobody ever removes it")
        if before - now:
            self._fail(f"{after} removes {listed(sorted(before - now))}, which it did not make")

    def _around(self, folder: Path) -> set[str]:
        return tree(folder.parent.parent, without=folder)

    def _nothing_happened(self, folder: Path, around: set[str], after: str) -> None:
        now = self._around(folder)
        made, gone = now - around, around - now
        if any(Path(path).name == hostile.CANARY for path in made):
            self._fail(f"{after} runs a command of the user's choice: what he asks for comes to a shell")
        if made or gone:
            what = f"makes {listed(sorted(made))}" if made else f"removes {listed(sorted(gone))}"
            self._fail(f"{after} {what} outside of its folder: a user can reach what is not his")

    def _fail(self, sentence: str) -> None:
        pytest.fail(sentence, pytrace=False)


def _look_around(subject: Subject, thing: Thing) -> None:
    blueprint, resource = subject.made(), subject.resource(thing)
    try:
        where: object = blueprint.interface(resource)
    except (ConfigError, Refused):
        where = Local()
    if not isinstance(where, Local | Ssh):
        raise TypeError(f"interface must return Local or Ssh, not {printable(where)}")
    if isinstance(blueprint, Pool):
        for name in blueprint.missing(set()):
            if not isinstance(name, str):
                raise TypeError(f"missing must give names, not {printable(name)}")


def _difference(one: list[Thing], other: list[Thing]) -> str:
    for here, there in zip(one, other, strict=False):
        if here != there:
            return f"{_told(here)} is {_told(there)} there"
    return f"{len(one)} things here, {len(other)} there"


def _told(thing: Thing) -> str:
    return f"{thing.name} {canonical(thing.attributes)} with {listed(key for key, _ in thing.slot_locks)}"


def _shown(value: object) -> str:
    return printable(json.dumps(value), 80)
