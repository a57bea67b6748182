"""A queue in front of the writers of one SQLite file: a blocking `flock` on a file beside it, with a deadline.

SQLite's own busy handler lets newcomers pass those who wait longest; the kernel's queue for a file lock does not. It
also keeps commits and checkpoints of different processes apart, which is the shape that triggers the WAL-reset bug of
SQLite before 3.51.3, and it is let go by the kernel when its holder dies.
"""

import _thread
import fcntl
import os
import time

from ..errors import Refused, StoreBusy, StoreError, quoted

#: for how long a thread that stood in the queue waits to be sent there again
STAYS_SECONDS = 0.1


class Turnstile:
    """One process's (and one thread's) place at the turnstile. Not shared between threads, not kept over a fork."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = _open(path)
        self._stand_in: _StandIn | None = None

    def enter(self, patience_seconds: float) -> None:
        """Wait for the turn. Raises `StoreBusy` when it has not come in time, and then holds nothing."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._queue(patience_seconds)

    def leave(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)

    def _queue(self, patience_seconds: float) -> None:
        started = time.monotonic()
        stand_in = self._stand_in = self._stand_in or _StandIn(self._fd)
        came = False
        try:
            came = stand_in.wait(patience_seconds)
        finally:
            if stand_in.dismissed:
                self._fd, self._stand_in = _open(self.path), None
            elif not came:  # it came between our giving up and now: pass it on
                self.leave()
        if not came:
            raise StoreBusy(time.monotonic() - started, f"the store {quoted(self.path.removesuffix('.lock'))}")


class _StandIn:
    """Stands in the kernel's queue for somebody who has a deadline, or may be interrupted.

    A blocking flock has no deadline, and a library may not use signals to end it. So a helper thread blocks. It stays
    for a while, since who queues will soon queue again. If whoever it stands there for loses patience (or ^C comes) it
    is dismissed: it keeps the descriptor, and closes it as soon as its turn comes.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._asked, self._arrived, self._verdict = (_thread.allocate_lock() for _ in range(3))
        self._asked.acquire()
        self._arrived.acquire()
        self._is_there = False
        self.dismissed = False

    def wait(self, seconds: float) -> bool:
        """Whether the turn came in time. If not, or when this is interrupted, `dismissed` tells whether it still may."""
        came = False
        try:
            with self._verdict:
                self._asked.release()
                if not self._is_there:
                    self._is_there = True
                    _thread.start_new_thread(self._stand, ())
            came = self._arrived.acquire(timeout=seconds)
        finally:
            if not came:
                with self._verdict:
                    self.dismissed = not self._arrived.acquire(blocking=False)
        return came

    def _stand(self) -> None:
        while self._is_asked():
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with self._verdict:
                if self.dismissed:
                    os.close(self._fd)
                    return
                self._arrived.release()

    def _is_asked(self) -> bool:
        if self._asked.acquire(timeout=STAYS_SECONDS):
            return True
        with self._verdict:
            self._is_there = self._asked.acquire(blocking=False)
            return self._is_there


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Refused(
            f"cannot write {quoted(path)}: permission denied; without it the store cannot be written safely"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot open {quoted(path)}: {error.strerror}") from error
