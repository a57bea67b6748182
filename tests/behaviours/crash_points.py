"""Kill a process at every commit of one verb, just before and just after, and see what the next command makes of it.

Run as a program, `python -m behaviours.crash_points STORE VERB`, since it forks; prints one JSON line for each crash:
at which commit, on which side of it, and every promise that was broken after the next command had passed by.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.model import LeaseStatus
from drydock.store import open_store
from drydock.store.base import Store

from .promises import broken_promises
from .stage import KINDS, lease, on

POOL = {
    "blueprint": {
        "hoax": {
            "kind": "hoax",
            "limit": 1,
            "flavors": ["cherry", "banana"],
            "lease_locks": ["licence"],
            "lifetime": "1d",
        },
    }
}
VERBS: dict[str, Callable[[Engine], object]] = {
    "lease": lambda engine: lease(engine, flavor="cherry", wait=0.0),
    "lease and reclaim": lambda engine: lease(engine, flavor="banana", wait=0.0),
    "release": lambda engine: engine.release(_the_lease(engine)),
    "release-resource": lambda engine: engine.release_resource(engine.store.resources.live()[0].id),
    "reclaim": lambda engine: engine.reclaim(),
    "expiry": lambda engine: _tend_later(engine, 3600),
    "death": lambda engine: engine.tend(),
    "lifetime": lambda engine: _tend_later(engine, 86_400),
}
#: what is there before the verb is called
GIVEN: dict[str, Callable[[Engine], object]] = {
    "lease": lambda _: None,
    "lease and reclaim": lambda engine: engine.release(lease(engine, flavor="cherry").id),
    "release": lambda engine: lease(engine, flavor="cherry"),
    "release-resource": lambda engine: lease(engine, flavor="cherry"),
    "reclaim": lambda engine: engine.release(lease(engine, flavor="cherry").id),
    "expiry": lambda engine: lease(engine, flavor="cherry", until=time.time() + 3600),
    "death": lambda engine: _die(engine, lease(engine, flavor="cherry").id),
    "lifetime": lambda engine: lease(engine, flavor="cherry"),
}


def _the_lease(engine: Engine) -> int:
    [held] = engine.store.leases.live()
    return held.id


def _tend_later(engine: Engine, seconds: float) -> None:
    engine.store.clock = lambda: time.time() + seconds
    engine.tend()


def _die(engine: Engine, lease: int) -> None:
    with engine.store.write():
        engine.store.leases.bind(lease, "0123456789ab")  # nobody's


def _engine(store: Store) -> Engine:
    return Engine(store, environment={"DRYDOCK_BLUEPRINTS": str(KINDS)})


def _die_at(store: Store, number: int, *, after: bool) -> None:
    commit, commits = store._commit, count(1)

    def dying() -> None:
        here = next(commits) == number
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        commit()
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    store._commit = dying  # type: ignore[method-assign]


def crash(address: str, verb: str, number: int, *, after: bool) -> bool:
    """Call `verb` in a process that dies at that commit; False if it came to its end first."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    code = 1
    try:
        with contextlib.closing(open_store(address)) as store:
            _die_at(store, number, after=after)
            VERBS[verb](_engine(store))
        code = 0
    finally:
        os._exit(code)


def next_command(address: str) -> dict[str, object]:
    """What the next command finds and leaves."""
    with contextlib.closing(open_store(address)) as store:
        engine = _engine(store)
        engine.tend()
        broken = broken_promises(store, settled=True)
        held = [held.status for held in store.leases.live()]
        if held == [LeaseStatus.ACTIVE]:  # it was granted before the crash, and outlives it
            engine.release(_the_lease(engine))
        again = lease(engine, flavor="cherry", wait=0.0)
        broken += broken_promises(store, settled=True)
        engine.release_resource(on(again).id)
        broken += [f"{row.key} is left to {row.holder}" for row in store.slot_locks.all()]
        return {"broken": broken, "held": held}


def main(address: str, verb: str) -> None:
    with contextlib.closing(open_store(address)) as store:
        _engine(store).apply(parse_pool(POOL, "pool"))
    for after in (False, True):
        for number in count(1):
            with contextlib.closing(open_store(address)) as store:
                GIVEN[verb](_engine(store))
            crashed = crash(address, verb, number, after=after)
            found = next_command(address)
            sys.stdout.write(json.dumps({"commit": number, "after": after, "crashed": crashed, **found}) + "\n")
            if not crashed:
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
