"""What lives for a while: nobody is given what is about to go."""

from collections.abc import Callable

from conftest import LAB, Clock, apply, dies

from drydock.engine import Engine
from drydock.model import Demand, Terms


def test_nothing_is_handed_over_that_is_about_to_go(
    engine: Engine, connect: Callable[..., Engine], clock: Clock
) -> None:
    """Whoever waits gets the next resource, and not a seat on one whose time is up, which would end his lease at once."""
    apply(engine, {"blueprint": {"lab": {**LAB["blueprint"]["lab"], "lifetime": "100s"}}})
    for holder_dies in (False, True):
        holder, other = connect(), connect()
        [lease] = holder.lease(Demand("host"), owner="t", wait_seconds=0)
        with other.store.write():
            waits = other.store.leases.add(Demand("host"), Terms(), "t", other.store.process).id
        clock.forward(100.0)
        if holder_dies:
            dies(holder.store)
        else:
            holder.release(lease.id)
        engine.tend()
        served = engine.verify(waits)
        assert served.resource is not None
        assert lease.resource is not None
        assert served.resource.id != lease.resource.id
        engine.release(waits)
