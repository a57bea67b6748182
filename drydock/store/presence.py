"""Tell the living from the dead without guessing by process number: each connection holds a lock that dies with it.

One byte of one file beside the store, at an offset drawn at random, is locked by the kernel for as long as the
process lives. The offset is the name that the connection writes on what it waits for or works on. POSIX record locks
are used since, unlike `flock`, a forked child does not inherit them; in return, closing any descriptor of the file
drops all of the process's locks, so it is opened once for each process and never closed.
"""

import fcntl
import os
import re
from functools import lru_cache

from ..errors import StoreError, quoted

_NAME = re.compile("[0-9a-f]{12}")


#: the byte whose holder keeps watch; no name can be so large
_WATCH = 2**56


class _Registry:
    """What this process holds: a descriptor for each file, the offsets locked through it, and who of us keeps watch."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.files: dict[str, tuple[int, set[int]]] = {}
        self.watchers: dict[str, str] = {}

    def file(self, path: str) -> tuple[int, set[int]]:
        if self.pid != os.getpid():  # a forked child holds none of its parent's locks
            self.pid, self.files, self.watchers = os.getpid(), {}, {}
        if path not in self.files:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(f"cannot open {quoted(path)}: {error.strerror}") from error
            # Another thread may have been faster; then ours stays open unused, since closing it would drop its locks.
            self.files.setdefault(path, (fd, set()))
        return self.files[path]


_registry = _Registry()


def identity(path: str) -> tuple[int, int]:
    """The device and number of the file, which is made if it is not there."""
    fd, _ = _registry.file(path)
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def announce(path: str) -> str:
    """Hold a lock in the file at `path` until `withdraw` or the end of this process; return its name."""
    fd, own = _registry.file(path)
    while True:
        offset = int.from_bytes(os.urandom(6))
        if offset not in own and _lock(fd, offset):
            own.add(offset)
            return f"{offset:012x}"


def withdraw(path: str, name: str) -> None:
    """Let go of the lock. May be called twice."""
    fd, own = _registry.file(path)
    offset = int(name, 16)
    if offset in own:
        own.discard(offset)
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)


@lru_cache(maxsize=1000)
def is_name(name: str) -> bool:
    """Whether a connection can be called that; if not, the row that says so is damaged."""
    return bool(_NAME.fullmatch(name))


def is_alive(path: str, name: str) -> bool:
    """Whether the process that announced this name still runs, and has not withdrawn it."""
    if not is_name(name):
        return False
    offset = int(name, 16)
    fd, own = _registry.file(path)
    if offset in own:
        return True
    if not _lock(fd, offset):
        return True
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)
    return False


def watch(path: str, name: str) -> bool:
    """Whether the connection of this name keeps watch: one does, of all that ask, until it lets go or dies."""
    fd, _ = _registry.file(path)
    watcher = _registry.watchers.get(path)
    if watcher is None and _lock(fd, _WATCH):
        # Of two threads that ask at once, both may have the process's lock; one of them is written down.
        watcher = _registry.watchers.setdefault(path, name)
    # Locked once more, since it may have been let go by a thread that was written down for a moment in between.
    return watcher == name and _lock(fd, _WATCH)


def unwatch(path: str, name: str) -> None:
    """Let another keep watch. May be called twice."""
    if _registry.watchers.get(path) == name:
        fd, _ = _registry.file(path)
        # In this order, or another thread could be written down, whose lock would be let go here.
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, _WATCH)
        del _registry.watchers[path]


def _lock(fd: int, offset: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True
