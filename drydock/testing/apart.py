"""Run a piece of an author's code in a process of its own, with a time limit, and kill it in the middle if told to.

A crash cannot be an exception: `finally` would run, and files would be flushed. So the code runs in a forked child, which
sends itself SIGKILL at a chosen moment. The moments are counted: one before each line of the author's own, and one
before each effect that Python tells its audit hooks of, wherever it comes from: a file opened to be written, a folder
made or removed, a process started.
"""

import contextlib
import importlib
import importlib.util
import inspect
import json
import linecache
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Never

from ..discovery import describe

LOOKS_PER_SECOND = 20

#: audit events that come right before something outside changes
EFFECTS = {
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.kill", "os.killpg", "os.link", "os.mkdir", "os.posix_spawn",
    "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate", "socket.bind", "socket.connect",
    "socket.sendto", "sqlite3.connect", "subprocess.Popen",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Ended(NamedTuple):
    """How a piece of work ended."""

    answer: Any = None  #: what it returned
    error: str = ""  #: what it raised: class and message
    errors: tuple[str, ...] = ()  #: the names of that class and its bases
    moments: int = 0  #: how many moments there were to crash in
    crashed_at: str = ""  #: the line that it was killed at, as it was told to
    hung: bool = False  #: it was killed because its time was up
    died: bool = False  #: it ended in another way than by returning or raising


class Code(NamedTuple):
    """Which code is the author's."""

    files: frozenset[str]
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: type) -> "Code":
        """The files of `kind` and of its bases outside drydock.blueprint, and the packages that they are in."""
        files, folders = set(), set()
        for base in kind.__mro__:
            if base.__module__ in ("builtins", "drydock.blueprint"):
                continue
            file = inspect.getsourcefile(base) or ""
            files.add(file)
            if "." in base.__module__:
                folders.add(str(Path(file).parent) + os.sep)
        return cls(frozenset(files), tuple(folders))

    def has(self, file: str) -> bool:
        return file in self.files or file.startswith(self.folders)


def apart(do: Callable[[], Any], *, seconds: float, folder: Path, code: Code | None = None, crash_at: int = 0) -> Ended:
    """Run `do` in a child process that starts in `folder`, and tell how it ended. What it returns must be JSON.

    With `code`, its moments are counted; with `crash_at`, it is killed at that one, with the processes of its group.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Our child takes no lock that another thread of ours may hold: it runs the author's code and is gone.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(reading)
        _child(do, writing, folder, code, crash_at)
    os.close(writing)
    try:
        return _listen(pid, reading, seconds)
    finally:
        os.close(reading)


def _listen(pid: int, reading: int, seconds: float) -> Ended:
    said = b""
    ended = False
    until = time.monotonic() + seconds
    while not said.endswith(b"\n") and time.monotonic() < until:
        # A process that it left behind may keep the pipe open, so its end alone would not tell us.
        if select.select([reading], [], [], 1 / LOOKS_PER_SECOND)[0]:
            more = os.read(reading, 1 << 16)
            if not more:
                break
            said += more
        elif ended:
            break
        else:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    else:
        if not said.endswith(b"\n"):
            _kill(pid)
            os.waitpid(pid, 0)
            return Ended(hung=True, error=f"it had not returned after {seconds:g} s")
    told: dict[str, Any] = json.loads(said) if said.endswith(b"\n") else {}
    if told.get("crashed_at"):
        os.waitpid(pid, 0)
        _kill(pid)  # what it started dies with it, as in Drydock
        return Ended(crashed_at=told["crashed_at"])
    status = os.waitpid(pid, 0)[1]
    if not told:
        code = os.waitstatus_to_exitcode(status)
        return Ended(
            died=True, error=f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        )
    return Ended(told["answer"], told["error"], tuple(told["errors"]), told["moments"])


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not have come to have a group of its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _child(do: Callable[[], Any], writing: int, folder: Path, code: Code | None, crash_at: int) -> Never:
    with contextlib.suppress(BaseException):
        os.setsid()
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        fuse = _Fuse(writing, code or Code(frozenset()), crash_at)
        told: dict[str, Any] = {"answer": None, "error": "", "errors": []}
        try:
            with fuse if code else contextlib.nullcontext():
                told["answer"] = do()
        except BaseException as error:  # noqa: BLE001 - whatever an author's code may raise is told
            told |= {"error": describe(error), "errors": [base.__name__ for base in type(error).__mro__]}
        _tell(writing, {**told, "moments": fuse.moments})
    os._exit(0)


def _tell(writing: int, told: Mapping[str, Any]) -> None:
    data = json.dumps(told).encode() + b"\n"
    while data:
        data = data[os.write(writing, data) :]


class _Fuse:
    """Counts the moments of this process, and ends it at one of them."""

    def __init__(self, writing: int, code: Code, crash_at: int) -> None:
        self.writing, self.code, self.crash_at = writing, code, crash_at
        self.process = os.getpid()
        self.moments = 0
        self.lit = False

    def __enter__(self) -> None:
        sys.addaudithook(self._audit)
        self.lit = True
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.lit = False

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if self.code.has(frame.f_code.co_filename) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._tick(frame)
        return self._line

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.lit or not (event in EFFECTS or (event == "open" and _writes(arguments))):
            return
        frame: FrameType | None = sys._getframe()
        while frame is not None and not self.code.has(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None:
            self._tick(frame, event)

    def _tick(self, frame: FrameType, event: str = "") -> None:
        if os.getpid() != self.process:
            return
        self.moments += 1
        if self.moments == self.crash_at:
            self.lit = False
            sys.settrace(None)
            file, line = frame.f_code.co_filename, frame.f_lineno
            text = linecache.getline(file, line).strip()
            within = f", before {event}" if event else ""
            _tell(self.writing, {"crashed_at": f"{Path(file).name} line {line}{within}: {text}"})
            os.kill(self.process, signal.SIGKILL)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 3 and isinstance(arguments[2], int) and bool(arguments[2] & _WRITING)


# ---- an interpreter of its own


def imported(module: str, name: str, file: str) -> Any:
    """The class `name` of `module`, or of `file` where nobody can import the module by its name."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        found = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    result: Any = found
    for part in name.split("."):
        result = getattr(result, part)
    return result


def in_another_interpreter(function: str, given: Any, *, seed: int, seconds: float, folder: Path) -> Ended:
    """Call `function`, "module:name", with `given` in an interpreter of its own, which orders sets as `seed` says."""
    code = (
        "import json, sys; sys.path[:], f, g = json.load(sys.stdin); from drydock.testing.apart import call; call(f, g)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps([sys.path, function, given]),
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
    except subprocess.TimeoutExpired:
        return Ended(hung=True, error=f"it had not returned after {seconds:g} s")
    told = done.stdout.splitlines()[-1:]
    if done.returncode or not told:
        return Ended(
            died=True, error=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "its process died"
        )
    return Ended(*json.loads(told[0]))


def call(function: str, given: Any) -> None:
    """In that other interpreter: call it, and print how it ended."""
    out, sys.stdout = sys.stdout, sys.stderr
    module, _, name = function.partition(":")
    try:
        ended = Ended(getattr(importlib.import_module(module), name)(given))
    except BaseException as error:  # noqa: BLE001 - whatever an author's code may raise is told
        ended = Ended(error=describe(error), errors=tuple(base.__name__ for base in type(error).__mro__))
    print(json.dumps(ended), file=out)
