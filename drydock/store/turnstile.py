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


class Turnstile:
    """One process's (and one thread's) place at the turnstile. Not shared between threads, not kept over a fork."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = _open(path)

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
        # A blocking flock has no deadline, and a library may not use signals to end it. So a helper thread blocks,
        # and if we lose patience (or ^C comes) it keeps the descriptor, and closes it as soon as its turn comes.
        fd, started = self._fd, time.monotonic()
        arrived, verdict = _thread.allocate_lock(), _thread.allocate_lock()
        arrived.acquire()
        abandoned = False

        def block() -> None:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with verdict:
                if abandoned:
                    os.close(fd)
                else:
                    arrived.release()

        _thread.start_new_thread(block, ())
        came = False
        try:
            came = arrived.acquire(timeout=patience_seconds)
        finally:
            if not came:
                with verdict:
                    abandoned = not arrived.acquire(blocking=False)
                if abandoned:
                    self._fd = _open(self.path)
                else:  # it came between our giving up and now: pass it on
                    self.leave()
        if not came:
            raise StoreBusy(time.monotonic() - started, f"the store {quoted(self.path.removesuffix('.lock'))}")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Refused(
            f"cannot write {quoted(path)}: permission denied; without it the store cannot be written safely"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot open {quoted(path)}: {error.strerror}") from error
