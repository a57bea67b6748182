"""Wake one sleeping process of this machine: a datagram to the Unix socket that is named after it.

The sockets are in a folder beside the store. A path of a socket may be no longer than about a hundred bytes, so the
folder is named through a descriptor where the kernel offers that. Where no socket can be had, who waits must look.
A datagram says "look", and may name leases whose grant no power cut can undo any more. One that is lost or late does no
harm; of one that comes from a stranger, the worst is that nobody waits for the disk.
"""

import contextlib
import os
import select
from collections.abc import Collection, Iterable
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

#: of a folder whose sockets can be named with it
LONGEST_FOLDER_BYTES = 85
LONGEST_BYTES = 65536
_FOLDER_BY_DESCRIPTOR = "/proc/self/fd"
_make_way = getattr(os, "sched_yield", lambda: None)


class Wakeups:
    """The sockets of one store, as one connection sees them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._name: str | None = None
        self._socket: socket.socket | None = None
        self._sender: socket.socket | None = None
        self._fd: int | None = None
        self._secure: set[bytes] = set()  # as they were told

    @property
    def listening(self) -> bool:
        return self._socket is not None

    def listen(self, name: str) -> None:
        """Be woken as `name` from now on. May be called twice; does nothing where no socket can be had."""
        if self._name is not None:
            return
        self._name = name
        with contextlib.suppress(OSError):
            os.mkdir(self.folder, 0o700)
        with contextlib.suppress(OSError):
            listener = _new_socket()
            try:
                listener.bind(f"{self._where}/{name}")
            except OSError:
                listener.close()
            else:
                self._socket = listener
                self._poll = select.poll()  # select() takes no descriptor above 1023
                self._poll.register(listener, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Sleep until woken, at most so long; whether it was woken."""
        self._secure.clear()
        return self._hear(seconds)

    def are_secure(self, leases: Collection[int], seconds: float) -> bool:
        """Whether it was told since the last `wait`, or is within so many seconds, that no power cut can undo the grant of
        any of these leases."""
        begun, wanted = monotonic(), _numbers(leases)
        while not self._secure.issuperset(wanted):
            left = begun + seconds - monotonic()
            if self._socket is None or left <= 0:
                return False
            self._hear(left)
        return True

    def _hear(self, seconds: float) -> bool:
        """Wait for news so long, and read all that there is; whether there was any."""
        assert self._socket is not None
        if not self._poll.poll(seconds * 1000):
            return False
        while True:
            told = self._socket.recv(LONGEST_BYTES)
            self._secure.update(told[1:].split())
            if not self._poll.poll(0):
                return True

    def fileno(self) -> int | None:
        """What becomes readable when somebody wakes us, for whoever waits for other things too."""
        return None if self._socket is None else self._socket.fileno()

    def wake(self, name: str, secure: Iterable[int] = ()) -> None:
        """Wake whoever listens as `name`, and tell him of which leases no power cut can undo the grant. If nobody listens any
        more, what is left of his socket is removed."""
        try:
            if self._sender is None:
                self._sender = _new_socket()
            self._sender.sendto(b"!" + b" ".join(_numbers(secure)), f"{self._where}/{name}")
            if secure:  # nothing keeps him from going on now but that he may have to wait for the processor we run on
                _make_way()
        except ConnectionRefusedError:
            self._remove(name)
        except OSError:  # no socket to send with; he does not listen; or one more would tell him nothing
            pass

    def close(self) -> None:
        if self._socket is not None and self._name is not None:
            self._socket.close()
            self._remove(self._name)
            self._socket = None
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, name))

    @cached_property
    def _where(self) -> str:
        if len(os.fsencode(self.folder)) <= LONGEST_FOLDER_BYTES or not os.path.isdir(_FOLDER_BY_DESCRIPTOR):
            return self.folder
        self._fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"{_FOLDER_BY_DESCRIPTOR}/{self._fd}"


def _numbers(leases: Iterable[int]) -> list[bytes]:
    return [b"%d" % lease for lease in leases]


def _new_socket() -> "socket.socket":
    import socket  # costs a command a tenth of its start, and one that is granted at once needs none

    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
