"""A small disk of its own for the store, so that it can be full for a moment and nobody else suffers."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """A tmpfs that is there as long as the context. Entering it raises `OSError` where that is not allowed."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        options = f"size={self.size},mode=0700"
        mount = ["mount", "-t", "tmpfs", "-o", options, "torture", str(self.folder)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.folder.rmdir()
            raise OSError("no small disk may be mounted here") from error
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: whoever had a store open there keeps one of its files open until he ends.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        self.folder.rmdir()

    def fill(self) -> None:
        """Take all the room that is left."""
        fd = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        block = bytes(2**20)
        try:
            while True:
                os.write(fd, block)  # the last is cut short
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(fd)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)
