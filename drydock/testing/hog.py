"""Somebody who fills a disk, and goes on trying as whoever fills one does: what others give up is his within a millisecond."""

import subprocess
import sys
from pathlib import Path
from typing import Self

CODE = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
parent, size, told = os.getppid(), 2**20, False
while os.getppid() == parent:
    try:
        os.write(file, bytes(size))
    except OSError:
        if size > 1:
            size = max(1, size // 64)
            continue
        if not told:
            told = bool(os.write(1, b"full"))
        size = 4096
        time.sleep(0.001)
"""


class Hog:
    """All the room that is left where `path` is, as long as the context. In it there is none any more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-c", CODE, str(self._path)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.read(4) != b"full":
            self.__exit__()
            raise OSError(f"{self._path.parent} could not be filled")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._path.unlink(missing_ok=True)
