"""A small disk of its own for the store, so that it can be full for a moment and nobody else suffers."""

import contextlib
import subprocess
from pathlib import Path
from typing import Self

from drydock.testing.hog import Hog


class SmallDisk:
    """A tmpfs that is there as long as the context. Entering it raises `OSError` where that is not allowed."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._full = contextlib.ExitStack()

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
        self.empty()
        # Lazily: whoever had a store open there keeps one of its files open until he ends.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        self.folder.rmdir()

    def fill(self) -> None:
        """Let somebody take all the room that is left, and all that becomes free."""
        self._full.enter_context(Hog(self.folder / "filler"))

    def empty(self) -> None:
        self._full.close()
