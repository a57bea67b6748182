"""Holders that are stopped past their ttl and go on late: is every late write refused?

In each round a process leases a host with a ttl, makes sure that it holds it, and is stopped (SIGSTOP). The next one is
granted when the ttl is over, and writes. Then the first goes on where it was: it writes, and then renews. Prints one
JSON line: how many rounds, how many late writes were refused, how many late renewals were told that the lease is lost,
how many rounds left the content of the second.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import drydock
from drydock import fencing
from drydock.errors import LeaseLost, WrongFence

TTL_SECONDS = 0.1


def late(store: str, target: Path, orders: int, answers: int) -> None:
    """The holder that will be stopped. For each byte that it is sent it holds; for the next it goes on."""
    with drydock.connect(store) as dock:
        while os.read(orders, 1):
            lease = dock.lease("host", ttl=TTL_SECONDS)
            lease.verify()
            os.write(answers, b"h")
            os.read(orders, 1)
            try:
                fencing.write(target, "late", fence=lease.fence)
                refused = False
            except WrongFence:
                refused = True
            try:
                lease.renew()
                lost = False
            except LeaseLost:
                lost = True
            os.write(answers, bytes([refused, lost]))


def play(folder: Path, rounds: int) -> dict[str, float]:
    """Play so many rounds in this folder; what came of them."""
    store, target = str(folder / "drydock.db"), folder / "content"
    with drydock.connect(store) as dock:
        dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}})
    (orders, order), (answer, answers) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(order)
            os.close(answer)
            late(store, target, orders, answers)
        finally:
            os._exit(0)
    os.close(orders)
    os.close(answers)
    refused = lost = kept = 0
    started = time.monotonic()
    try:
        with drydock.connect(store) as dock:
            for number in range(rounds):
                os.write(order, b"x")
                os.read(answer, 1)
                os.kill(child, signal.SIGSTOP)
                os.waitpid(child, os.WUNTRACED)
                with dock.lease("host") as lease:
                    mine = f"round {number}"
                    fencing.write(target, mine, fence=lease.fence)
                    os.kill(child, signal.SIGCONT)
                    os.write(order, b"x")
                    told = os.read(answer, 2)
                    refused += told[0]
                    lost += told[1]
                    kept += target.read_text() == mine
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    seconds = round(time.monotonic() - started, 1)
    return {"rounds": rounds, "refused": refused, "lost": lost, "kept": kept, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=1000, metavar="ROUNDS", help="[default: 1000]")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(play(Path(folder), parser.parse_args().rounds)))
