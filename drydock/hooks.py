"""Call a blueprint's hook, in a process of its own or right here.

What a hook does in a process of its own can end that process and nothing else. It is started by a server that loads
kinds, and that is started with the first hook; see `hook_process` for what happens on that side. Who never runs a hook
pays for none of it.

What goes over the pipes between the two is JSON, one object per line. We send a call, and "stop" if we want it to end
early; back come the process number as soon as the hook has begun, what it prints as it comes, and in the end how it
ended.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .blueprint import Builder, LeaseInfo, Local, Pool, ResourceInfo, Ssh, Support
from .discovery import FOLDERS, describe
from .errors import BlueprintError, ConfigError, Gone, Refused, Terminated, Yield, printable

if TYPE_CHECKING:
    import subprocess

#: after its time limit, or when its caller wants it to end, a hook has so long to clean up before it is killed
GRACE_SECONDS = 2.0
#: an import that takes longer hangs
IMPORT_SECONDS = 30.0
#: more than this a hook cannot answer
MOST_NAMES = 100_000
#: after the server should have ended a hook, and has not
LATE_SECONDS = 10.0
#: what a hook may raise that means something
MEANT: dict[str, type[Exception]] = {"Gone": Gone, "Refused": Refused, "ConfigError": ConfigError}

_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from drydock.hook_process import main; main()"


class Call(NamedTuple):
    """One call of one hook: whose, which, and about what."""

    blueprint: str
    kind: str
    settings: Mapping[str, Any]
    source: Mapping[str, Any] | None
    hook: str
    resource: ResourceInfo | None
    lease: LeaseInfo | None
    held: frozenset[str] | None  #: for `missing`
    config: int  #: kinds are loaded anew when this is another one
    environment: Mapping[str, str]  #: where kinds are looked for
    lock: str | None  #: a file that is locked while the hook is at work
    here: Callable[[], Pool | Builder]  #: the blueprint's object in this process


class Came(NamedTuple):
    """What came of it."""

    error: Yield | Gone | BlueprintError | None = None
    answer: Any = None
    output: str = ""  #: what it printed; the middle is left out when that is much


class HookRunner(Protocol):
    """Calls hooks, one after the other."""

    def run(self, call: Call) -> Came:
        """Call it and return when it has ended; of what it leaves behind after it failed, nothing runs any more."""

    def close(self) -> None:
        """No more hooks. May be called twice."""


def perform(
    blueprint: Pool | Builder,
    hook: str,
    resource: ResourceInfo | None,
    lease: LeaseInfo | None,
    held: Iterable[str] | None,
) -> Any:
    """Call the hook in this process, and see that it returned or raised what it may."""
    about = (resource, lease, None if held is None else frozenset(held))
    try:
        answer = getattr(blueprint, hook)(*(one for one in about if one is not None))
    except Yield as later:
        if not isinstance(later.after, int | float) or not 0 <= later.after < math.inf:
            raise TypeError(f"must ask to be called again after seconds, not {printable(later.after)}") from later
        raise
    if hook == "missing":
        names = list(islice(answer, MOST_NAMES))
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if isinstance(answer, str) or wrong is not None:
            raise TypeError(f"must give names, not {type(answer if wrong is None else wrong).__name__}")
        return names
    # A generator or a coroutine has done nothing yet, and who returns False means that it failed.
    if answer is not None:
        if isinstance(answer, CoroutineType):
            answer.close()
        raise TypeError(f"must return nothing, not {type(answer).__name__}")
    return None


class InProcess:
    """Hooks run right here: without a time limit, and what one does to this process is done to us."""

    def run(self, call: Call) -> Came:
        try:
            blueprint = call.here()  # which asks the store, whose errors are not the author's
        except BlueprintError as error:
            return Came(error)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for our answers alone
                return Came(answer=perform(blueprint, call.hook, call.resource, call.lease, call.held))
        except (KeyboardInterrupt, Terminated):
            raise
        except (Yield, Gone) as error:
            return Came(error)
        except BaseException as error:  # noqa: BLE001 - foreign code must not be able to end us
            failed = BlueprintError(call.blueprint, call.hook, describe(error))
            failed.__cause__ = error
            return Came(failed)

    def close(self) -> None:
        pass


class OwnProcess:
    """Each hook runs in a process of its own, with the time limit of its kind. For one thread."""

    def __init__(self) -> None:
        self._server: _Server | None = None

    def run(self, call: Call) -> Came:
        line = _request(call)
        try:
            server = self._server
            if server is not None and server.is_fit(call.config):
                with contextlib.suppress(_DeadError):  # it was killed since the last hook
                    return server.call(call, line)
            self.close()
            self._server = _Server(call.config)
            return self._server.call(call, line)
        except (OSError, _DeadError) as error:
            reason = f"its process cannot be started: {describe(error)}"
            return Came(BlueprintError(call.blueprint, call.hook, reason))

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end()


class _DeadError(Exception):
    """The server was dead before it heard of the call."""


class _Server:
    """The process that loads kinds, and forks one for each hook; `config` is what was offered when it began."""

    def __init__(self, config: int) -> None:
        import subprocess
        import weakref

        self._config = config
        path = json.dumps([folder for folder in sys.path if isinstance(folder, str)])
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-P", "-c", _CODE, path],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._writing, self._reading = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._owner = os.getpid()
        self._said = b""
        self._heard = False  # of the call that is on
        self._hook: int | None = None  # the process group of the hook that is at work
        self._until = 0.0
        #: also when nobody closes us, and when the interpreter ends
        self.end = weakref.finalize(self, _end, self._process)

    def is_fit(self, config: int) -> bool:
        # What forked us has it, and not we.
        return self.end.alive and config == self._config and self._owner == os.getpid()

    def call(self, call: Call, line: bytes) -> Came:
        """Raises `_DeadError`; ^C and the end stop the hook before they go on."""
        self._heard, self._hook = False, None
        self._wait_for(IMPORT_SECONDS)
        try:
            self._send(line)
        except BrokenPipeError:
            raise _DeadError("its server has ended") from None
        except BaseException:
            self.end()  # it has heard half a sentence
            raise
        try:
            return self._listen(call)
        except _DeadError:
            raise
        except BaseException:
            self._stop(call)
            raise

    def _stop(self, call: Call) -> None:
        try:
            self._send(b"stop\n")
            self._wait_for(GRACE_SECONDS)
            self._listen(call)
        except (BrokenPipeError, _DeadError):
            self._kill()
        except BaseException:  # a second ^C
            self._kill()
            raise

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._writing, data) :]

    def _wait_for(self, seconds: float) -> None:
        self._until = monotonic() + seconds + LATE_SECONDS

    def _listen(self, call: Call) -> Came:
        """Hear how it ends."""
        limit = 0.0
        while (told := self._next()) is not None:
            self._heard = True
            if "output" in told:
                _show(told["output"])
            if "limit" in told:
                limit = told["limit"]
                self._wait_for(limit + GRACE_SECONDS)
            if "began" in told:
                self._hook = told["began"]
                self._wait_for(limit + GRACE_SECONDS)
            if "ended" in told:
                if told["ended"] == "lost":
                    self._kill()
                self._hook = None
                return _came(call, told)
        return self._lost(call)

    def _lost(self, call: Call) -> Came:
        """The server has ended, or hangs."""
        hangs, has_begun = monotonic() >= self._until, self._hook is not None
        if not hangs and not self._heard:
            raise _DeadError("its server has ended")
        self._kill(patiently=not hangs)
        if has_begun:
            return _failed(call, f"the process that watched it {'hung' if hangs else 'was killed'}")
        how = ended_how(self._process.wait())
        slow = hangs or how.endswith("SIGALRM")
        why = f"it took longer than {IMPORT_SECONDS:g}s and was killed" if slow else f"its process {how}"
        return Came(BlueprintError(call.kind, "import", why))

    def _next(self) -> dict[str, Any] | None:
        """The next thing that it says; None: it has ended, or it hangs."""
        from select import POLLIN, poll

        poller = poll()
        poller.register(self._reading, POLLIN)
        while True:
            line, newline, rest = self._said.partition(b"\n")
            if newline:
                self._said = rest
                with contextlib.suppress(ValueError):  # half a line of who was killed
                    told = json.loads(line)
                    if isinstance(told, dict):
                        return told
                continue
            left = self._until - monotonic()
            if left <= 0 or not poller.poll(min(left, 60.0) * 1000):
                if left <= 0:
                    return None
                continue
            data = os.read(self._reading, 1 << 16)
            if not data:
                return None
            self._said += data

    def _kill(self, *, patiently: bool = False) -> None:
        """Nothing of the hook, nor of the server, goes on. `patiently`: the server is about to end by itself."""
        from signal import SIGKILL

        if self._hook is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._hook, SIGKILL)
        if patiently:
            self._process.wait()
        self.end()


def _end(process: "subprocess.Popen[bytes]") -> None:
    from signal import SIGKILL

    if process.poll() is None:  # for who was forked from us it is no child, and counts as dead
        with contextlib.suppress(OSError):
            os.killpg(process.pid, SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def ended_how(code: int) -> str:
    """How a process ended that did not say so itself."""
    from signal import Signals

    if code >= 0:
        return f"exited with {code}"
    try:
        return f"died of {Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"


def _came(call: Call, told: dict[str, Any]) -> Came:
    output = told.get("output_kept", "")
    match told["ended"]:
        case "returned":
            return Came(answer=told["answer"], output=output)
        case "later":
            return Came(Yield(told["after"], told["reason"]), output=output)
        case "gone":
            return Came(Gone(told["reason"]), output=output)
        case "import":
            return Came(BlueprintError(told["about"], told["step"], told["reason"]), output=output)
        case "lost":
            return _failed(call, "the process that watched it has ended")
    return _failed(call, told["reason"], told.get("meant"), output)


def _failed(call: Call, reason: str, meant: list[str] | None = None, output: str = "") -> Came:
    error = BlueprintError(call.blueprint, call.hook, reason)
    if meant:
        error.__cause__ = MEANT[meant[0]](meant[1])
    return Came(error, output=output)


def _show(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


# ---- a call, as it is told to the other side


def _request(call: Call) -> bytes:
    try:
        folder = os.getcwd()
    except OSError:
        folder = None
    return json.dumps(
        {
            "blueprint": call.blueprint, "kind": call.kind, "settings": call.settings, "source": call.source,
            "hook": call.hook, "resource": call.resource and _resource_told(call.resource), "lease": call.lease,
            "held": None if call.held is None else sorted(call.held),
            "kinds": call.environment.get(FOLDERS, ""), "lock": call.lock,
            "environment": dict(os.environ), "folder": folder, "import_seconds": IMPORT_SECONDS,
        }
    ).encode() + b"\n"  # fmt: skip


def _resource_told(resource: ResourceInfo) -> list[Any]:
    on = resource.on
    if on is None:
        return list(resource)
    way = on.interface and [type(on.interface).__name__, on.interface._asdict()]
    return [*resource[:-1], {**on._asdict(), "interface": way}]


def resource_heard(told: list[Any]) -> ResourceInfo:
    """The resource that a request is about."""
    id, name, type_, attributes, on = told
    if on is not None:
        way = on["interface"] and {"Local": Local, "Ssh": Ssh}[on["interface"][0]](**on["interface"][1])
        on = Support(**{**on, "interface": way})
    return ResourceInfo(id, name, type_, attributes, on)
