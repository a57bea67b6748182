"""What waiting costs, measured between real processes: hand-over, idling, and the death of a holder."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

import drydock

PATIENCE_SECONDS = 30.0
#: so many wait at once for what never comes
IDLE_WAITERS = 50


def hand_overs(path: str, number: int) -> list[float]:
    """Seconds from the call of a release until the waiter holds its lease, each time."""
    took = []
    with partner(path) as other, drydock.connect(path) as dock:
        for _ in range(number):
            lease: Any = dock.lease("host")
            other.send("lease")
            while len(dock.leases()) < 2:
                time.sleep(0.001)
            time.sleep(random.uniform(0.02, 0.06))
            begun = time.monotonic()
            lease.release()
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
    with partner(path) as other, drydock.connect(path) as dock:
        for _ in range(number):
            runner = subprocess.Popen(
                [drydock_command, "run", "--type", "host", "--", sys.executable, "-c", "print('held', flush=True); input()"],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert runner.stdout is not None
            runner.stdout.readline()
            other.send("lease")
            while len(dock.leases()) < 2:
                time.sleep(0.001)
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
def partner(path: str) -> Iterator[Pipe]:
    """A process that leases and releases when it is told, and says when it was granted and what CPU that took."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=obey, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine
        mine.send("stop")
    finally:
        process.join(PATIENCE_SECONDS)
        process.kill()


def obey(path: str, pipe: Pipe) -> None:
    """The other side of `partner`."""
    with drydock.connect(path) as dock:
        lease: Any = None
        while (order := pipe.recv()) != "stop":
            if order == "lease":
                begun = time.process_time()
                lease = dock.lease("host")
                pipe.send((time.monotonic(), time.process_time() - begun))
            else:
                lease.release()
                pipe.send(None)


def received(pipe: Pipe, seconds: float = PATIENCE_SECONDS) -> Any:
    """What comes through the pipe; an error when nothing does in time."""
    if not pipe.poll(seconds):
        raise RuntimeError("a process did not answer in time")
    return pipe.recv()
