"""What is kept for endings is bytes that are there, however many spend it."""

import errno
import os
from pathlib import Path

import pytest

from drydock.store import reserve as module
from drydock.store.reserve import Reserve


def test_what_another_spends_meanwhile_is_not_kept_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is cut to a length that it no longer has becomes longer, with no room behind it."""
    reserve = Reserve(str(tmp_path / "x.reserve"))
    assert reserve.take()
    log = os.open(tmp_path / "x.db-wal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    write = os.write

    def write_on_a_full_disk(fd: int, data: bytes) -> int:
        os.truncate(reserve.path, 0)  # by a process that opens the store just now
        monkeypatch.setattr(module.os, "write", write)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "write", write_on_a_full_disk)
    reserve.spend(log, 64 * 1024)
    os.close(log)
    assert reserve.left() == 0
