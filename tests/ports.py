"""Ports that are free on this machine just now, outside of those that the system hands out by itself, and somebody who
uses one without asking."""

import errno
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESS = "127.0.0.1"


def free_ports(number: int) -> list[int]:
    """So many in a row."""
    while True:
        first = random.randrange(10_000, 30_000)
        ports = list(range(first, first + number))
        if all(map(is_free, ports)):
            return ports


def is_free(port: int) -> bool:
    """Whether a program that takes no care could bind it."""
    with socket.socket() as one:
        try:
            one.bind((ADDRESS, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Somebody listens there, as a server does that knows nothing of Drydock."""
    with socket.create_server((ADDRESS, port)) as server:
        yield server
