"""Room on the disk that is kept for endings: on a full disk things can still be given back.

The room is a file beside the store with nothing in it but bytes. A disk is full because somebody writes, and who does
goes on trying: what is left to the file system is his before it is needed. So the room moves from file to file, a piece
at a time: into those where an ending is written, and back from those that SQLite takes away.
"""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator

from . import files

PIECE = 16 * 1024  # with less, others have more occasions to be faster; with more, more time


class Reserve:
    """What is kept at `path`. Nothing here raises: without a reserve all goes on, until the disk is full."""

    #: enough to open a store anew (32 KiB), to log an ending or ten, and to let the database grow as the log is moved there
    SIZE = 256 * 1024

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = os.path.dirname(path)

    def is_needed(self) -> bool:
        """Whether so little is free that even an ending might not find room."""
        try:
            system = os.statvfs(self._folder)
        except OSError:
            return False
        return system.f_blocks > 0 and system.f_bavail * system.f_frsize < self.SIZE

    def left(self) -> int:
        """How many bytes are kept."""
        try:
            return os.stat(self.path, follow_symlinks=False).st_size
        except OSError:
            return 0

    def spend(self, target: int, size: int) -> None:
        """Let the file that is open for appending at `target` have room for `size` bytes. Whatever others write there
        meanwhile stays: only zeros are added, and only at its end."""
        with contextlib.suppress(OSError), self._opened() as reserve:
            _move(reserve, target, size, bytes(self.SIZE))

    def take(self, source: int | None = None) -> bool:
        """Keep as much room as there is, and what the file that is open for writing at `source` takes, up to what is
        wanted; whether it is that much now."""
        if self.left() >= self.SIZE:
            return True
        with contextlib.suppress(OSError), self._opened() as reserve:
            return _move(source, reserve, self.SIZE, _noise())
        return False

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def _move(source: int | None, target: int, size: int, filling: bytes) -> bool:
    """Let `target` grow to `size` bytes, at the cost of `source` where there is no room otherwise; whether it has."""
    grown = os.fstat(target).st_size
    while grown < size:
        piece = filling[grown % len(filling) :][: min(PIECE, size - grown)]
        given = len(piece)
        while True:
            try:
                grown += os.write(target, piece)
                break
            except OSError as error:
                if source is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    return False
                left = os.fstat(source).st_size  # another may cut it, too, and what is cut must not become longer
                if not left:
                    return False
                # From here to the write it takes some two microseconds. Where somebody is faster, there has to be more.
                os.ftruncate(source, max(0, left - given))
                given *= 2
    return True


@functools.cache
def _noise() -> bytes:
    """Bytes that no file system can store in less room than they take."""
    return os.urandom(Reserve.SIZE)


_kept_open: dict[files.Identity | None, int] = {}


def kept_open(path: str, identity: files.Identity | None) -> int:
    """A file on which SQLite has locks, open for appending, if it is still this one; else raises `OSError`.

    It stays open until `let_go`: with the first descriptor that a process closes, all its locks on the file are gone
    (POSIX says so), those of its other connections too.
    """
    if identity not in _kept_open:
        _kept_open[identity] = _open_to_grow(path, identity)
    return _kept_open[identity]


def let_go(identity: files.Identity | None) -> None:
    """Close a file that was kept open, and that nobody uses any more."""
    if (fd := _kept_open.pop(identity, None)) is not None:
        os.close(fd)


@contextlib.contextmanager
def open_to_grow(path: str, identity: files.Identity | None) -> Iterator[int]:
    """A file on which SQLite has no locks, open for appending, if it is still this one; else raises `OSError`."""
    fd = _open_to_grow(path, identity)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_to_grow(path: str, identity: files.Identity | None) -> int:
    # Before it is opened: to close another one might let go of the locks of a connection that this process has to that.
    if identity is None or files.identity(path) != identity:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
