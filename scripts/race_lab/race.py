"""One race: a fresh store with one host, two terminals that want it, and whether it went as it must.

Both must have chosen the host before either allocates it. Each says so, and the store's log says when the first
allocation was; where that is not so there was no race, and nothing is proved.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from terminals import Child, Pane, Terminal, Tmux

from drydock.testing.postgres import Server

HOST = "build001"
KEY = f"almanac.host.binding({HOST})"
POOL = f"""\
[blueprint.build]
kind = "almanac-hosts"
services = ["build-pool"]

[almanac.device.{HOST}]
address = "10.0.0.1"

[almanac.service.build-pool]
devices = ["{HOST}"]
"""
DAMAGED = 8  #: how doctor ends when a promise is broken
#: how much longer than the delay anything may take
PATIENCE_SECONDS = 60.0

Objects = list[dict[str, Any]]


class Failed(Exception):
    """The race did not come to its end."""


@dataclass(frozen=True)
class Seen:
    """What `drydock ... --json` tells at one moment."""

    resources: Objects
    locks: Objects
    lost: Objects  #: events slot-lock.lost
    allocated_at: float  #: when the first resource was allocated
    broken: Objects  #: the broken promises that doctor finds
    doctor: int  #: how doctor ended


@dataclass
class Race:
    """What is known of a race, while it runs and after."""

    slot_locks: bool
    started: float = 0.0
    terminals: list[Terminal] = field(default_factory=list)
    seen: Seen | None = None  #: when both were granted or waited
    after: str = ""  #: what came after it
    late: list[str] = field(default_factory=list)  #: who had not chosen before the first allocation
    wrong: list[str] | None = None  #: what was not as it must be; None while it runs

    @property
    def verdict(self) -> str:
        if self.wrong is None:
            return "running"
        if self.wrong:
            return "; ".join(self.wrong)
        if self.slot_locks:
            return f"{HOST} was allocated once; the other lost its slot lock and waited its turn"
        return f"{HOST} was allocated TWICE"

    def command(self, delay: float) -> str:
        unsafe = "" if self.slot_locks else " --no-slot-locks"
        return f"DRYDOCK_RACE_LAB=1 drydock lease --type host --race-delay {delay:g}{unsafe}"


class Lab:
    """Runs a race in a temporary folder; used as a context manager, which ends all that it started."""

    def __init__(
        self, race: Race, delay: float, *, server: Server | None = None, tmux: bool = False, watched: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`server`: where the store is made, else it is a file. `watched`: somebody looks on; `check` is called in each
        wait, and may raise to end it."""
        self.race, self.delay, self.watched, self.check = race, delay, watched, check
        self.server = server
        self._tmux_wanted = tmux
        self.tmux: Tmux | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Run the race; `race.wrong` says afterwards what was not as it must be."""
        try:
            self._set_up()
            self._start()
            self._wait(
                "both to be granted or to wait", lambda: all(t.granted or t.waiting for t in self.race.terminals)
            )
            seen = self.race.seen = self._look()
            self.race.late = [t.name for t in self.race.terminals if not t.chose_before(seen.allocated_at)]
            wrong = [f"no race: {name} had not chosen when {HOST} was allocated" for name in self.race.late]
            self.race.wrong = wrong or (self._safe(seen) if self.race.slot_locks else _unsafe(seen))
        except Failed as failed:
            self.race.wrong = [str(failed)]
        if self.tmux and self.watched:
            self.tmux.show("drydock resources; drydock locks; drydock doctor")

    def _set_up(self) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="race-demo-")))
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("DRYDOCK_")}
        self._environment["DRYDOCK_STORE"] = self._new_store(folder)
        self._environment["XDG_STATE_HOME"] = str(folder)
        if self._tmux_wanted:
            self.tmux = self._stack.enter_context(Tmux(folder, self._environment, self.check))
        pool = folder / "pool.toml"
        pool.write_text(POOL)
        self._drydock("apply", str(pool))

    def _new_store(self, folder: Path) -> str:
        if self.server is None:
            return str(folder / "drydock.db")
        url = self.server.new_database()
        self._stack.callback(self.server.drop_database, url)
        return url

    def _start(self) -> None:
        names, command = ("terminal-1", "terminal-2"), self.race.command(self.delay)
        if self.tmux:
            panes = [self.tmux.open(name, "-h") for name in names]
            if self.watched:
                self.tmux.attach()
        self.race.started = time.time()
        for number, name in enumerate(names):
            terminal: Child | Pane
            if self.tmux:
                terminal = Pane(name, command, self.tmux, panes[number])
            else:
                terminal = Child(name, command, self._environment)
            self.race.terminals.append(self._stack.enter_context(terminal))

    def _wait(self, what: str, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.delay + PATIENCE_SECONDS
        while not happened():
            self.check()
            for terminal in self.race.terminals:
                terminal.look()
                if terminal.ended and not terminal.granted:
                    raise Failed(f"{terminal.name} ended without a lease: {terminal.last}")
            if time.monotonic() > deadline:
                raise Failed(f"waited in vain for {what}")
            time.sleep(0.02)

    # ---- what the store says

    def _drydock(self, *arguments: str, fine: tuple[int, ...] = (0,)) -> tuple[int, Objects]:
        done = subprocess.run(
            ["drydock", *arguments, "--json"], env=self._environment, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        if done.returncode not in fine:
            raise Failed(f"drydock {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def _look(self) -> Seen:
        allocations = self._drydock("log", "--event", "resource.activated")[1]
        code, findings = self._drydock("doctor", fine=(0, DAMAGED))
        return Seen(
            self._drydock("resources")[1],
            self._drydock("locks")[1],
            self._drydock("log", "--event", "slot-lock.lost")[1],
            min((datetime.fromisoformat(event["at"]).timestamp() for event in allocations), default=0.0),
            [finding for finding in findings if finding["broken"]],
            code,
        )

    # ---- what must be so

    def _safe(self, seen: Seen) -> list[str]:
        wrong = _not_whole(seen)
        lost = [event["data"] for event in seen.lost]
        if lost != [{"key": KEY, "holder": f"resource:{resource['id']}"} for resource in seen.resources]:
            wrong.append(f"not exactly one slot-lock.lost of {KEY} in the log")
        winners = [terminal for terminal in self.race.terminals if terminal.granted]
        return wrong or self._hand_over(winners[0])

    def _hand_over(self, winner: Terminal) -> list[str]:
        """Release the winner's lease: the loser is next."""
        loser = next(terminal for terminal in self.race.terminals if terminal is not winner)
        if self.watched:
            time.sleep(2)  # for the eye
            self.check()
        self._drydock("release", str(winner.granted))
        self._wait(f"{loser.name} to be granted what was released", lambda: loser.granted is not None)
        self.race.after = (
            f"drydock release {winner.granted}, and {loser.name} is granted {HOST} as lease {loser.granted}"
        )
        return _not_whole(self._look())


def _unsafe(seen: Seen) -> list[str]:
    wrong = []
    if [resource["name"] for resource in seen.resources] != [HOST, HOST]:
        wrong.append(f"{HOST} was not allocated twice")
    if seen.doctor != DAMAGED or "double-allocation" not in {finding["rule"] for finding in seen.broken}:
        wrong.append("doctor found no double allocation")
    return wrong


def _not_whole(seen: Seen) -> list[str]:
    wrong = []
    if [resource["name"] for resource in seen.resources] != [HOST]:
        wrong.append(f"{HOST} was allocated {len(seen.resources)} times")
    if seen.doctor != 0:
        wrong.append("doctor found " + ", ".join(sorted({finding["rule"] for finding in seen.broken})))
    return wrong
