"""What waiting costs, measured between real processes: hand-over, idling, and the death of a holder."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

from bench_loop import Loop

import drydock
from drydock.store.sqlite import DURABILITY

PATIENCE_SECONDS = 30.0
#: so many wait at once for what never comes
IDLE_WAITERS = 50


class Own:
    """Drydock, as whoever takes turns with somebody uses it."""

    def __init__(self, path: str) -> None:
        self.dock = drydock.connect(path)

    def wait(self) -> Any:
        return self.dock.lease("host")

    def release(self, held: Any) -> None:
        held.release()

    def see_a_queue(self) -> None:
        """Return once somebody waits behind the one who holds."""
        while len(self.dock.leases()) < 2:
            time.sleep(0.001)

    def close(self) -> None:
        self.dock.close()


class ByHand(Loop):
    """The loop that looks again and again, each time that a millisecond is over."""

    def __init__(self, path: str) -> None:
        super().__init__(path, os.environ[DURABILITY], turnstile=False)

    def see_a_queue(self) -> None:
        """There is none to be seen."""


Taker = Callable[[str], Own | ByHand]


def hand_overs(path: str, number: int, taker: Taker = Own) -> list[float]:
    """Seconds from the call of a release until the waiter holds the resource, each time."""
    took = []
    with partner(path, taker) as other, closing(taker(path)) as own:
        for _ in range(number):
            held: Any = own.wait()
            other.send("lease")
            own.see_a_queue()
            time.sleep(random.uniform(0.02, 0.06))
            begun = time.monotonic()
            own.release(held)
            granted, _ = received(other)
            took.append(granted - begun)
            other.send("release")
            received(other)
    return took


def idling(path: str, seconds: float, waiters: int) -> float:
    """The part of one core that so many idle waiters use together."""
    context = multiprocessing.get_context("spawn")
    with drydock.connect(path) as dock:
        lease: Any = dock.lease("host")
        pipes, children = [], []
        for _ in range(waiters):
            mine, theirs = context.Pipe()
            child = context.Process(target=idle, args=(path, seconds, theirs), daemon=True)
            child.start()
            theirs.close()
            pipes.append(mine)
            children.append(child)
        while len(dock.leases()) < waiters + 1:
            time.sleep(0.05)
        for pipe in pipes:
            pipe.send("measure")
        busy = sum(received(pipe, seconds + PATIENCE_SECONDS) for pipe in pipes)
        for child in children:
            child.kill()
        lease.release()
    for child in children:
        child.join()
    return busy / seconds


def idle(path: str, seconds: float, pipe: Pipe) -> None:
    """One who waits for good, in a thread of its own, so that the process can be asked what CPU it takes."""
    import threading

    threading.Thread(target=lambda: drydock.connect(path).lease("host"), daemon=True).start()
    pipe.recv()
    begun = time.process_time()
    time.sleep(seconds)
    pipe.send(time.process_time() - begun)
    pipe.recv()


def deaths(path: str, drydock_command: str, number: int) -> list[float]:
    """Seconds from kill -9 of a `drydock run` until the next in the queue holds its lease, each time."""
    took = []
    environment = {**os.environ, "DRYDOCK_STORE": path}
    with partner(path) as other, closing(Own(path)) as own:
        for _ in range(number):
            runner = subprocess.Popen(
                [drydock_command, "run", "--type", "host", "--", sys.executable, "-c", "print('held', flush=True); input()"],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert runner.stdout is not None
            runner.stdout.readline()
            other.send("lease")
            own.see_a_queue()
            time.sleep(random.uniform(0.05, 0.3))
            begun = time.monotonic()
            runner.send_signal(signal.SIGKILL)
            granted, _ = received(other)
            took.append(granted - begun)
            runner.wait()
            other.send("release")
            received(other)
    return took


@contextmanager
def partner(path: str, taker: Taker = Own) -> Iterator[Pipe]:
    """A process that leases and releases when it is told, and says when it was granted and what CPU that took."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=obey, args=(path, taker, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine
        mine.send("stop")
    finally:
        process.join(PATIENCE_SECONDS)
        process.kill()


def obey(path: str, taker: Taker, pipe: Pipe) -> None:
    """The other side of `partner`."""
    with closing(taker(path)) as own:
        held: Any = None
        while (order := pipe.recv()) != "stop":
            if order == "lease":
                begun = time.process_time()
                held = own.wait()
                pipe.send((time.monotonic(), time.process_time() - begun))
            else:
                own.release(held)
                pipe.send(None)


def received(pipe: Pipe, seconds: float = PATIENCE_SECONDS) -> Any:
    """What comes through the pipe; an error when nothing does in time."""
    if not pipe.poll(seconds):
        raise RuntimeError("a process did not answer in time")
    return pipe.recv()
