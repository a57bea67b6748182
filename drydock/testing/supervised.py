"""A server that another process keeps for us, in a folder that goes with it: our end of `supervise.py`."""

import contextlib
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import StoreError, quoted
from . import supervise

#: how long a path may be so that a folder and a Unix socket in it have room behind it
LONGEST_BASE = 70
#: Below those that the system gives to outgoing connections: else somebody's attempt to connect may take the port of
#: a server that is just being started again.
PORTS = range(20_000, 32_000)
LOOPBACK = "127.0.0.1"


def who_serves() -> str:
    """The user that a server runs as which refuses to be root; "" is us."""
    return "nobody" if os.geteuid() == 0 else ""


class Served(ABC):
    """A server that ends with the block which it is the context manager of."""

    @abstractmethod
    def close(self) -> None:
        """End it, and remove what it has left. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Supervised:
    """One server, whose output is in the file `log` of its folder. It ends with us, and the folder goes."""

    def __init__(self, folder: Path, user: str, command: list[str]) -> None:
        self.folder = folder
        # A session of its own: who interrupts the tests on a terminal must not stop the server before they have ended.
        self._process = subprocess.Popen(
            [sys.executable, "-I", supervise.__file__, str(os.getpid()), str(folder), user, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True, bufsize=1, cwd="/",
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._one_order = threading.Lock()
        self.pid = self._process.pid

    def start(self) -> int:
        return int(self._order("start"))

    def stop(self, number: int) -> None:
        self._order(f"stop {int(number)}")

    def runs(self) -> bool:
        return self._order("look") == "running"

    def wait_until(self, ready: Callable[[], bool], seconds: float, name: str) -> None:
        """Look until it is ready. Raises `StoreError` when it ends before that, or takes longer."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.runs() or time.monotonic() > end:
                raise StoreError(f"{name} does not start; it said: {self.log()}")
            time.sleep(0.005)

    def log(self) -> str:
        """The end of what it said, for a sentence."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-6:]) or "nothing"

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        self._process.wait()
        self._answers.close()

    def _order(self, order: str) -> str:
        with self._one_order, contextlib.suppress(BrokenPipeError):
            self._orders.write(order + "\n")
            if answer := self._answers.readline().strip():
                return answer
        raise StoreError("the process that keeps the server for us has ended")


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((LOOPBACK, port))
            return port


def new_folder(user: str, where: Path | None) -> Path:
    """A new folder for this user alone, with a path that is short enough for a socket in it."""
    for base in [where] if where is not None else [Path(tempfile.gettempdir()), Path("/tmp")]:  # noqa: S108 - short
        if len(os.fsencode(base)) <= LONGEST_BASE and (not user or may_be_entered(base)):
            folder = Path(tempfile.mkdtemp(prefix="drydock-pg-", dir=base))
            give(folder, user)
            return folder
    raise StoreError(
        f"{quoted(base)} is no place for a PostgreSQL server: its path must have at most {LONGEST_BASE} bytes"
        + (f", and {user} must be able to enter it" if user else "")
    )


def give(path: Path, user: str) -> None:
    if user:
        shutil.chown(path, user)


def may_be_entered(folder: Path) -> bool:
    """Whether everybody may use what is in this folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder.resolve(), *folder.resolve().parents))
