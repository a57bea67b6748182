"""A queue in front of the writers of one SQLite file: a `flock` on a file beside it, and a bell for those who wait for it.

SQLite's own busy handler lets newcomers pass those who wait longest, and sleeps ever longer; here whoever leaves wakes the
one who has waited longest. It also keeps commits and checkpoints of different processes apart, which is the shape that
triggers the WAL-reset bug of SQLite before 3.51.3. The lock alone decides whose turn it is, and the kernel lets it go when
its holder dies: a blocking `flock` would say so at once, but it has no deadline.
"""

import contextlib
import fcntl
import os
import select
import stat
import time

from ..errors import Refused, StoreBusy, StoreError, quoted

#: who dies in his turn rings no bell
LOOK_EVERY_SECONDS = 0.02
#: where there is no bell
LOOK_OFTEN_SECONDS = 0.001
#: all that a pipe holds
PIPE_BYTES = 65536


class Turnstile:
    """One process's (and one thread's) place at the turnstile. Not shared between threads, not kept over a fork."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._fd = _open(store + ".lock")
        self._bell = Bell(store + ".wake")

    def enter(self, patience_seconds: float) -> None:
        """Wait for the turn. Raises `StoreBusy` when it has not come in time, and then holds nothing."""
        if not self._take():
            self._queue(patience_seconds)

    def leave(self) -> None:
        """Let the next one in. May be called twice, and also by who was interrupted as he entered."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._bell.ring()

    def close(self) -> None:
        self.leave()
        self._bell.close()
        os.close(self._fd)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _queue(self, patience_seconds: float) -> None:
        started = time.monotonic()
        self._bell.listen()
        while (left := started + patience_seconds - time.monotonic()) > 0:
            self._bell.wait(min(left, LOOK_EVERY_SECONDS))
            if self._take():
                return
        raise StoreBusy(time.monotonic() - started, f"the store {quoted(self._store)}")


class Bell:
    """Wakes one of those who listen, of any process: the one who has listened longest.

    It is a byte in a named pipe, which stays there until somebody hears it, so that it cannot be missed. Where the kernel
    knows no way to wake only one (that is epoll's EPOLLEXCLUSIVE) it wakes all; where there is no pipe to be had, nobody.
    """

    def __init__(self, folder: str) -> None:
        self._fd = _open_pipe(folder)
        self._ears: select.epoll | None = None

    def ring(self) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, b"!")
        except BlockingIOError:
            return  # it is full of rings that nobody had to hear

    def listen(self) -> None:
        """Be the last of those of whom one is woken whenever he is in `wait`; who is not is passed over."""
        if self._fd is None or not hasattr(select, "epoll"):
            return
        with contextlib.suppress(OSError):  # nothing more may be opened: then he only looks
            self._ears = self._ears or select.epoll()
            with contextlib.suppress(OSError):  # not when he gets his turn: then others wait for him
                self._ears.unregister(self._fd)
            self._ears.register(self._fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def wait(self, seconds: float) -> None:
        """Sleep until it rings, at most so long."""
        if self._fd is None:
            time.sleep(min(seconds, LOOK_OFTEN_SECONDS))
            return
        if self._ears is not None:
            self._ears.poll(seconds)
        else:
            poll = select.poll()  # select() takes no descriptor above 1023
            poll.register(self._fd, select.POLLIN)
            poll.poll(seconds * 1000)
        try:
            os.read(self._fd, PIPE_BYTES)
        except BlockingIOError:
            return  # it was somebody else's ring

    def close(self) -> None:
        if self._ears is not None:
            self._ears.close()
        if self._fd is not None:
            os.close(self._fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Refused(
            f"cannot write {quoted(path)}: permission denied; without it the store cannot be written safely"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot open {quoted(path)}: {error.strerror}") from error


def _open_pipe(folder: str) -> int | None:
    # In a folder of its own, since whoever copies all files of the store by name would read it for ever.
    path = os.path.join(folder, "turn")
    with contextlib.suppress(OSError):
        os.mkdir(folder, 0o700)
    with contextlib.suppress(OSError):
        os.mkfifo(path, 0o600)
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    return None
