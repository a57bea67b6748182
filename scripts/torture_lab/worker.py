"""One worker: it leases, writes to what it holds, renews and releases, records all of it, and never ends by itself."""

import contextlib
import fcntl
import os
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from board import BAIT, FULL, STOP, Board, State

from drydock.api import Connection, Lease
from drydock.engine import Engine
from drydock.errors import LeaseLost, NotFound, NothingFree, StoreBusy, StoreError
from drydock.store import open_store
from drydock.store.base import Store
from drydock.store.sqlite import SqliteStore
from drydock.testing.history import ACQUIRE, RELEASE, RENEW, VERIFY, WRITE, Outcome, Recorder

SHORT_TTL_SECONDS = 0.4
EXPOSED_SECONDS = 0.15
LONG_TTL_SECONDS = 60.0
#: one who waits longer asks again
WAIT_SECONDS = 1.0
RETRY_SECONDS = 0.01
MOST_PAGES = 2**30


class Witness:
    """The thing itself, one file for each resource: it keeps the newest fence, and refuses those that are older."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}

    def write(self, name: str, fence: int) -> bool:
        """False: refused."""
        fd = self._files.get(name)
        if fd is None:
            fd = self._files[name] = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            newest = os.pread(fd, 8, 0)
            if newest and struct.unpack("<q", newest)[0] > fence:
                return False
            os.pwrite(fd, struct.pack("<q", fence), 0)
            return True
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)


class Worker:
    def __init__(self, folder: Path, store: str, board: Board, slot: int, life: int, seed: int) -> None:
        self.name = f"{slot}.{life}"
        self.folder, self.store, self.board, self.slot = folder, store, board, slot
        self.random = random.Random(f"{seed} {self.name}")
        self.recorder = Recorder(str(folder / "history" / f"{slot}.jsonl"), self.name)
        self.witness = Witness(folder / "witness")
        self.served = is_served(store)
        self.tormentor = os.getppid()
        self.full = False

    def run(self) -> None:
        dock = self._connected()
        while not self.board.ordered(STOP):
            self._look_around(dock)
            with self._pressed():
                self._one_lease(dock)
        self.board.order(FULL, 0)
        self._look_around(dock)
        self._park(dock)

    # ---- what it does

    def _one_lease(self, dock: Connection) -> None:
        bait = self.board.ordered(BAIT) == self.slot + 1
        dice = self.random.random()
        ttl = SHORT_TTL_SECONDS if bait or dice < 0.1 else LONG_TTL_SECONDS if dice < 0.4 else None
        lease = self._acquire(dock, ttl, WAIT_SECONDS)
        if lease is None:
            return
        self._write(lease)
        if bait:
            self.board.set_state(self.slot, State.EXPOSED)
            time.sleep(EXPOSED_SECONDS)
            self.board.set_state(self.slot, State.BUSY)
        if bait or dice > 0.8:
            time.sleep(self.random.random() * (0.03 if dice > 0.98 else 0.004))
            self._write(lease)
        if ttl is not None and self.random.random() < 0.2:
            self._use(RENEW, lease, lease.renew, ttl)
        if self.random.random() < 0.1:
            self._use(VERIFY, lease, lease.verify)
        self._release(lease)

    def _acquire(self, dock: Connection, ttl: float | None, wait: float) -> Lease | None:
        number = self.recorder.call(ACQUIRE, ttl=ttl)
        try:
            lease = dock.lease("host", owner=self.name, wait=wait, ttl=ttl)
        except NothingFree:
            self.recorder.returned(number, Outcome.FAIL)
            return None
        except LeaseLost:  # granted while it was stopped, and over before it went on
            self.recorder.returned(number, Outcome.UNKNOWN)
            return None
        except StoreError:  # what was granted and could not be given back is given back by its next call
            self.recorder.returned(number, Outcome.UNKNOWN)
            raise
        self.recorder.returned(number, Outcome.OK, lease.resource.name, lease.fence)
        self.board.granted(self.slot)
        return lease

    def _write(self, lease: Lease) -> None:
        """Also when the lease is over: whoever was stopped does not know it, and must be refused."""
        name, fence = lease.resource.name, lease.fence
        number = self.recorder.call(WRITE, name, fence)
        accepted = self.witness.write(name, fence)
        self.recorder.returned(number, Outcome.OK if accepted else Outcome.LOST)

    def _release(self, lease: Lease) -> None:
        """Give it back, however often that takes: a worker that goes on holding is not told to."""
        while True:
            with contextlib.suppress(StoreError):
                self._use(RELEASE, lease, lease.release)
                return
            self.board.refused(self.slot)
            time.sleep(RETRY_SECONDS)

    def _use(self, kind: str, lease: Lease, call: Callable[[], object], ttl: float | None = None) -> None:
        number = self.recorder.call(kind, lease.resource.name, lease.fence, ttl=ttl)
        try:
            done = self._in_turn(call)
        except (LeaseLost, NotFound):  # not found: whoever granted it does not know it any more
            done = False
        except StoreError:
            # A server may go away before it has told what it has done.
            self.recorder.returned(number, Outcome.UNKNOWN if self.served else Outcome.FAIL)
            if kind == RELEASE:
                raise
            self.board.refused(self.slot)
            return
        self.recorder.returned(number, Outcome.LOST if done is False else Outcome.OK)

    def _in_turn(self, call: Callable[[], object]) -> object:
        """Who does not get into the store in time has done nothing, and tries again."""
        while True:
            try:
                return call()
            except StoreBusy:
                self.board.refused(self.slot)

    def _park(self, dock: Connection) -> None:
        """Hold one lease, or none, until killed: what is listed then is what was granted and not given up."""
        with self._pressed():
            self._acquire(dock, None, 0.0)
        self.board.set_state(self.slot, State.PARKED)
        while os.getppid() == self.tormentor:
            time.sleep(1.0)

    # ---- around it

    def _connected(self) -> Connection:
        # As `drydock.connect`, with a wall clock that the tormentor moves where it is not the server's.
        while True:
            with contextlib.suppress(StoreError):
                return Connection(Engine(self._opened()))
            self.board.refused(self.slot)
            time.sleep(RETRY_SECONDS)

    def _opened(self) -> Store:
        return open_store(self.store) if self.served else SqliteStore.open(self.store, clock=self._clock)

    def _clock(self) -> float:
        return time.time() + self.board.clock_offset(self.slot)

    @contextmanager
    def _pressed(self) -> Iterator[None]:
        """A store that cannot be used now may be used later."""
        try:
            yield
        except StoreError:
            self.board.refused(self.slot)
            time.sleep(RETRY_SECONDS)

    def _look_around(self, dock: Connection) -> None:
        if os.getppid() != self.tormentor:
            os._exit(0)
        full = bool(self.board.ordered(FULL))
        if full != self.full:
            self.full = full
            # Less than there are: as many as there are.
            dock._engine.store.run(f"PRAGMA max_page_count = {1 if full else MOST_PAGES}")


def is_served(store: str) -> bool:
    """Whether the store is a server's."""
    return "://" in store


def live(folder: Path, store: str, board: Board, slot: int, life: int, seed: int) -> None:
    """The whole life of a forked child; it never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Worker(folder, store, board, slot, life, seed).run()
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        (folder / "crashes" / f"{slot}.{life}").write_text(traceback.format_exc())
    finally:
        os._exit(70)
