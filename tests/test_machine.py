"""Any order of verbs, by several engines that wait, come and die: what must always hold, holds after every step.

A real store underneath; Hypothesis chooses the order. The model knows only what a user knows: who was granted what and
for how long, who asked before whom, and what everybody can see in the lists.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import apply, dies, open_at
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import BlueprintError, LeaseLost, NeverPossible, NotFound, NothingFree
from drydock.model import Demand, Lease, LeaseStatus, Resource, Terms
from drydock.request import Request
from drydock.store.leases import HEAD_START_SECONDS

#: a builder with every hook, some of which fail, and a licence that its leases share
WORKSHOP = """
from drydock.blueprint import Builder, Plan, slot_lock


class Workshop(Builder):
    type = "bench"
    grace = 60.0

    def plans(self, wanted):
        for number in range(4):
            locks = (slot_lock("bench", number),)
            yield Plan(f"bench-{number}", locks, dict(wanted), (slot_lock("licence").any_of(3),))

    def activate(self, resource):
        if resource.attributes.get("broken"):
            raise RuntimeError("it cannot be built")

    def destroy(self, resource):
        pass

    def activate_lease(self, resource, lease):
        if lease.attributes.get("torn"):
            raise RuntimeError("it cannot be prepared")

    def destroy_lease(self, resource, lease):
        pass
"""

HOSTS = ["h1", "h2", "h3", "h4"]
ENGINES = st.integers(0, 1)
PRIORITIES = st.sampled_from([0, 0, 0, 1])
TTLS = st.sampled_from([None, None, 3.0, 50.0])
UNTILS = st.sampled_from([None, None, 5.0, 100.0])
#: demands that are served without asking a blueprint, and so by whoever frees something
FROM_A_POOL = [
    Demand("host"), Demand("host"), Demand("host", (), {"arch": "arm64"}), Demand("host", ("lab",)),
    Demand("host", ("one", "two")),
]  # fmt: skip
FROM_A_BUILDER = [
    Demand("bench"), Demand("bench", (), {"size": 2}), Demand("bench", (), {"broken": True}),
    Demand("bench", (), {"torn": True}),
]  # fmt: skip


class Life(NamedTuple):
    """What a pool file says of how long things live."""

    cooldown: str | None = None
    lifetime: str | None = None
    ttl: str | None = None


LIVES = st.sampled_from([Life(), Life(), Life(cooldown="5s"), Life(lifetime="100s"), Life(ttl="20s")])


def pool(hosts: list[str], seats: int, limit: int | None, devices: list[str], life: Life) -> dict[str, Any]:
    lab: dict[str, Any] = {
        "kind": "host-pool",
        "seats": seats,
        "hosts": [{"name": h, "attributes": {"arch": arch_of(h)}} for h in hosts],
        **{name: value for name, value in life._asdict().items() if value},
    }
    if limit is not None:
        lab["limit"] = limit
    build = {"kind": "almanac-hosts", "services": ["s1"]}
    return {
        "blueprint": {"lab": lab, "one": build, "two": build, "shop": {"kind": "workshop", "limit": 2, "seats": 2}},
        "almanac": {"device": {d: {} for d in ("d1", "d2")}, "service": {"s1": {"devices": devices}}},
    }


def arch_of(host: str) -> str:
    return "arm64" if host in ("h2", "h4") else "x86_64"


class Waits(Exception):
    """A request has nothing to do but to wait."""


class Stepwise(Request):
    """A request whose process does other things instead of sleeping, and looks when it is told to: its `go_on` raises
    `Waits` unless all is held."""

    def _wait(self, again_at: float | None) -> None:
        self._look_at_pending()  # as whoever is woken does first
        if self.pending and not self.preparing:
            raise Waits


@dataclasses.dataclass(eq=False)
class Asked:
    """A request that waits, or was granted and does not know it yet."""

    ids: list[int]
    demand: Demand
    by: Engine
    request: Stepwise
    terms: Terms
    number: int  # the how-manieth that asked
    at: float  # uptime
    steps: int  # how often the clock was set before
    dropped: bool = False  # its time was up when somebody came by


@dataclasses.dataclass
class Held:
    """A lease that was granted and not given back."""

    by: Engine | None  # who it ends with
    fence: int
    resource: Resource
    until: float | None
    ttl: float | None
    deadline: float | None  # uptime
    boot: str
    asked: Asked | None = None  # its requester does not know of it yet


class Verbs(RuleBasedStateMachine):
    folder: Path
    new_store: Callable[[], str]

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.address = self.new_store()
        self.wall, self.up, self.boots = 1_800_000_000.0, 1000.0, 1
        self.latest = self.wall  # the latest that the clock ever showed
        self.steps = 0
        self.asked = 0
        self.engines = [self.engine(), self.engine()]
        self.dead: list[Engine] = []
        self.held: dict[int, Held] = {}
        self.waits: list[Asked] = []
        self.fences: dict[str, int] = {}  # a binding's or bench's name, to the last fence of it
        self.rests: dict[int, float] = {}  # resources that cool down: until when
        self.rested: dict[int, float] = {}  # the same, before anybody looked for what is lost

    def engine(self) -> Engine:
        store = open_at(self.address, lambda: self.wall, lambda: self.up)
        store.boot = f"boot-{self.boots}"
        return Engine(store, environment={"DRYDOCK_BLUEPRINTS": str(self.folder / "kinds")}, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds
        self.latest = max(self.latest, self.wall)

    def teardown(self) -> None:
        with self.engines[0].store.write():  # what is held would keep a connection open until this process ends
            self.engines[0].store.run("DELETE FROM lease")
        for engine in self.engines + self.dead:
            engine.store.close()

    # ---- what is offered

    @initialize(target=leases, life=LIVES, terms=st.lists(st.tuples(TTLS, UNTILS), min_size=3, max_size=3))
    def begin(self, life: Life, terms: list[tuple[float | None, float | None]]) -> Any:
        """Everything is taken, and two wait."""
        apply(self.engines[0], pool(HOSTS[:2], 1, None, ["d1"], life))
        held = [self.lease(0, Demand("host"), 1, False, 0, ttl, until).values[0] for ttl, until in terms]
        waiting = [self.ask(1, Demand("host"), count, True, 0, None, None).values for count in (1, 2)]
        return multiple(*held, *waiting[0], *waiting[1])

    @rule(
        by=ENGINES, hosts=st.lists(st.sampled_from(HOSTS), unique=True, min_size=1), seats=st.integers(1, 2),
        limit=st.sampled_from([None, 1, 2]), devices=st.sampled_from([["d1"], ["d1", "d2"], ["d2"]]), prune=st.booleans(),
        life=LIVES,
    )  # fmt: skip
    def apply(
        self, by: int, hosts: list[str], seats: int, limit: int | None, devices: list[str], prune: bool, life: Life
    ) -> None:
        self.cool_down()
        if life.cooldown is None:  # then those that rest may do so no longer
            self.rests = {}
        apply(self.engines[by], pool(hosts, seats, limit, devices, life), prune=prune)
        assert apply(self.engines[by], pool(hosts, seats, limit, devices, life), prune=prune) == []
        self.tended()

    @rule(
        by=ENGINES, on=st.booleans(),
        what=st.sampled_from(["blueprint:lab", "blueprint:one", "blueprint:shop", "binding:h1", "binding:d1",
                                "binding:one/d1"]),
    )  # fmt: skip
    def switch(self, by: int, what: str, on: bool) -> None:
        try:
            self.engines[by].switch(what, enabled=on)
        except NotFound:
            assert what.startswith("binding")
        else:
            self.tended()

    # ---- leases

    @rule(
        target=leases, by=ENGINES, count=st.integers(1, 3), keep=st.booleans(), priority=PRIORITIES, ttl=TTLS,
        until=UNTILS, demand=st.sampled_from(FROM_A_POOL + FROM_A_BUILDER),
    )  # fmt: skip
    def lease(
        self, by: int, demand: Demand, count: int, keep: bool, priority: int, ttl: float | None, until: float | None
    ) -> Any:
        engine, terms = self.engines[by], Terms(priority, ttl, None if until is None else self.wall + until)
        before = {lease.id for lease in engine.store.leases.live()}
        try:
            granted = engine.lease(
                demand, owner="t", count=count, wait_seconds=0, keep=keep, priority=priority, ttl=ttl, until=terms.until
            )
        except (NothingFree, NeverPossible, BlueprintError) as error:
            if isinstance(error, BlueprintError):
                assert demand.attributes.keys() & {"broken", "torn"}
            # All or nothing: whatever it raises, none of it is left.
            assert {lease.id for lease in engine.store.leases.live()} <= before
            if isinstance(error, NothingFree):
                self.tended()
                assert not self.is_there(demand, count, self.waits)
            return multiple()
        assert len(granted) == count
        self.asked += 1
        self.note_grants()  # who was found dead has made room for others, too
        for lease in granted:
            self.check_grant(lease, demand, priority, self.asked, None)
            self.hold(lease, None if keep else engine, terms)
        return multiple(*(lease.id for lease in granted))

    @rule(
        target=leases, by=ENGINES, count=st.sampled_from([1, 1, 2, 3]), keep=st.booleans(), priority=PRIORITIES, ttl=TTLS,
        until=UNTILS, demand=st.sampled_from(FROM_A_POOL),
    )  # fmt: skip
    def ask(
        self, by: int, demand: Demand, count: int, keep: bool, priority: int, ttl: float | None, until: float | None
    ) -> Any:
        """Ask for something and, if need be, wait for it."""
        engine, terms = self.engines[by], Terms(priority, ttl, None if until is None else self.wall + until)
        try:
            request = Stepwise(engine.queue, engine.tender, demand, terms, owner="t", count=count, keep=keep)
            request._ask()
        except NeverPossible:
            return multiple()
        self.asked += 1
        asked = Asked(request.ids, demand, engine, request, terms, self.asked, self.up, self.steps)
        self.waits.append(asked)
        self.note_grants()
        if request.pending:
            with pytest.raises(Waits):
                request.go_on()
        else:
            self.know(asked)
        return multiple(*request.ids)

    @rule(by=ENGINES)
    def look(self, by: int) -> None:
        """Whoever waits looks whether there is something for him."""
        for asked in [one for one in self.everybody() if one.by is self.engines[by]]:
            try:
                asked.request.go_on()
            except Waits:
                assert asked in self.waits
            except LeaseLost as lost:  # ended by somebody, or over, before he looked
                asked.request._withdraw(str(lost))
                self.forget(asked)
            else:
                self.note_grants()
                self.know(asked)

    def everybody(self) -> Iterator[Asked]:
        yield from list(self.waits)
        yield from {id(held.asked): held.asked for held in self.held.values() if held.asked}.values()

    def know(self, asked: Asked) -> None:
        """Its requester knows that it was granted; what is kept is nobody's from now on."""
        for id in asked.ids:
            if id in self.held:
                self.held[id].asked = None
                if asked.request.keep:
                    self.held[id].by = None

    def forget(self, asked: Asked) -> None:
        self.waits = [one for one in self.waits if one is not asked]
        for id in asked.ids:
            self.held.pop(id, None)

    def hold(self, lease: Lease, by: Engine | None, terms: Terms, asked: Asked | None = None) -> None:
        assert lease.status is LeaseStatus.ACTIVE
        assert lease.fence is not None
        assert lease.resource is not None
        deadline = None if terms.ttl is None else self.up + terms.ttl
        self.held[lease.id] = Held(
            by, lease.fence, lease.resource, terms.until, terms.ttl, deadline, f"boot-{self.boots}", asked
        )

    def check_grant(self, lease: Lease, demand: Demand, priority: int, number: int, asked: Asked | None) -> None:
        resource = lease.resource
        assert resource is not None
        assert lease.fence is not None
        assert self.fits(resource.blueprint, resource.attributes, demand)
        # A binding's fence grows over all the resources that ever stood on it; a bench is a new thing each time.
        of = resource.name if resource.type == "host" else f"{resource.name} {resource.id}"
        assert lease.fence > self.fences.get(of, 0)
        self.fences[of] = lease.fence
        # A limit that was lowered ends nothing that is there; but what is over it lets nothing more in.
        blueprint = next(b for b in self.engines[0].store.offers.blueprints() if b.name == resource.blueprint)
        assert blueprint.enabled
        assert resource.used <= (blueprint.seats or 1)
        assert resource.built_for != lease.id or blueprint.live <= (blueprint.limit or 99)
        # A seat beside one that was lost, and not found to be, may have been granted before the rest began.
        rests = self.rested if self.came_before_the_rest(lease.id, resource.id) else self.rests
        assert self.latest >= rests.get(resource.id, 0.0)
        # Nobody who came before could have used it.
        for other in self.waits:
            if (
                resource.type == other.demand.type
                and len(other.ids) == 1
                and other.by not in self.dead
                and not other.dropped
                and self.fits(resource.blueprint, resource.attributes, other.demand)
            ):
                assert not self.is_before(other, priority, number, asked)

    def is_before(self, other: Asked, priority: int, number: int, asked: Asked | None) -> bool:
        """Whether it is certain that `other` is served first."""
        if other is asked:
            return False
        if other.number < number:
            return other.terms.priority >= priority
        at, steps = (asked.at, asked.steps) if asked else (self.up, self.steps)
        head_start = (other.terms.priority - priority) * HEAD_START_SECONDS
        return other.steps == steps and other.at - at < head_start

    @staticmethod
    def fits(blueprint: str, attributes: Any, demand: Demand) -> bool:
        return blueprint in (demand.blueprints or (blueprint,)) and all(
            attributes.get(name) == value for name, value in demand.attributes.items()
        )

    @rule(by=ENGINES, id=consumes(leases))
    def release(self, by: int, id: int) -> None:
        """By anybody, also by another process; twice is no error, and only the first did it."""
        waits = next((asked for asked in self.waits if id in asked.ids), None)
        held = self.held.get(id)
        may_be_gone = bool(held and self.may_be_gone(held)) or bool(waits and self.may_give_up(waits))
        assert self.engines[by].release(id) == bool(held or waits) or may_be_gone
        assert not self.engines[by].release(id)
        self.held.pop(id, None)
        if waits:
            self.note_grants(but=waits)
            if waits.by not in self.dead:
                with pytest.raises(LeaseLost):
                    waits.request.go_on()
                waits.request._withdraw("a part of it was released")
                self.forget(waits)
            elif len(waits.ids) == 1:
                self.forget(waits)
            else:
                waits.ids = [one for one in waits.ids if one != id]

    @rule(by=ENGINES, which=st.integers(0, 3))
    def give_up(self, by: int, which: int) -> None:
        mine = [asked for asked in self.waits if asked.by is self.engines[by]]
        if which < len(mine):
            mine[which].request._withdraw("gave up")
            self.forget(mine[which])

    @rule(by=ENGINES, id=leases, old=st.booleans())
    def verify(self, by: int, id: int, old: bool) -> None:
        held = self.held.get(id)
        fence = None if held is None else held.fence - old
        if held and not old and not self.is_over(held):
            try:
                assert self.engines[by].verify(id, fence=fence).fence == held.fence
            except LeaseLost:
                assert self.may_be_gone(held)
            else:
                self.check_time_left(by, id, held)
        else:
            with pytest.raises(LeaseLost):
                self.engines[by].verify(id, fence=fence)

    def check_time_left(self, by: int, id: int, held: Held) -> None:
        ends = [held.until - self.wall] if held.until is not None else []
        ends += [held.deadline - self.up] if held.deadline is not None else []
        left = self.engines[by].seconds_left(id)
        assert left == (pytest.approx(min(ends)) if ends else None)

    @rule(by=ENGINES, id=leases, old=st.booleans(), ttl=TTLS, until=UNTILS)
    def renew(self, by: int, id: int, old: bool, ttl: float | None, until: float | None) -> None:
        held = self.held.get(id)
        end = None if until is None else self.wall + until
        fence = None if held is None else held.fence - old
        if held and not old and not self.is_over(held):
            try:
                self.engines[by].renew(id, fence=fence, ttl=ttl, until=end)
            except LeaseLost:
                assert self.may_be_gone(held)
                return
            held.ttl = held.ttl if ttl is None else ttl
            held.until = held.until if end is None else end
            held.deadline = None if held.ttl is None else self.up + held.ttl
            held.boot = f"boot-{self.boots}"
            self.check_time_left(by, id, held)
        else:
            with pytest.raises(LeaseLost):
                self.engines[by].renew(id, fence=fence, ttl=ttl, until=end)

    # ---- resources

    @rule(by=ENGINES)
    def reclaim(self, by: int) -> None:
        self.engines[by].reclaim()

    @rule(by=ENGINES, which=st.integers(0, 5))
    def release_resource(self, by: int, which: int) -> None:
        store = self.engines[by].store
        resources = store.resources.live()
        if which < len(resources):
            resource = resources[which].id
            for lease in store.leases.on_resource(resource):
                self.held.pop(lease, None)
            self.engines[by].release_resource(resource)
            gone = store.resources.get(resource)
            assert gone is not None
            assert gone.status == "destroyed"

    # ---- time and death

    @rule(seconds=st.sampled_from([1.0, 6.0, 61.0, 7200.0]))
    def time_passes(self, seconds: float) -> None:
        self.sleep(seconds)

    @rule(seconds=st.sampled_from([3600.0, -3600.0, 86_400.0, -86_400.0]))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        """It ends no lease by its ttl, keeps none alive, and puts nobody before those who wait: the model does not care."""
        self.wall += seconds
        self.latest = max(self.latest, self.wall)
        self.steps += 1
        if seconds < 0:  # a rest that would now last for longer than any is over
            self.rests = {}

    @rule(by=ENGINES, noticed=st.booleans())
    def die(self, by: int, noticed: bool) -> None:
        """Its process is gone, and with it all that is bound to it, as soon as anybody looks."""
        self.kill(self.engines[by])
        self.engines[by] = self.engine()
        if noticed:
            self.tidy(1 - by)

    def kill(self, engine: Engine) -> None:
        dies(engine.store)
        engine.store.close()
        self.dead.append(engine)

    @rule(down=st.sampled_from([10.0, 100.0]))
    def reboot(self, down: float) -> None:
        """All processes are gone, and so is every lease that had to be renewed."""
        for engine in self.engines:
            self.kill(engine)
        self.wall += down
        self.latest = max(self.latest, self.wall)
        self.boots += 1
        self.up = 5.0
        self.engines = [self.engine(), self.engine()]

    @rule(by=ENGINES)
    def tidy(self, by: int) -> None:
        self.cool_down()
        self.engines[by].tend()
        self.tended()
        assert [r.status for r in self.engines[by].store.resources.live() if r.status != "active"] == []

    @rule(by=ENGINES)
    def reap(self, by: int) -> None:
        self.cool_down()
        self.engines[by].reap()
        self.tended()

    def is_over(self, held: Held) -> bool:
        """Whether its own time is over; then it is lost, though nobody may have ended it yet."""
        if held.until is not None and held.until <= self.wall:
            return True
        return held.deadline is not None and (held.boot != f"boot-{self.boots}" or held.deadline <= self.up)

    def may_be_gone(self, held: Held) -> bool:
        """Whether the next who looks after the store ends it."""
        end = held.resource.until
        return self.is_over(held) or held.by in self.dead or (end is not None and end <= self.wall)

    def may_give_up(self, asked: Asked) -> bool:
        return (
            asked.dropped or asked.by in self.dead or (asked.terms.until is not None and asked.terms.until <= self.wall)
        )

    def came_before_the_rest(self, lease: int, resource: int) -> bool:
        """Whether the history has the grant before the last rest of its resource."""
        events = self.engines[0].store.events
        told = [(e.event, e.id) for e in (*events.of_lease(lease, 100), *events.of_resource(resource, 100))]
        last = dict(sorted(told, key=lambda one: one[1]))  # of each event
        granted = last.get("lease.acquired") or last["lease.activated"]
        return granted < last.get("resource.cooling-down", 0)

    def cool_down(self) -> None:
        """Those that are found lost now leave resources behind that may have to rest."""
        cooldown = next(b.cooldown for b in self.engines[0].store.offers.blueprints() if b.name == "lab")
        live = {lease.id for lease in self.engines[0].store.leases.live()}
        self.rested = dict(self.rests)
        for id, held in self.held.items():
            over = self.is_over(held) or held.by in self.dead
            if cooldown and over and held.resource.blueprint == "lab" and id in live:
                self.rests[held.resource.id] = self.wall + cooldown

    def tended(self) -> None:
        """Somebody has looked after the store: what is over has gone."""
        self.note_grants()
        self.held = {id: held for id, held in self.held.items() if not self.may_be_gone(held)}
        self.waits = [asked for asked in self.waits if not self.may_give_up(asked)]
        # What a hook must clean up after is over, too.
        live = {lease.id for lease in self.engines[0].store.leases.live() if lease.status != "released"}
        assert live == self.held.keys() | {id for asked in self.waits for id in asked.ids}

    @precondition(lambda self: not self.held and not self.waits)
    @rule(by=ENGINES)
    def what_nobody_holds_can_be_had(self, by: int) -> None:
        """Released means free: with everything switched on and nothing held, all of it can be leased at once."""
        engine = self.engines[by]
        self.sleep(self.latest + 10.0 - self.wall)
        apply(engine, pool(HOSTS, 1, None, ["d1", "d2"], Life()))
        for target in ("blueprint:lab", "blueprint:one", "blueprint:shop", "binding:h1", "binding:d1"):
            engine.switch(target, enabled=True)
        for lease in engine.lease(Demand("host"), owner="t", count=6, wait_seconds=0):
            self.asked += 1
            self.check_grant(lease, Demand("host"), 0, self.asked, None)
            engine.release(lease.id)

    # ---- what must always hold

    def note_grants(self, but: Asked | None = None) -> None:
        """See what was handed to those who wait: all or nothing, and in their order."""
        store = self.engines[0].store
        granted: list[tuple[Lease, Asked]] = []
        for asked in list(self.waits):
            leases = [lease for lease in map(store.leases.get, asked.ids) if lease]
            statuses = {lease.status for lease in leases}
            if statuses == {LeaseStatus.PENDING} or asked is but:
                continue
            if LeaseStatus.DESTROYED in statuses:
                assert self.may_give_up(asked)
                asked.dropped = True
                continue
            assert statuses == {LeaseStatus.ACTIVE}
            assert asked.by not in self.dead or asked.request not in self.waits
            self.waits.remove(asked)
            granted += [(lease, asked) for lease in leases]
        # Whoever was served, too, was not passed. Of several on one thing, the fences tell who came first.
        for lease, asked in sorted(granted, key=lambda grant: grant[0].fence or 0):
            self.check_grant(lease, asked.demand, asked.terms.priority, asked.number, asked)
            self.hold(lease, asked.by, asked.terms, asked)

    def takes_leases(self, resource: Resource) -> bool:
        over = resource.until is not None and resource.until <= self.wall
        return resource.status == "active" and resource.rests_until is None and not over

    def things(self) -> Iterator[tuple[str, Any, int, str]]:
        """What is free, as anybody can see it: blueprint, attributes, seats, and what it stands on."""
        store = self.engines[0].store
        blueprints = {b.name: b for b in store.offers.blueprints() if b.enabled and b.name != "shop"}
        bindings = store.offers.bindings()
        resources = {r.id: r for r in store.resources.live() if r.type == "host"}
        on = {(b.blueprint, b.name): b.enabled for b in bindings}
        for r in resources.values():
            blueprint = blueprints.get(r.blueprint)
            ready = blueprint is not None and self.takes_leases(r) and on.get((r.blueprint, r.name))
            if ready and r.used < min(r.seats or 1, (blueprint and blueprint.seats) or 1):
                yield r.blueprint, r.attributes, (r.seats or 1) - r.used, r.name
        idle = {r.id for r in resources.values() if not r.used and self.takes_leases(r)}
        for b in bindings:
            blueprint = blueprints.get(b.blueprint)
            if blueprint is None or not b.enabled:
                continue
            holder = resources[b.resource] if b.resource is not None else None
            if holder and (
                holder.blueprint == b.blueprint or holder.id not in idle or not on[holder.blueprint, holder.name]
            ):
                continue  # held; but what stands idle in the way of another blueprint is taken away
            full = blueprint.limit is not None and blueprint.live >= blueprint.limit
            attributes = {"arch": arch_of(b.name)} if b.blueprint == "lab" else {}
            if not full or any(r in idle and resources[r].blueprint == b.blueprint for r in resources):
                yield b.blueprint, attributes, blueprint.seats or 1, b.name

    def is_there(self, demand: Demand, count: int, before: list[Asked]) -> bool:
        """Whether this request could be served, without what several of those before it may wait for together."""
        several = [asked.demand for asked in before if len(asked.ids) > 1]
        found: dict[str, int] = {}
        for blueprint, attributes, seats, stands_on in self.things():
            kept = any(self.fits(blueprint, attributes, other) for other in several)
            if self.fits(blueprint, attributes, demand) and not kept:
                found[stands_on] = max(found.get(stands_on, 0), seats)
        limited = any(b.limit is not None for b in self.engines[0].store.offers.blueprints() if b.name == "lab")
        if demand.type != "host" or (count > 1 and limited):  # then what there is is not so easily seen
            return False
        return sum(found.values()) >= count

    @invariant()
    def every_promise_is_kept(self) -> None:
        self.note_grants()
        self.the_store_says_who_holds_what_as_the_model_does()
        self.nobody_waits_for_what_is_free()
        self.no_thing_is_handed_out_twice_and_no_limit_exceeded()
        for engine in self.engines:
            assert [finding for finding in examine(engine.store) if finding.broken] == []

    def the_store_says_who_holds_what_as_the_model_does(self) -> None:
        for engine in self.engines:
            live = {lease.id: lease for lease in engine.store.leases.live() if lease.status != "released"}
            known = self.held.keys() | {id for asked in self.waits for id in asked.ids}
            assert live.keys() <= known
            gone = known - live.keys()
            assert all(self.may_be_gone(self.held[id]) for id in gone if id in self.held)
            assert all(self.may_give_up(asked) for asked in self.waits if gone & set(asked.ids))
            assert all(
                live[id].status == "active" and live[id].fence == self.held[id].fence for id in live if id in self.held
            )

    def nobody_waits_for_what_is_free(self) -> None:
        """Whatever freed it has handed it over: to the first who could use it."""
        for asked in self.waits:
            if asked.by not in self.dead and not self.may_give_up(asked):
                others = [other for other in self.waits if other is not asked]
                assert not self.is_there(asked.demand, len(asked.ids), others)

    def no_thing_is_handed_out_twice_and_no_limit_exceeded(self) -> None:
        store = self.engines[0].store
        resources = store.resources.live()
        assert len({r.name for r in resources}) == len(resources)
        on = [lease.resource.id for lease in store.leases.live() if lease.resource]
        seats = {b.name: b.seats for b in store.offers.blueprints()}
        for resource in resources:
            assert resource.used == on.count(resource.id)
            # Fewer seats in the pool file end no lease; they only let nobody in.
            assert resource.used <= max(2, seats[resource.blueprint] or 0)
        benches = [r for r in resources if r.type == "bench"]
        assert len(benches) <= 2
        licences = [k for k in store.slot_locks.all() if k.key.startswith("licence")]
        assert len(licences) == sum(r.used for r in benches) <= 3


def test_any_order_of_verbs_keeps_every_promise(
    new_store: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "normal")
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "workshop.py").write_text(WORKSHOP)
    served = "://" in new_store()  # each step takes longer there, and it is the same engine
    Verbs.folder, Verbs.new_store = tmp_path, staticmethod(new_store)  # type: ignore[assignment]
    run_state_machine_as_test(
        Verbs,
        settings=settings(
            max_examples=15 if served else 40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )  # fmt: skip
