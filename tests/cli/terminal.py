"""The real command on a real terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from typing import NamedTuple

from conftest import Cli

#: what rich may send: colours, the cursor shown and hidden, and a line that is written anew
_HARMLESS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AKG]|\r")


class Seen(NamedTuple):
    code: int
    raw: str

    @property
    def text(self) -> str:
        """What a person reads."""
        return _HARMLESS.sub("", self.raw)

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line that has any."""
        return [line.split() for line in self.text.splitlines() if line.strip()]


class Terminal:
    """A command whose stdin, stdout and stderr are one terminal."""

    def __init__(self, cli: Cli, *arguments: str, columns: int = 100, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        known = {name: value for name, value in cli.environment.items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            cli.command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**known, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(theirs)
        self._raw = b""

    def read_until(self, words: str) -> None:
        """Read on until it has shown `words`."""
        while words not in self.seen_so_far.text:
            if not self._read():
                raise AssertionError(f"it never said {words!r}, but {self._raw!r}")

    def finish(self) -> Seen:
        """Read to the end."""
        while self._read():
            pass
        self.process.wait(60)
        os.close(self._ours)
        return self.seen_so_far

    @property
    def seen_so_far(self) -> Seen:
        code = self.process.returncode
        return Seen(-1 if code is None else code, self._raw.decode(errors="replace"))

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # it has ended
            return False
        self._raw += data
        return bool(data)


def on_a_terminal(cli: Cli, *arguments: str, columns: int = 100, **environment: str) -> Seen:
    return Terminal(cli, *arguments, columns=columns, **environment).finish()
