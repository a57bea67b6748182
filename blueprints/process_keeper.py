"""Keeps one service of the kind `process` until it ends or is told to. It is a program of its own, started with

    process_keeper.py CONTROL LOCK SIGNAL SECONDS FOLDER COMMAND...

The descriptor LOCK, which the service does not inherit, holds the lock of CONTROL/lock until nothing of it is left: so whoever comes
later knows whether there is something, without a process number that might be somebody else's by now. A byte written to
the pipe CONTROL/orders stops the service, and so does the removal of CONTROL. How it ended is then in CONTROL/ended.

The service is a process group of its own. On Linux what leaves the group comes to us when its parent ends, so it is
ended, too; and if we are killed, the kernel kills the service's first process.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_AGAIN_SECONDS = 1.0
#: how soon it is seen that the last of a group is gone, where no signal tells
REMAINS_SECONDS = 0.02
#: after SIGKILL, for what the kernel cannot end
AFTER_KILL_SECONDS = 10.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    control, _, number, seconds, folder, *command = sys.argv[1:]
    orders = os.open(Path(control, "orders"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # so that it has no end
    if os.fork():
        os._exit(0)  # whoever started us has nothing to bury later
    os.setsid()
    Keeper(Path(control), orders, signal.Signals(int(number)), float(seconds)).keep(command, folder)


class Keeper:
    def __init__(self, control: Path, orders: int, stop_signal: signal.Signals, stop_seconds: float) -> None:
        self.control, self.orders = control, orders
        self.stop_signal, self.stop_seconds = stop_signal, stop_seconds
        self.group = 0
        self.code: int | None = None  # of the service's first process, when that has ended
        self.childless = False
        self.told = False
        self.wake, writing = os.pipe()
        for end in (self.wake, writing):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)

    def keep(self, command: list[str], folder: str) -> None:
        prctl = _prctl()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            started = subprocess.Popen(  # noqa: S603 - what the pool file says, and no shell
                command,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                start_new_session=True,
                preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # we have no threads
            )
        except OSError as error:
            self._write_down(f"it could not be started: {error.strerror}")
        else:
            self.group = started.pid
            self._watch()
            self._kill_all()
            self._write_down(self._how_it_ended())
        os._exit(0)

    def _watch(self) -> None:
        """Until it has ended, or has had the time to end after it was told."""
        deadline: float | None = None
        while True:
            self._bury()
            if self.code is not None and (deadline is None or not self._group_lives()):
                return
            if deadline is None:
                pause = LOOK_AGAIN_SECONDS
            else:
                pause = deadline - time.monotonic()
                if pause <= 0:
                    return
            self._sleep(pause if self.code is None else min(pause, REMAINS_SECONDS))
            if self.told and deadline is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.group, self.stop_signal)
                deadline = time.monotonic() + self.stop_seconds

    def _sleep(self, seconds: float) -> None:
        readable, _, _ = select.select([self.wake, self.orders], [], [], seconds)
        for fd in readable:
            os.read(fd, 4096)
        if self.orders in readable or not self.control.exists():
            self.told = True

    def _stop(self, *_: object) -> None:
        self.told = True

    def _bury(self) -> None:
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.group:
                    self.code = os.waitstatus_to_exitcode(found[1])
        except ChildProcessError:
            self.childless = True

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # there is nothing but the dead in it
            return False
        return True

    def _kill_all(self) -> None:
        deadline = time.monotonic() + AFTER_KILL_SECONDS
        while True:
            self.childless = False
            self._bury()
            if (self.childless and not self._group_lives()) or time.monotonic() > deadline:
                return
            for kill, id in ((os.killpg, self.group), *((os.kill, child) for child in _children())):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(id, signal.SIGKILL)
            time.sleep(0.002)

    def _how_it_ended(self) -> str:
        if self.told:
            return "it was told to stop"
        if self.code is None:
            return "it cannot be ended"
        return f"it ended with exit status {self.code}" if self.code >= 0 else f"it was ended by signal {-self.code}"

    def _write_down(self, how: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # who removed the folder does not ask
            written = self.control / "ended.new"
            written.write_text(how)
            written.rename(self.control / "ended")


def _children() -> list[int]:
    """Those that the service left behind, where the kernel gives them to us."""
    try:
        return [int(id) for id in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _prctl() -> Callable[[int, int], object]:
    if sys.platform != "linux":
        return lambda *_: None
    library = ctypes.CDLL(None)
    return lambda option, value: library.prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
