"""The operations, each with what is there before it, and what a store looks like to somebody who does not see numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from behaviours.stage import KINDS, lease, several
from conftest import apply

from drydock.engine import Engine
from drydock.errors import NothingFree
from drydock.model import Demand, Terms
from drydock.testing.children import Child

HOSTS: dict[str, Any] = {"kind": "host-pool", "hosts": ["h1", "h2"]}
POOL: dict[str, Any] = {"blueprint": {"lab": HOSTS}}
#: with hooks for all, one at a time, and what it makes goes again for another flavor
BUILT: dict[str, Any] = {
    "blueprint": {"hoax": {"kind": "hoax", "limit": 1, "flavors": ["cherry", "banana"], "lease_locks": ["licence"]}}
}
OTHER_POOL: dict[str, Any] = {
    "almanac": {
        "device": {"d1": {"address": "10.0.0.1", "port": 22, "attributes": {"arch": "arm64"}}},
        "service": {"s": {"devices": ["d1"]}},
    },
    "blueprint": {
        "lab": {**HOSTS, "hosts": ["h2", {"name": "h3", "attributes": {"arch": "arm64"}}], "seats": 2, "limit": 3},
        "build": {"kind": "almanac-hosts", "services": ["s"]},
    },
}


class Operation(NamedTuple):
    """`act` is given what `given` returned."""

    given: Callable[[Engine], Any]
    act: Callable[[Engine, Any], object]
    gives_up: type[Exception] | None = None  #: what it raises when nothing is wrong
    #: after a fault it gives back what it has taken; the others leave all as it was after one of their commits
    takes: bool = False
    mends: bool = False  #: what it cannot do it leaves for the next, without an error


def _pool(engine: Engine) -> None:
    apply(engine, POOL)


def _held(engine: Engine) -> int:
    _pool(engine)
    lease(engine, "host", wait=0.0)
    return lease(engine, "host", wait=0.0).id


def _built(engine: Engine) -> int:
    apply(engine, BUILT)
    return lease(engine, flavor="cherry", wait=0.0).id


def _idle(engine: Engine) -> int:
    engine.release(_built(engine))
    return engine.store.resources.live()[0].id


def _idle_hosts(engine: Engine) -> None:
    engine.release(_held(engine))


def _left_by_the_dead(engine: Engine) -> None:
    apply(engine, {"blueprint": {**POOL["blueprint"], **BUILT["blueprint"]}})
    program = (
        f"os.environ['DRYDOCK_BLUEPRINTS'] = {str(KINDS)!r}\nimport drydock\ndock = drydock.connect(sys.argv[1])\n"
        "leases = [dock.lease(type, wait=0) for type in ('host', 'hoax', 'host')]\nsay('held')\nhear()"
    )
    with Child(program, engine.store.address) as child:
        child.expect("held")


def _timed(engine: Engine) -> int:
    _pool(engine)
    [held] = engine.lease(Demand("host"), owner="tester", wait_seconds=0.0, keep=False, ttl=60.0)
    return held.id


def _wanted(engine: Engine) -> int:
    held = _held(engine)
    with engine.store.write():
        engine.store.leases.add(Demand("host"), Terms(), "waiter", engine.store.process)
    return held


def _overdue(engine: Engine) -> None:
    apply(engine, {"blueprint": {**POOL["blueprint"], **BUILT["blueprint"]}})
    for type in ("host", "hoax"):
        engine.lease(Demand(type), owner="tester", wait_seconds=0.0, keep=True, ttl=0.1)
    uptime = engine.store.uptime() + 1.0
    engine.store.uptime = lambda: uptime


OPERATIONS = {
    "apply, first": Operation(lambda _: None, lambda engine, _: apply(engine, POOL)),
    "apply, other": Operation(_held, lambda engine, _: apply(engine, OTHER_POOL, prune=True)),
    "apply, the same": Operation(_held, lambda engine, _: apply(engine, POOL)),
    "lease": Operation(_pool, lambda engine, _: lease(engine, "host", wait=0.0), takes=True),
    "lease, bound": Operation(_pool, lambda engine, _: lease(engine, "host", wait=0.0, keep=False), takes=True),
    "lease of two": Operation(_pool, lambda engine, _: several(engine, "host", 2, wait=0.0), takes=True),
    "lease of too many": Operation(
        _idle_hosts, lambda engine, _: several(engine, "host", 2, wait=0.0), gives_up=NothingFree, takes=True
    ),
    "lease in vain": Operation(
        _held, lambda engine, _: lease(engine, "host", wait=0.0), gives_up=NothingFree, takes=True
    ),
    "build": Operation(
        lambda engine: apply(engine, BUILT), lambda engine, _: lease(engine, flavor="cherry", wait=0.0), takes=True
    ),
    "reclaim and build": Operation(_idle, lambda engine, _: lease(engine, flavor="banana", wait=0.0), takes=True),
    "renew": Operation(_timed, lambda engine, held: engine.renew(held, ttl=90.0)),
    "verify": Operation(_timed, lambda engine, held: engine.verify(held)),
    "keep": Operation(_timed, lambda engine, held: engine.keep(held, until=engine.store.clock() + 60.0)),
    "end what is overdue": Operation(_overdue, lambda engine, _: engine.tend(), mends=True),
    "hand over": Operation(_wanted, lambda engine, held: engine.release(held)),
    "release": Operation(_held, lambda engine, held: engine.release(held, "enough")),
    "release with hooks": Operation(_built, lambda engine, held: engine.release(held)),
    "release-resource": Operation(_held, lambda engine, _: engine.release_resource(1)),
    "release-resource with hooks": Operation(_built, lambda engine, _: engine.release_resource(1)),
    "reclaim": Operation(_idle_hosts, lambda engine, _: engine.reclaim(), mends=True),
    "reclaim with hooks": Operation(_idle, lambda engine, _: engine.reclaim(), mends=True),
    "disable": Operation(_held, lambda engine, _: engine.switch("blueprint:lab", enabled=False)),
    "disable, binding": Operation(_idle_hosts, lambda engine, _: engine.switch("binding:h2", enabled=False)),
    "tend after a death": Operation(_left_by_the_dead, lambda engine, _: engine.tend(), mends=True),
}
