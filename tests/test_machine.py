"""Any order of verbs, by several engines that come and die: what must always hold, holds after every step.

Real SQLite underneath; Hypothesis chooses the order. The model knows only what a user knows: which leases were granted
to which engine, and that nobody else may have the same seat.
"""

from pathlib import Path
from typing import Any

import pytest
from conftest import Clock, apply
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
from drydock.errors import BlueprintError, NeverPossible, NotFound, NothingFree
from drydock.model import Demand, LeaseStatus
from drydock.store import presence
from drydock.store.sqlite import SqliteStore

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


def pool(hosts: list[str], seats: int, limit: int | None, devices: list[str]) -> dict[str, Any]:
    lab: dict[str, Any] = {
        "kind": "host-pool",
        "seats": seats,
        "hosts": [{"name": h, "attributes": {"arch": "arm64" if h in ("h2", "h4") else "x86_64"}} for h in hosts],
    }
    if limit is not None:
        lab["limit"] = limit
    build = {"kind": "almanac-hosts", "services": ["s1"]}
    return {
        "blueprint": {"lab": lab, "one": build, "two": build, "shop": {"kind": "workshop", "limit": 2, "seats": 2}},
        "almanac": {"device": {d: {} for d in ("d1", "d2")}, "service": {"s1": {"devices": devices}}},
    }


class Verbs(RuleBasedStateMachine):
    folder: Path
    number = 0

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        type(self).number += 1
        self.path = self.folder / f"{self.number}.db"
        self.clock = Clock()
        self.engines = [self.engine(), self.engine()]
        #: leases that were handed out and not given back: id, and the engine that holds it (None: nobody's)
        self.held: dict[int, Engine | None] = {}
        self.fences: dict[str, int] = {}  # a binding's or bench's name, to the last fence of it
        self.bench_fences: dict[int, int] = {}

    def engine(self) -> Engine:
        store = SqliteStore.open(str(self.path), clock=self.clock)
        return Engine(store, environment={"DRYDOCK_BLUEPRINTS": str(self.folder / "kinds")}, sleep=self.clock.forward)

    def teardown(self) -> None:
        for engine in self.engines:
            engine.store.close()

    # ---- what is offered

    @initialize()
    def begin(self) -> None:
        apply(self.engines[0], pool(HOSTS[:2], 1, None, ["d1"]))

    @rule(
        by=ENGINES, hosts=st.lists(st.sampled_from(HOSTS), unique=True, min_size=1), seats=st.integers(1, 2),
        limit=st.sampled_from([None, 1, 2]), devices=st.sampled_from([["d1"], ["d1", "d2"], ["d2"]]), prune=st.booleans(),
    )  # fmt: skip
    def apply(self, by: int, hosts: list[str], seats: int, limit: int | None, devices: list[str], prune: bool) -> None:
        apply(self.engines[by], pool(hosts, seats, limit, devices), prune=prune)
        assert apply(self.engines[by], pool(hosts, seats, limit, devices), prune=prune) == []

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

    # ---- leases

    @rule(
        target=leases, by=ENGINES, count=st.integers(1, 3), keep=st.booleans(),
        demand=st.sampled_from([
            Demand("host"), Demand("host"), Demand("host", (), {"arch": "arm64"}), Demand("host", ("lab",)),
            Demand("host", ("one", "two")), Demand("bench"), Demand("bench", (), {"size": 2}),
            Demand("bench", (), {"broken": True}), Demand("bench", (), {"torn": True}),
        ]),
    )  # fmt: skip
    def lease(self, by: int, demand: Demand, count: int, keep: bool) -> Any:
        before = {lease.id for lease in self.engines[by].store.leases.live()}
        try:
            granted = self.engines[by].lease(demand, owner="t", count=count, wait_seconds=0, keep=keep)
        except (NothingFree, NeverPossible, BlueprintError) as error:
            if isinstance(error, BlueprintError):
                assert demand.attributes.keys() & {"broken", "torn"}
            # All or nothing: whatever it raises, none of it is left.
            assert {lease.id for lease in self.engines[by].store.leases.live()} <= before
            return multiple()
        assert len(granted) == count
        assert all(lease.status is LeaseStatus.ACTIVE for lease in granted)
        blueprints = {b.name: b for b in self.engines[by].store.offers.blueprints()}
        for lease in granted:
            self.check_grant(lease, demand)
            self.held[lease.id] = None if keep else self.engines[by]
            # A limit that was lowered ends nothing that is there; but what is over it lets nothing more in.
            assert lease.resource is not None
            blueprint = blueprints[lease.resource.blueprint]
            assert blueprint.enabled
            assert lease.resource.used <= (blueprint.seats or 1)
            assert lease.resource.built_for != lease.id or blueprint.live <= (blueprint.limit or 99)
        return multiple(*(lease.id for lease in granted))

    def check_grant(self, lease: Any, demand: Demand) -> None:
        resource = lease.resource
        assert resource.blueprint in (demand.blueprints or (resource.blueprint,))
        assert all(resource.attributes.get(name) == value for name, value in demand.attributes.items())
        # A binding's fence grows over all the resources that ever stood on it; a bench is a new thing each time.
        of = resource.name if resource.type == "host" else f"{resource.name} {resource.id}"
        assert lease.fence > self.fences.get(of, 0)
        self.fences[of] = lease.fence

    @rule(by=ENGINES, id=consumes(leases))
    def release(self, by: int, id: int) -> None:
        """By anybody, also by another process; twice is no error, and only the first did it."""
        assert self.engines[by].release(id) == (id in self.held)
        assert not self.engines[by].release(id)
        self.held.pop(id, None)

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

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @rule(by=ENGINES)
    def die(self, by: int) -> None:
        """Its process is gone, and with it all that is bound to it, as soon as anybody looks."""
        dead = self.engines[by]
        presence.withdraw(f"{dead.store.address}.live", dead.store.process)  # as the kernel does
        dead.store.close()
        self.engines[by] = self.engine()
        self.engines[1 - by].tend()
        self.held = {id: holder for id, holder in self.held.items() if holder is not dead}

    @rule(by=ENGINES)
    def tidy(self, by: int) -> None:
        self.engines[by].tend()

    @precondition(lambda self: not self.held)
    @rule(by=ENGINES)
    def what_nobody_holds_can_be_had(self, by: int) -> None:
        """Released means free: with everything switched on and nothing held, all of it can be leased at once."""
        engine = self.engines[by]
        apply(engine, pool(HOSTS, 1, None, ["d1", "d2"]))
        for target in ("blueprint:lab", "blueprint:one", "blueprint:shop", "binding:h1", "binding:d1"):
            engine.switch(target, enabled=True)
        for lease in engine.lease(Demand("host"), owner="t", count=6, wait_seconds=0):
            self.check_grant(lease, Demand("host"))
            engine.release(lease.id)

    # ---- what must always hold

    @invariant()
    def the_store_says_who_holds_what_as_the_model_does(self) -> None:
        for engine in self.engines:
            live = engine.store.leases.live()
            assert {lease.id for lease in live} == self.held.keys()
            assert all(lease.status is LeaseStatus.ACTIVE for lease in live)

    @invariant()
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

    @invariant()
    def nothing_stays_in_between(self) -> None:
        """Hooks here never say "later", so after every verb all is either in use, free, or gone."""
        assert [r.status for r in self.engines[0].store.resources.live() if r.status != "active"] == []

    @invariant()
    def the_doctor_finds_nothing(self) -> None:
        for engine in self.engines:
            assert [finding for finding in examine(engine.store) if finding.broken] == []


def test_any_order_of_verbs_keeps_every_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "normal")
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "workshop.py").write_text(WORKSHOP)
    Verbs.folder = tmp_path
    run_state_machine_as_test(
        Verbs,
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )  # fmt: skip
