"""Refuse what comes from a holder that has lost its lease: writes, and whatever else is done to a target, by fence.

    fencing.write("/srv/h1/config", data, fence=lease.fence)

A lease is exclusive while its holder respects its deadline. A holder that was stopped for longer than that does not
know that the next one is at work already; what it does late must be refused where it arrives. So beside each target
the largest fence that was ever used there is kept, and a smaller one raises `WrongFence`. An equal one is the same
holder again, and goes on.

For the target `config` the fence is in `config.fence`, a decimal number; `config.fence.lock` is locked (`flock`) from
the look at the fence to the end of the work, so a shell script can take part; both are for their owner's eyes only. The
target must belong to one leased thing, and all that writes to it must come this way.
"""

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from .attributes import LARGEST_INTEGER
from .errors import ConfigError, StoreBusy, StoreError, WrongFence, quoted

#: who is stopped inside a write keeps others from the target, and they are told so after this time
PATIENCE_SECONDS = 10.0
LOOK_EVERY_SECONDS = 0.005

_FENCE = re.compile(rb"[0-9]{1,19}\s*")


def write(path: str | os.PathLike[str], data: bytes | str, *, fence: int) -> None:
    """Replace the content of the file at `path`, all of it or nothing, unless a larger fence was used there.

    It keeps its mode; links to it are followed. Raises `WrongFence`, `StoreBusy` or `StoreError`, and then the content
    is as it was, unless it was only the disk that could not say that the new content is safe.
    """
    target = os.path.realpath(path)
    with guard(target, fence):
        content = data.encode() if isinstance(data, str) else data
        with _told(target):
            _replace(target, content, f"{target}.fence.new", _mode(target))


def check(path: str | os.PathLike[str], fence: int) -> None:
    """Raise `WrongFence` if a larger fence was used for `path`, a file or only a name for something else; from now on
    smaller ones are refused. What is done after this may still come late: where that matters, do it in a `guard`."""
    with guard(path, fence):
        pass


@contextlib.contextmanager
def guard(path: str | os.PathLike[str], fence: int) -> Iterator[None]:
    """`check`, and keep everybody else from the target until the block ends."""
    if type(fence) is not int or not 1 <= fence <= LARGEST_INTEGER:
        raise ConfigError(f"a fence must be a whole number from 1, not {quoted(fence)}; use that of the lease")
    target = os.path.realpath(path)
    with _locked(target):
        with _told(target):
            seen = _seen(target)
        if fence < seen:
            raise WrongFence(target, fence, seen)
        # Before the work, or a crash in between would leave what was done without the fence that protects it, and an
        # older holder could undo it. This way round, what was not done can be done again with the same fence.
        if fence > seen:
            with _told(target):
                _replace(f"{target}.fence", b"%d\n" % fence, f"{target}.fence.new", 0o600)
        yield


@contextlib.contextmanager
def _locked(target: str) -> Iterator[None]:
    with _told(target):
        fd = os.open(f"{target}.fence.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        started = time.monotonic()
        while not _try_lock(fd):
            waited = time.monotonic() - started
            if waited > PATIENCE_SECONDS:
                raise StoreBusy(waited, quoted(target))
            time.sleep(LOOK_EVERY_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked in the block would keep it
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seen(target: str) -> int:
    try:
        with Path(f"{target}.fence").open("rb") as file:
            text = file.read(32)
    except FileNotFoundError:
        return 0
    if not _FENCE.fullmatch(text):
        raise StoreError(f"{quoted(target + '.fence')} holds no fence; write there the largest that was used")
    return int(text)


def _replace(path: str, content: bytes, new: str, mode: int | None) -> None:
    Path(new).unlink(missing_ok=True)  # left over from a crash
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else 0o600)
    with os.fdopen(fd, "wb") as file:
        if mode is not None:
            os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)
    Path(new).replace(path)
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mode(target: str) -> int | None:
    try:
        return stat.S_IMODE(Path(target).stat().st_mode)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _told(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {quoted(target)}: {error.strerror or error}") from error
