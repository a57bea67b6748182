"""A process that is stopped and goes on later is told what it lost meanwhile."""

import os
import signal

from conftest import LAB

import drydock
from drydock.testing.children import Child

WAIT = """
import drydock
from drydock.errors import LeaseLost

dock = drydock.connect(sys.argv[1])
say("ready")
try:
    dock.lease("host", ttl=0.1)
except LeaseLost as lost:
    say(lost.id)
"""


def test_a_waiter_that_was_granted_and_lost_it_before_it_woke_is_told_so(store_address: str) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply(LAB)
        mine = dock.lease("host", wait=0)
        with Child(WAIT, store_address) as waiter:
            waiter.expect("ready")
            while len(dock.leases()) < 2:
                assert waiter.process.poll() is None
            asked = dock.leases()[-1].id
            with dock._engine.store.write():  # whoever has asked has left the turnstile when we have come through it
                pass
            os.kill(waiter.pid, signal.SIGSTOP)
            mine.release()
            while dock.leases():  # it is granted, and soon its time is over
                dock._engine.tend()
            os.kill(waiter.pid, signal.SIGCONT)
            waiter.expect(str(asked))
