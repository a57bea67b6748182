"""The tormentor: starts workers, and kills, stops, confuses and starves them until they were granted enough.

It is what workers are forked from, since a Python that has Drydock imported is started in a millisecond that way; so it
has one thread, and no store open while they live.
"""

import contextlib
import gc
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from board import BAIT, FULL, STOP, Board, State
from disk import SmallDisk
from worker import SHORT_TTL_SECONDS, live

import drydock
from drydock.testing.history import Recorder
from drydock.testing.postgres import Server

KILL_EVERY_SECONDS = 0.05
STOP_EVERY_SECONDS = 1.5
LOOK_EVERY_SECONDS = 0.04
STOPPED_SECONDS = 1.75 * SHORT_TTL_SECONDS
STEP_EVERY_SECONDS = 0.7
STEPS_SECONDS = (-86_400, -3600, 0, 0, 3600, 86_400)
FILL_EVERY_SECONDS = 2.0
#: the disk stays full until so many operations have failed for it, and no longer than that
FULL_FAILURES = 40
MOST_FULL_SECONDS = 20.0
REPORT_EVERY_SECONDS = 5.0
#: a server that was stopped is not started again for up to so long
MOST_AWAY_SECONDS = 0.5
#: nobody was granted anything for so long: something hangs
PATIENCE_SECONDS = 60.0


class Phase(NamedTuple):
    """What is done on one store."""

    name: str
    folder: Path  #: of the history and all that is not the store
    store: str  #: its path or URL
    grants: int
    seconds: float
    processes: int
    hosts: int
    seed: int
    fill: SmallDisk | bool = False  #: the disk to fill; True: let SQLite say that it is full; False: leave it
    confuse: bool = False  #: let each worker have a wall clock of its own
    machines: tuple[Path, ...] = ()  #: a folder for each that the workers seem to be on; none: all are where we are
    server: Server | None = None  #: to be stopped with no warning
    outage_every: float = 0.0  #: seconds; 0: never


class Torments(NamedTuple):
    kills: int = 0
    stops: int = 0
    steps: int = 0
    fulls: int = 0
    outages: int = 0
    seconds: float = 0.0


class Stuck(Exception):
    """Something that must never take so long did."""


class Tormentor:
    """A context manager; at its end every worker is dead."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.board = Board(phase.processes)
        self.random = random.Random(f"{phase.seed} {phase.name}")
        for name in ("history", "witness", "crashes"):
            (phase.folder / name).mkdir(parents=True)
        self.recorder = Recorder(str(phase.folder / "history" / "tormentor.jsonl"), "tormentor")
        self.lives = [0] * phase.processes
        self.pids: dict[int, int] = {}  # by slot
        self.stopped: dict[int, float] = {}  # until when, by slot
        self.bait: int | None = None
        self.full_since: float | None = None
        self.refusals_before = 0
        self.outage: int | None = None  # the child that stops the server and starts it again
        self.kills = self.stops = self.steps = self.fulls = self.outages = 0
        self.began = time.monotonic()

    def __enter__(self) -> "Tormentor":
        return self

    def __exit__(self, *_: object) -> None:
        self._empty()
        for slot in list(self.pids):
            self._end(slot)
        if self.outage is not None:
            os.waitpid(self.outage, 0)
        self.recorder.close()

    @property
    def torments(self) -> Torments:
        return Torments(self.kills, self.stops, self.steps, self.fulls, self.outages, time.monotonic() - self.began)

    @property
    def crashes(self) -> list[str]:
        """What workers died of that were not killed."""
        return [f"{file.name}: {file.read_text()}" for file in sorted((self.phase.folder / "crashes").iterdir())]

    def run(self) -> None:
        """Until there were enough grants, or time is up; then every worker holds one lease, or none. Raises `Stuck`."""
        gc.freeze()  # what is here already is not looked through, and so not copied, in each child
        for slot in self.board.slots:
            self._start(slot)
        jobs: list[tuple[float, Callable[[], None]]] = [
            (KILL_EVERY_SECONDS, self._kill),
            (STOP_EVERY_SECONDS, self._stop),
            (LOOK_EVERY_SECONDS, self._stop_the_bait),
            (REPORT_EVERY_SECONDS, self._report),
        ]
        if self.phase.confuse:
            jobs.append((STEP_EVERY_SECONDS, self._step))
        if self.phase.fill:
            jobs.append((FILL_EVERY_SECONDS, self._fill))
        if self.phase.outage_every:
            jobs.append((self.phase.outage_every, self._stop_the_server))
        due = [self.began + min(every, 0.3) for every, _ in jobs]
        grants, moved_at = 0, self.began
        while (now := time.monotonic()) < self.began + self.phase.seconds:
            for number, (every, work) in enumerate(jobs):
                if due[number] <= now:
                    due[number] = now + every
                    work()
            self._go_on(now)
            self._look_at_the_server(os.WNOHANG)
            if (granted := self.board.grants()) > grants:
                grants, moved_at = granted, now
            if grants >= self.phase.grants or self.crashes:
                break
            if now > moved_at + PATIENCE_SECONDS:
                raise Stuck(f"nobody was granted anything for {PATIENCE_SECONDS:.0f}s, after {grants} grants")
            time.sleep(max(0.0, min(*due, *self.stopped.values()) - time.monotonic()))
        self._calm_down()

    # ---- torments

    def _kill(self) -> None:
        """One in ten times whoever it is, else nobody who is stopped: those are to find out."""
        slots = [slot for slot in self.board.slots if slot not in self.stopped or self.random.random() < 0.1]
        if not slots:
            return
        slot = self.random.choice(slots)
        self.recorder.killed(self._name(slot))
        self._end(slot)
        self.kills += 1
        self._start(slot)

    def _stop(self) -> None:
        """Somebody at any moment, or somebody who holds a lease that will be over when he goes on."""
        slots = [slot for slot in self.board.slots if slot not in self.stopped]
        if not slots:
            return
        slot = self.random.choice(slots)
        if self.random.random() < 0.4:
            self._stop_now(slot)
        else:
            self.bait = slot
            self.board.order(BAIT, slot + 1)

    def _stop_the_bait(self) -> None:
        if self.bait is not None and self.board.state(self.bait) is State.EXPOSED:
            self._stop_now(self.bait)
            self.bait = None
            self.board.order(BAIT, 0)

    def _stop_now(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGSTOP)
        self.stopped[slot] = time.monotonic() + STOPPED_SECONDS
        self.stops += 1

    def _go_on(self, now: float) -> None:
        for slot in [slot for slot, until in self.stopped.items() if until <= now]:
            del self.stopped[slot]
            os.kill(self.pids[slot], signal.SIGCONT)
        if self.full_since is not None:
            failures = self.board.refusals() - self.refusals_before
            if failures >= FULL_FAILURES or now > self.full_since + MOST_FULL_SECONDS:
                self.fulls += failures > 0
                self._empty()

    def _step(self) -> None:
        """Move the wall clock of one worker."""
        self.board.set_clock_offset(self.random.choice(self.board.slots), self.random.choice(STEPS_SECONDS))
        self.steps += 1

    def _fill(self) -> None:
        if self.full_since is None:
            self.full_since, self.refusals_before = time.monotonic(), self.board.refusals()
            if isinstance(self.phase.fill, SmallDisk):
                self.phase.fill.fill()
            self.board.order(FULL, not isinstance(self.phase.fill, SmallDisk))

    def _empty(self) -> None:
        self.full_since = None
        self.board.order(FULL, 0)
        if isinstance(self.phase.fill, SmallDisk):
            self.phase.fill.empty()

    def _stop_the_server(self) -> None:
        """As `pg_ctl -m immediate` does, and start it again; in a child, since killing goes on meanwhile."""
        if self.outage is not None:
            return
        away_seconds = self.random.random() * MOST_AWAY_SECONDS
        pid = os.fork()
        if not pid:
            code = 1
            try:
                assert self.phase.server is not None
                self.phase.server.stop("immediate")
                time.sleep(away_seconds)
                self.phase.server.start()
                code = 0
            except BaseException:  # noqa: BLE001 - whatever it is, it is told
                traceback.print_exc()
            finally:
                os._exit(code)
        self.outage = pid
        self.outages += 1

    def _look_at_the_server(self, how: int) -> None:
        if self.outage is None:
            return
        pid, status = os.waitpid(self.outage, how)
        if pid:
            self.outage = None
            if status:
                raise Stuck("the server did not start again")

    # ---- the workers

    def _name(self, slot: int) -> str:
        return f"{slot}.{self.lives[slot]}"

    def _start(self, slot: int) -> None:
        self.lives[slot] += 1
        self.board.set_state(slot, State.BUSY)
        pid = os.fork()
        if not pid:
            phase = self.phase
            be_on(phase.machines, slot)
            live(phase.folder, phase.store, self.board, slot, self.lives[slot], phase.seed)
        self.pids[slot] = pid

    def _end(self, slot: int) -> None:
        # Nobody else waits for our children, so the number is this child's until we have.
        pid = self.pids.pop(slot)
        self.stopped.pop(slot, None)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _calm_down(self) -> None:
        """Let all go on, and wait until each holds its last lease or has found none."""
        self._empty()
        self._go_on(float("inf"))
        self._look_at_the_server(0)
        self.board.order(STOP, 1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.crashes and any(self.board.state(slot) is not State.PARKED for slot in self.board.slots):
            if time.monotonic() > deadline:
                busy = [self._name(slot) for slot in self.board.slots if self.board.state(slot) is not State.PARKED]
                raise Stuck(f"{', '.join(busy)} did not come to an end in {PATIENCE_SECONDS:.0f}s")
            time.sleep(0.01)

    def _report(self) -> None:
        grants, seconds = self.board.grants(), time.monotonic() - self.began
        line = f"{grants:,} of {self.phase.grants:,} grants, {grants / seconds:.0f}/s, {self.kills:,} kills"
        print(f"torture: {self.phase.name}: {line}", file=sys.stderr, flush=True)


def be_on(machines: Sequence[Path], number: int) -> None:
    """From now on this process seems to be on that machine: those on the others cannot see whether it lives."""
    if machines:
        os.environ["XDG_STATE_HOME"] = str(machines[number % len(machines)])


def set_up(phase: Phase) -> None:
    """Offer the hosts, in a child: whoever is forked later has no store from us."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            hosts = [f"h{number}" for number in range(phase.hosts)]
            be_on(phase.machines, 0)
            with drydock.connect(phase.store) as dock:
                dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": hosts}}})
            code = 0
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise Stuck("the store could not be made")
