"""Room on the disk that is kept for endings: on a full disk things can still be given back.

The room is a file beside the store with nothing in it but bytes. It is given up to the file system, at the turnstile,
when an ending begins and less than that is free, and taken again, as much as there is room for, before the next in
the queue has its turn.
"""

import contextlib
import os
from collections.abc import Iterator

#: enough to open a store anew (32 KiB), to log an ending or ten, and to let the database grow as the log is moved there
SIZE = 256 * 1024
PIECE = 4096  # what is left on a full disk is found in pieces


class Reserve:
    """What is kept at `path`. Nothing here raises: without a reserve all goes on, until the disk is full."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = os.path.dirname(path)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Meanwhile the room is free, if it is needed."""
        if not self.is_needed():
            yield
            return
        self.give()
        try:
            yield
        finally:
            self.take()

    def is_needed(self) -> bool:
        """Whether so little is free that even an ending might not find room."""
        try:
            system = os.statvfs(self._folder)
        except OSError:
            return False
        return system.f_blocks > 0 and system.f_bavail * system.f_frsize < SIZE

    def give(self) -> None:
        """Let others have the room."""
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)

    def take(self) -> None:
        """Keep as much room as there is, up to what is wanted."""
        with contextlib.suppress(OSError):
            if os.path.lexists(self.path) and os.stat(self.path, follow_symlinks=False).st_size >= SIZE:
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.path, flags, 0o600)
            try:
                for size in (SIZE, PIECE):
                    with contextlib.suppress(OSError):
                        while (left := SIZE - os.fstat(fd).st_size) > 0:
                            # Bytes that no file system can store in less room than they take.
                            os.write(fd, os.urandom(min(left, size)))
            finally:
                os.close(fd)
