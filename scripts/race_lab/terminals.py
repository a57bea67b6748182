"""The two terminals: each runs one real command, as a child with a pipe or in a pane of tmux, and keeps what it says."""

import contextlib
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

GRANTED = re.compile(r"lease (\d+): host ")
SIZE = ("-x", "170", "-y", "24")
PROMPT = "$"


class Line(NamedTuple):
    at: float  #: wall-clock time at which it had been read
    text: str


class Terminal:
    """What both ways have in common: lines, and what can be read from them."""

    def __init__(self, name: str, command: str) -> None:
        self.name, self.command = name, command
        self.lines: list[Line] = []

    def look(self) -> None:
        """Read what is new."""

    def chose_before(self, moment: float) -> bool:
        """Whether it had certainly chosen a host by then: its word was read, not only written."""
        return any(line.text.startswith("chose ") and line.at < moment for line in self.lines)

    @property
    def granted(self) -> int | None:
        """The lease that it was granted."""
        return next((int(found[1]) for line in self.lines if (found := GRANTED.match(line.text))), None)

    @property
    def waiting(self) -> bool:
        return any("waiting for host" in line.text for line in self.lines)

    @property
    def ended(self) -> bool:
        raise NotImplementedError

    @property
    def last(self) -> str:
        return next((line.text for line in reversed(self.lines) if line.text not in ("", PROMPT)), "")


class Child(Terminal):
    """A child process whose output is read through a pipe."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        super().__init__(name, command)
        self.lines.append(Line(time.time(), f"{PROMPT} {command}"))
        words = shlex.split(command)
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        self.process = subprocess.Popen(
            [word for word in words if "=" not in word],
            env={**environment, **settings, "DRYDOCK_OWNER": name},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(Line(time.time(), text.rstrip()))

    @property
    def ended(self) -> bool:
        return not self.reader.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(10)


class Tmux:
    """A tmux server of our own, with one session; a person who runs this in a terminal is attached to it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], check: Callable[[], None]) -> None:
        self.check = check
        self.socket = str(folder / "tmux")
        self.environment = {name: value for name, value in environment.items() if name != "TMUX"}
        self.panes: list[str] = []
        self.attached: subprocess.Popen[bytes] | None = None

    def __call__(self, *arguments: str) -> str:
        line = ["tmux", "-S", self.socket, "-f", os.devnull, *arguments]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, check=True).stdout

    def open(self, name: str, *where: str) -> str:
        """Open one more pane with a shell whose leases are owned by `name`."""
        shell = f"env PS1='{PROMPT} ' DRYDOCK_OWNER={name} sh"
        how = ("split-window", *where, "-t", self.panes[-1]) if self.panes else ("new-session", "-d", *SIZE)
        pane = self(*how, "-P", "-F", "#{pane_id}", shell).strip()
        self.panes.append(pane)
        while PROMPT not in self.text(pane):
            self.check()
            time.sleep(0.02)
        return pane

    def type(self, pane: str, text: str) -> None:
        self("send-keys", "-t", pane, "-l", text)
        self("send-keys", "-t", pane, "Enter")

    def text(self, pane: str) -> str:
        return self("capture-pane", "-p", "-J", "-t", pane)

    def running(self, pane: str) -> str:
        return self("display", "-p", "-t", pane, "#{pane_current_command}").strip()

    def attach(self) -> None:
        self.attached = subprocess.Popen(["tmux", "-S", self.socket, "attach"], env=self.environment)

    def show(self, commands: str) -> None:
        """Type one more line in a pane below the others, and wait until Enter is pressed there."""
        self.type(self.open("store", "-v", "-f"), f"{commands}; printf 'Enter goes on '; read _; exit")
        while self.attached and self.attached.poll() is None:
            self.check()
            if len(self("list-panes").splitlines()) < len(self.panes):
                self.panes.pop()
                return
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever runs is ended by ^C, and has put its things away before the folder goes.
        deadline = time.monotonic() + 10
        for pane in self.panes:
            with contextlib.suppress(subprocess.CalledProcessError):  # somebody closed it
                self("send-keys", "-t", pane, "C-c")
                while self.running(pane) != "sh" and time.monotonic() < deadline:
                    time.sleep(0.02)
        with contextlib.suppress(subprocess.CalledProcessError):
            self("kill-server")
        if self.attached:
            self.attached.wait()


class Pane(Terminal):
    """A pane of tmux, in which the command is typed."""

    def __init__(self, name: str, command: str, tmux: Tmux, pane: str) -> None:
        super().__init__(name, command)
        self.tmux, self.pane = tmux, pane
        tmux.type(pane, command)

    def look(self) -> None:
        # What stood there before keeps its time; a line that lives, such as the one that waits, gets a new one.
        known = {line.text: line.at for line in self.lines}
        text = self.tmux.text(self.pane).rstrip()
        now = time.time()
        self.lines = [Line(known.get(line, now), line.rstrip()) for line in text.splitlines()]

    @property
    def ended(self) -> bool:
        return len(self.lines) > 1 and self.lines[-1].text == PROMPT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The end of tmux is its end."""
