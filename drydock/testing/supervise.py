"""Keeps one server for the process that started it, and ends it with that process, however that ends.

A program of its own, `python supervise.py OWNER FOLDER USER COMMAND...`, because whoever is killed with SIGKILL can
clean up nothing. USER is empty or the name of the user that the command runs as. It takes orders, one line each, on
its input: `start` starts the command and answers with its process id; `look` answers `running` or `gone`; `stop
SIGNAL` sends that signal and answers `gone` when the command is. At the end of its input, or of OWNER, or on SIGTERM,
the command gets SIGQUIT (PostgreSQL's immediate stop), FOLDER goes, and so does this process. It imports nothing of
Drydock, to start fast.
"""

import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS_TO_STOP = 60.0
SECONDS_TO_QUIT = 15.0  #: PostgreSQL itself gives its children 5 s
PR_SET_PDEATHSIG = 1


def main() -> None:
    owner, folder, user, *command = sys.argv[1:]
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(asked, lambda *_: sys.exit())
    server = Server(command, Path(folder), user)
    try:
        orders = select.poll()
        orders.register(0, select.POLLIN)
        # The end of our input comes late when a forked child of the owner has its other end too.
        with contextlib.suppress(AttributeError, OSError):
            orders.register(os.pidfd_open(int(owner)), select.POLLIN)
        while os.getppid() == int(owner) and orders.poll() and os.getppid() == int(owner):
            order = os.read(0, 100).decode().split()
            if not order:
                break
            os.write(1, f"{server.obey(*order)}\n".encode())
    finally:
        server.stop(signal.SIGQUIT, SECONDS_TO_QUIT)
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    def __init__(self, command: list[str], folder: Path, user: str) -> None:
        self.command, self.folder, self.user = command, folder, user
        self.process: subprocess.Popen[bytes] | None = None

    def obey(self, order: str, *arguments: str) -> str:
        if order == "start":
            return str(self.start())
        if order == "stop":
            self.stop(int(arguments[0]), SECONDS_TO_STOP)
        return "gone" if self.process is None or self.process.poll() is not None else "running"

    def start(self) -> int:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                preexec_fn=die_with(os.getpid()), **as_user(self.user),
            )  # fmt: skip
        return self.process.pid

    def stop(self, number: int, patience: float) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def as_user(name: str) -> dict[str, Any]:
    """What `subprocess` is told so that a command runs as this user; as ours, without a name."""
    if not name:
        return {}
    user = pwd.getpwnam(name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def die_with(supervisor: int) -> Callable[[], None] | None:
    """To be called in the new process: it is to end also when its supervisor is killed with SIGKILL."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != supervisor:
            os._exit(1)

    return ask


if __name__ == "__main__":
    main()
