"""Requests that stand still in the queue, so that whatever happens to them was done by somebody else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from drydock.engine import Engine
from drydock.model import Lease, LeaseStatus
from drydock.store.base import Store

from .stage import Gate, Stage, pausing, several

GRANTED = (LeaseStatus.ACQUIRED, LeaseStatus.ACTIVE)


class Waiter:
    """A request that has looked, found nothing, and stands between its look and its sleep until it may `go`."""

    def __init__(self, stage: Stage, type: str = "host", count: int = 1, **options: Any) -> None:
        self.stage = stage
        self.asleep = Gate()
        self.engine: Engine | None = None

        def prepare(engine: Engine) -> None:
            self.engine = engine
            pausing(engine.store, "wait_for_news", self.asleep, before=True)

        self.actor = stage.actor(lambda engine: several(engine, type, count, **options), prepare)
        self.asleep.reached()
        self.ids = [lease.id for lease in stage.store.leases.latest(count)]
        self.id = self.ids[0]

    @property
    def status(self) -> LeaseStatus:
        return self.stage.lease_status(self.id)

    @property
    def granted(self) -> bool:
        return self.status in GRANTED

    @property
    def process(self) -> str | None:
        assert self.engine is not None
        return self.engine.store.process

    def go(self) -> None:
        self.asleep.open()

    def look(self) -> None:
        """Let it go, and return when it has looked and found nothing."""
        self.go()
        self.asleep.reached()

    def held(self) -> list[Lease]:
        """Let it go, and return what it comes back with."""
        self.go()
        return self.actor.result()

    def give_up(self) -> None:
        """Somebody withdraws it."""
        for id in self.ids:
            self.stage.engine.release(id)
        self.go()
        self.actor.error()


def granted(stage: Stage) -> list[int]:
    """The leases that are held."""
    return [lease.id for lease in stage.store.leases.live() if lease.status in GRANTED]


def served(stage: Stage, held: int, waiters: list[Waiter]) -> list[int]:
    """Release the one lease that is held, then whichever is held next, until all are served; in which order they were."""
    order: list[int] = []
    while len(order) < len(waiters):
        stage.engine.release(held)
        [held] = granted(stage)
        [next(w for w in waiters if w.id == held).held()]
        order.append(held)
    return order


@contextmanager
def woken(stage: Stage) -> Iterator[list[str]]:
    """The processes that the test's own store wakes meanwhile."""
    with noted_wakes(stage.store) as names:
        yield names


@contextmanager
def noted_wakes(store: Store) -> Iterator[list[str]]:
    """The processes that this store wakes meanwhile. Some wake with the commit, some after it."""
    names: list[str] = []
    commit = store._commit

    def noted() -> None:
        names.extend(store._awake)
        commit()

    store._commit = noted  # type: ignore[method-assign]
    yield names
    store._commit = commit  # type: ignore[method-assign]


def hands_over(
    stage: Stage, waiter: Waiter, event: str, act: Callable[[], object], *, ended: str | None = None
) -> None:
    """Assert that `act` grants what `waiter` waits for, and wakes him alone, in the transaction that records `event`.

    `ended`: the process of a lease or request that ends with it is told, too.
    """
    outside, commit = stage.open(), stage.store._commit
    [*_, last] = stage.store.events.latest(1)
    seen: list[LeaseStatus] = []

    def committed() -> None:
        commit()
        found = outside.leases.get(waiter.id)
        assert found is not None
        if any(one.event == event for one in outside.events.after(last.id, 1000)):
            seen.append(found.status)

    stage.store._commit = committed  # type: ignore[method-assign]
    try:
        assert not waiter.granted
        with woken(stage) as names:
            act()
    finally:
        stage.store._commit = commit  # type: ignore[method-assign]
        outside.close()
    assert seen
    assert seen[0] in GRANTED
    assert set(names) == {waiter.process} | ({ended} if ended else set())
