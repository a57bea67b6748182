"""`drydock run` as a real process, around a command that waits for a word."""

import subprocess
import sys
from typing import IO

from conftest import Cli

from drydock.testing.children import PRELUDE, Child

READY = """
import signal, time
def on(number, frame):
    say(signal.Signals(number).name)
"""


class Run(Child):
    """`drydock run -t host OPTIONS -- python -c CODE`; `stderr` is what drydock says. Speaks and hears as a `Child`."""

    stderr: IO[str]

    def __init__(self, cli: Cli, code: str, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            cli.command("run", "-t", "host", *options, "--", sys.executable, "-c", PRELUDE + READY + code),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**cli.environment, **environment},
        )  # fmt: skip
        self.pid = self.process.pid
        assert self.process.stderr is not None
        self.stderr = self.process.stderr

    def end(self) -> tuple[int, str]:
        """Hear no more of the command nor of what it has started, and wait: the exit code, and what stderr says."""
        assert self.hear() == ""
        told = self.stderr.read()
        return self.process.wait(60), told

    def kill(self) -> None:
        super().kill()
        self.stderr.close()
