"""Many processes lease ports and really listen on them, while others use ports without asking: does any bind fail?

There are 200 ports and 16 processes. Two rounds, each on a store of its own:

asked   Processes lease through the Python API, LEASES in all. Each binds its port, listens, and is sent its own lease's
        number over a connection. Twenty servers that never asked have sat down, after the pool was applied, among the
        forty ports that are handed out first.
run     `drydock run` is started RUNS times, 16 at once, and its command listens: every other takes the socket that it
        inherits, the others bind the port themselves. Meanwhile somebody outside has ten of those forty ports at any
        moment, another one each millisecond, as the system does when it gives a port to a program that asks for any.

Prints one JSON line for each: how many leases, how many binds failed, how many connections reached somebody else, how
often a port was found to be in use and passed over, and how often somebody outside came to have one.
"""

import argparse
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import drydock

ADDRESS, PORTS, PROCESSES, SQUATTERS = "127.0.0.1", 200, 16, 20
#: those that are handed out first, where who has not asked is in the way
CROWDED = slice(0, 2 * SQUATTERS)

COMMAND = """
import os, socket, sys
port = int(os.environ["DRYDOCK_ATTR_PORT"])
try:
    if os.environ.get("LISTEN_FDS") and int(os.environ["DRYDOCK_LEASE"]) % 2:
        server = socket.socket(fileno=3)
        server.listen()
    else:
        server = socket.create_server((os.environ["DRYDOCK_ATTR_ADDRESS"], port))
except OSError as error:
    sys.exit(f"bind failed: {error}")
with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
    if server.getsockname()[1] != port or client.getsockname() != accepted.getpeername():
        sys.exit("somebody else")
"""


def free_range() -> range:
    """So many ports in a row that nobody uses, outside of those that the system gives away."""
    while True:
        first = random.randrange(10_000, 30_000)
        with suppress(OSError), ExitStack() as stack:
            for port in range(first, first + PORTS):
                stack.enter_context(socket.socket()).bind((ADDRESS, port))
            return range(first, first + PORTS)


def offered(folder: Path, name: str, ports: range) -> str:
    """A store that offers these ports."""
    store = str(folder / f"{name}.db")
    with drydock.connect(store) as dock:
        dock.apply({"blueprint": {"ports": {"kind": "port-range", "ports": f"{ports[0]}-{ports[-1]}"}}})
    return store


def passed_over(store: str) -> int:
    """How often a port was in use by somebody who had not asked."""
    environment = {**os.environ, "DRYDOCK_STORE": store}
    log = subprocess.run(
        [sys.executable, "-m", "drydock", "log", "--json", "--event", "resource.gone", "-n", "100000"],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return len(log.splitlines())


def listen(store: str, leases: int) -> tuple[int, int]:
    """Lease so many ports, one after the other, and listen on each; how many binds failed, and connections went astray."""
    failed = astray = 0
    with drydock.connect(store) as dock:
        for _ in range(leases):
            with dock.lease("port") as lease:
                address = (ADDRESS, lease.resource.attributes["port"])
                try:
                    server = socket.create_server(address)
                except OSError:
                    failed += 1
                    continue
                with server, socket.create_connection(address) as client, server.accept()[0] as accepted:
                    client.sendall(str(lease.id).encode())
                    astray += accepted.recv(20) != str(lease.id).encode()
    return failed, astray


def asked(folder: Path, leases: int) -> dict[str, float]:
    ports = free_range()
    store = offered(folder, "asked", ports)
    with ExitStack() as stack, multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for port in random.sample(ports[CROWDED], SQUATTERS):
            stack.enter_context(socket.create_server((ADDRESS, port)))
        started = time.monotonic()
        came = pool.starmap(listen, [(store, leases // PROCESSES)] * PROCESSES)
    failed, astray = map(sum, zip(*came, strict=True))
    return {
        "leases": leases // PROCESSES * PROCESSES,
        "failed": failed,
        "astray": astray,
        "passed over": passed_over(store),
        "seconds": round(time.monotonic() - started, 1),
    }


def squat(ports: range, ended: "multiprocessing.synchronize.Event", had: "multiprocessing.Queue[int]") -> None:  # type: ignore[name-defined]
    """Have some ports for a moment, and then others, as long as nobody else has them."""
    number, mine = 0, deque[socket.socket]()
    while not ended.is_set():
        one = socket.socket()
        try:
            one.bind((ADDRESS, random.choice(ports[CROWDED])))
            one.listen()
        except OSError:
            one.close()
        else:
            number += 1
            mine.append(one)
        if len(mine) > SQUATTERS // 2:
            mine.popleft().close()
        time.sleep(0.001)
    had.put(number)


def run(folder: Path, runs: int) -> dict[str, float]:
    ports = free_range()
    store = offered(folder, "run", ports)
    words = [sys.executable, "-m", "drydock", "run", "-t", "port", "--", sys.executable, "-c", COMMAND]
    context = multiprocessing.get_context("spawn")
    ended, had = context.Event(), context.Queue()
    outside = context.Process(target=squat, args=(ports, ended, had))
    outside.start()
    started = time.monotonic()

    def one(_: int) -> str:
        done = subprocess.run(
            words, env={**os.environ, "DRYDOCK_STORE": store}, capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode else ""

    try:
        with ThreadPoolExecutor(PROCESSES) as pool:
            errors = list(filter(None, pool.map(one, range(runs))))
    finally:
        ended.set()
    came = {
        "leases": runs,
        "failed": len(errors),
        "astray": sum("somebody else" in error for error in errors),
        "passed over": passed_over(store),
        "had outside": had.get(),
        "seconds": round(time.monotonic() - started, 1),
    }
    outside.join()
    for error in errors[:5]:
        print(error, file=sys.stderr)
    return came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leases", type=int, nargs="?", default=10_000, metavar="LEASES", help="[default: 10000]")
    parser.add_argument("runs", type=int, nargs="?", default=400, metavar="RUNS", help="[default: 400]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"asked": asked(Path(folder), options.leases)}), flush=True)
        print(json.dumps({"run": run(Path(folder), options.runs)}))


if __name__ == "__main__":
    main()
