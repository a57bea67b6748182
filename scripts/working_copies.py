"""Many leases of a few working copies, where each holder spoils what he had for the next, here and over a real ssh.

Each lease is held by a `drydock run`, which looks at its copy and then plants in it whatever git may run or believe:
hooks, fsmonitor, filters, aliases, configuration, grafts, replaced commits, alternates, submodules, links, locks,
read-only folders (`drydock/testing/poison.py`). Each must find what the first one found, and nothing of it may ever run.
There must be as many copies as the limit says, and at the end nothing at all.

Exit code 0: all was so; 1: something was not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from drydock.testing.poison import git
from drydock.testing.sshd import Sshd

DRYDOCK = [sys.executable, "-c", "from drydock.cli import main; main()"]
SECONDS = 600


class Lab:
    """One origin, one host, one store."""

    def __init__(self, folder: Path, host: str, limit: int, commits: int) -> None:
        self.folder, self.outside, self.root = folder, folder / "outside", folder / "root"
        for one in (self.outside, self.root):
            one.mkdir()
        (self.root / ".drydock-root").touch()
        (self.outside / "victim").mkdir()
        self.origin, other = folder / "origin", folder / "other"
        make_origin(self.origin, commits)
        make_origin(other, 1)
        pool = folder / "pool.toml"
        pool.write_text(
            f'[blueprint.lab]\nkind = "host-pool"\nseats = "unlimited"\n{host}\n\n'
            f'[blueprint.sources]\nkind = "working-copy"\nrepositories = {{ app = "{self.origin}" }}\n'
            f'root = "{self.root}"\nhost = {{ blueprints = ["lab"] }}\nlimit = {limit}\n'
        )
        self.environment = {
            **os.environ, "DRYDOCK_STORE": str(folder / "drydock.db"), "XDG_STATE_HOME": str(folder / "state"),
        }  # fmt: skip
        self.drydock("apply", str(pool))
        holder = [sys.executable, "-m", "drydock.testing.poison", "app", str(self.outside), str(other)]
        on_the_host = f'exec {" ".join(map(quote, DRYDOCK))} command --lease "$DRYDOCK_LEASE" -- "$@"'
        self.holder = ["sh", "-c", on_the_host, "sh", *holder]

    def drydock(self, *arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [*DRYDOCK, *arguments], env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )
        if done.returncode != 0:
            raise RuntimeError(f"drydock {arguments[0]}: exit code {done.returncode}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def hold(self, number: int) -> dict[str, Any]:
        wanted = json.dumps({"repository.app": True, "ref": "main"})
        [seen] = self.drydock("run", "--type", "working-copy", "--attributes", wanted, "--owner", f"holder-{number}",
                              "--wait", f"{SECONDS}s", "--", *self.holder)  # fmt: skip
        return seen


def quote(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def make_origin(path: Path, commits: int) -> None:
    git(path.parent, "init", "-q", "-b", "main", path.name)
    (path / "src").mkdir()
    (path / "src" / "run").write_text("#!/bin/sh\n")
    for number in range(commits):
        (path / "readme").write_text(f"{number}\n")
        (path / "src" / f"file-{number}").write_text(f"{number}\n" * 200)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", f"commit {number}")


def moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def took(events: list[dict[str, Any]], key: str, first: str, last: str) -> list[float]:
    """Seconds from one event to the other, of each lease or resource."""
    begun: dict[int, float] = {}
    spans = []
    for event in events:
        if event["event"] == first:
            begun[event[key]] = moment(event)
        elif event["event"] == last and event[key] in begun:
            spans.append(moment(event) - begun.pop(event[key]))
    return spans


def trial(where: str, folder: Path, host: str, options: argparse.Namespace) -> bool:
    folder.mkdir()
    lab = Lab(folder, host, options.limit, options.commits)
    began = time.monotonic()
    with ThreadPoolExecutor(options.at_once) as pool:
        seen = list(pool.map(lab.hold, range(options.leases)))
    seconds = time.monotonic() - began
    copies = [one for one in lab.drydock("resources", "--all", "--json") if one["type"] == "working-copy"]
    events = sorted(lab.drydock("log", "--lines", "100000", "--json"), key=lambda event: event["id"])
    prepared = took(events, "lease", "lease.acquired", "lease.activated")
    for copy in copies:
        lab.drydock("release-resource", str(copy["id"]))
    left = sorted(path.name for path in lab.root.iterdir())
    live = [one for one in lab.drydock("leases", "--json") if one["type"] == "host"]
    facts = {
        "every holder saw the same": len({one["seen"] for one in seen}) == 1,
        "it was the origin's": {one["head"] for one in seen} == {git(lab.origin, "rev-parse", "main")},
        "clean and whole": {(one["status"], one["fsck"]) for one in seen} == {("", "")},
        "nothing that was planted ran": not (lab.outside / "ran").exists(),
        f"{options.limit} copies were made": len(copies) == options.limit,
        "nothing is left on the host": left == [".drydock-root"],
        "no host is leased": live == [],
    }
    print(f"{where}: {len(seen)} leases, {options.at_once} at once, in {seconds:.1f} s; {len(copies)} copies; "
          f"a copy was made ready in {statistics.median(prepared):.2f} s (median)")  # fmt: skip
    for fact, holds in facts.items():
        print(f"  {'yes' if holds else 'NO '}  {fact}")
    return all(facts.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=32, metavar="N", help="[default: 32]")
    parser.add_argument("--at-once", type=int, default=8, metavar="N", help="[default: 8]")
    parser.add_argument("--limit", type=int, default=4, metavar="N", help="most copies [default: 4]")
    parser.add_argument("--commits", type=int, default=100, metavar="N", help="in the origin [default: 100]")
    parser.add_argument("--sshd", default="", metavar="PROGRAM", help="OpenSSH's own server, such as /usr/sbin/sshd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drydock-copies-") as name, Sshd(program=options.sshd) as sshd:
        ssh = ", ".join(f"{key} = {json.dumps(value)}" for key, value in sshd.settings.items())
        over_ssh = f'hosts = [{{ name = "h1", address = "{sshd.address}", port = {sshd.port} }}]\nssh = {{ {ssh} }}'
        here = trial("here", Path(name, "here"), 'hosts = ["h1"]\nlocal = true', options)
        there = trial("over ssh", Path(name, "ssh"), over_ssh, options)
    return 0 if here and there else 1


if __name__ == "__main__":
    sys.exit(main())
