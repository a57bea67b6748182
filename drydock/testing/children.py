"""Real processes that wait for a word: what must happen in a certain order is ordered, never slept for."""

import contextlib
import subprocess
import sys
import threading
from types import TracebackType
from typing import Self

#: a child that says nothing for so long will never say anything
SECONDS = 60.0

PRELUDE = """
import os, select, sys

def say(*words):
    # Not print(): a signal's handler may say something while it is under way, and it can not be begun twice.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def hear():
    # Not in one long read: the handler of a signal that comes just before it would be called when it ends.
    line = b""
    while not line.endswith(b"\\n"):
        while not select.select([0], [], [], 0.05)[0]:
            pass
        if not (byte := os.read(0, 1)):
            break
        line += byte
    return line.decode().strip()
"""


class Child:
    """A Python process that runs `code` with `sys.argv[1:]` = `arguments`, and has `say(...)` and `hear()`.

    As a context manager it ends with the block, by SIGKILL if need be.
    """

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def tell(self, word: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line that it says; "" when it has ended."""
        assert self.process.stdout is not None
        patience = threading.Timer(SECONDS, self.process.kill)
        patience.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            patience.cancel()

    def expect(self, *lines: str) -> None:
        """The next lines that it says are these."""
        assert tuple(self.hear() for _ in lines) == lines

    def rest(self) -> list[str]:
        """All that it says until it ends, which must be well."""
        said = []
        while line := self.hear():
            said.append(line)
        assert self.process.wait(SECONDS) == 0
        return said

    def kill(self) -> None:
        """SIGKILL; when this returns it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def run_together(children: list[Child]) -> list[list[str]]:
    """Let all go on at once when all are ready, and see each to its end: what each said after that."""
    try:
        for child in children:
            child.expect("ready")
        for child in children:
            child.tell()
        return [child.rest() for child in children]
    finally:
        for child in children:
            child.kill()
