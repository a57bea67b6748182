"""The process that runs hooks; what it hears and says is in `hooks`.

Three generations, and each does little. The *server* loads kinds, and waits for calls. For each call it forks a *keeper*,
which does nothing but watch one hook: its time, its output, its answer, and whether whoever asked still lives. The keeper
forks the *hook*, which is the leader of a session of its own. Only this last one runs an author's hook. The server is
not threaded and has no database open, so a fork of it is clean, which a fork of its user would not be.

A hook that failed leaves nothing running: its process group is killed, and on Linux also what has left the group, since
orphans come to the keeper there. A hook that succeeded may have left something running on purpose, and that is left
alone. If whoever asked was killed, the hook is killed at once: somebody else will call it again.

That somebody may be faster than the kill. So while a hook is at work on something a file is locked that stands for it;
the keeper and the hook have it locked, but no program that the hook starts. The next keeper waits for it.
"""

import codecs
import contextlib
import fcntl
import json
import os
import resource as limits
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .blueprint import LeaseInfo
from .discovery import FOLDERS, KindClass, describe, load_kind, make
from .errors import BlueprintError, ConfigError, Gone, Refused, Yield
from .hooks import GRACE_SECONDS, ended_how, perform, resource_heard
from .masking import masked
from .prctl import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, find_prctl

#: an answer that is longer is none
MOST_ANSWER_BYTES = 4 * 1024 * 1024
#: what a hook prints beyond this is read and thrown away
SHOWN_CHARACTERS = 1024 * 1024
#: and so is what its caller does not take, because his terminal or pipe is stuck, beyond this
WAITING_BYTES = 256 * 1024
#: of what it printed, so much of the beginning and of the end is kept
KEPT_CHARACTERS = 1000
LOOK_AGAIN_SECONDS = 0.01
#: a process that was killed is gone within this time, unless the kernel cannot end it
GONE_SECONDS = 5.0

Told = dict[str, Any]


def main() -> None:
    """The server: hear calls until nobody can make any more."""
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    channel = Channel()
    prctl = find_prctl()
    kinds: dict[str, KindClass] = {}
    while (line := channel.hear()) is not None:
        if line == b"stop":  # it came when there was nothing left to stop
            continue
        call = json.loads(line)
        channel.say({"heard": True})
        name = call["kind"]
        try:
            if name not in kinds:
                kinds[name] = _load(call)
        except BlueprintError as error:
            channel.say({"ended": "import", "about": error.blueprint, "step": error.step, "reason": error.reason})
            continue
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        keeper = os.fork()
        if keeper == 0:
            code = 1
            try:
                Keeper(channel, prctl, kinds[name], call).keep()
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(keeper, 0)[1]
        if status != 0:
            channel.say({}, {"ended": "lost"})


def _load(call: Told) -> KindClass:
    name = call["kind"]
    # Not an exception, which the author's code could catch: this process ends, and that is seen.
    signal.setitimer(signal.ITIMER_REAL, call["import_seconds"])
    try:
        return load_kind(name, {FOLDERS: call["kinds"]})
    except ConfigError as error:  # it was there when the pool file was applied
        raise BlueprintError(call["blueprint"], "import", str(error)) from error
    except KeyboardInterrupt as error:
        raise BlueprintError(name, "import", describe(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Channel:
    """The pipes to whoever calls. They get numbers of their own, so that nothing which is printed gets into them."""

    def __init__(self) -> None:
        self.reading, self.writing = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)
        os.set_blocking(self.writing, False)
        #: becomes readable when the caller is dead, even if a child of his keeps the pipe open; None: no such thing here
        self.caller: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            self.caller = os.pidfd_open(os.getppid())
        self._heard = b""
        self._unsaid = b""

    def hear(self) -> bytes | None:
        """The next line; None: the caller is gone."""
        with selectors.DefaultSelector() as selector:
            self.register(selector)
            while True:
                lines = self.lines(1)
                if lines:
                    return lines[0]
                if any(key.fd == self.caller for key, _ in selector.select()) or not self.take():
                    return None

    def register(self, selector: selectors.BaseSelector) -> None:
        selector.register(self.reading, selectors.EVENT_READ)
        if self.caller is not None:
            selector.register(self.caller, selectors.EVENT_READ)

    def take(self) -> bool:
        """Read what is there, or wait for it. False: nobody will write any more."""
        data = os.read(self.reading, 1 << 16)
        self._heard += data
        return bool(data)

    def lines(self, most: int) -> list[bytes]:
        """Lines that were read."""
        *found, rest = self._heard.split(b"\n", most)
        self._heard = rest
        return found

    def say(self, *told: Told) -> None:
        """Say it, however long that takes."""
        self.add(*told)
        with selectors.DefaultSelector() as selector:
            selector.register(self.writing, selectors.EVENT_WRITE)
            if self.caller is not None:
                selector.register(self.caller, selectors.EVENT_READ)
            while self.flush():
                if any(key.fd == self.caller for key, _ in selector.select()):
                    return

    def add(self, *told: Told) -> None:
        """Say it by and by."""
        self._unsaid += b"".join(json.dumps(one).encode() + b"\n" for one in told)

    def flush(self) -> int:
        """Write what can be written now; return how much is left."""
        try:
            self._unsaid = self._unsaid[os.write(self.writing, self._unsaid) :] if self._unsaid else b""
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsaid = b""
        return len(self._unsaid)

    def close(self) -> None:
        for fd in (self.reading, self.writing, self.caller):
            if fd is not None:
                os.close(fd)


class Output:
    """What a hook has printed: its beginning, its end, and how much there was in between."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._head = self._tail = ""
        self._left_out = 0

    def take(self, data: bytes) -> str:
        """Keep it, and return it as text."""
        text = self._decoder.decode(data).replace("\0", "\\x00")  # which not every store can keep
        self._tail += text
        missing = KEPT_CHARACTERS - len(self._head)
        self._head, self._tail = self._head + self._tail[:missing], self._tail[missing:]
        self._left_out += len(self._tail[:-KEPT_CHARACTERS])
        self._tail = self._tail[-KEPT_CHARACTERS:]
        return text

    @property
    def kept(self) -> str:
        """Of all of it what is kept, for everybody to read."""
        between = f"\n[{self._left_out} characters left out]\n" if self._left_out else ""
        return masked(self._head + between + self._tail)


class Keeper:
    """Watches one hook, from its start to its end. `keep` is called once, in a process of its own."""

    def __init__(self, channel: Channel, prctl: Callable[[int, int], object], kind: KindClass, call: Told) -> None:
        self.channel, self.prctl, self.kind, self.call = channel, prctl, kind, call
        self.limit = float(kind.time_limit)
        self.output = Output()
        self.shown, self.shows = 0, True
        self.answer = b""
        self.hook = 0
        self._answer = self._printed = self._woken = -1
        self.lock: Lock | None = None
        self.status: int | None = None  # of the hook, when it has ended
        self.why = ""  # it is to end: what is told of it then
        self.deadline = 0.0
        self.caller_is_gone = False

    def keep(self) -> None:
        self.channel.add({"limit": self.limit})
        with selectors.DefaultSelector() as self.selector:
            self.channel.register(self.selector)
            if self._get_lock():
                self._start()
                self._watch()
                told = self._end()
                if self.lock:
                    self.lock.release()
            elif self.why:
                told = {"ended": "failed", "reason": self.why}
            else:
                told = {"ended": "later", "after": 1.0, "reason": "another process is still at work on it"}
        if not self.caller_is_gone:
            self.channel.say(told)

    # ---- one at a time

    def _get_lock(self) -> bool:
        if self.call["lock"] is None:
            return True
        give_up_at = time.monotonic() + self.limit
        try:
            self.lock = Lock(self.call["lock"])
            while not self.lock.take():
                if self._hear(LOOK_AGAIN_SECONDS) or time.monotonic() > give_up_at:
                    return False
        except OSError:  # a full disk must not keep anything from being given back; the store's claim has to do
            self.lock = None
        return True

    # ---- the hook

    def _start(self) -> None:
        answer, answering = os.pipe()
        printed, printing = os.pipe()
        self._woken, waking = os.pipe()
        for fd in (printed, self._woken, waking):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._here(self.call["environment"], self.call["folder"])
        keeper = os.getpid()
        self.hook = os.fork()
        if self.hook == 0:
            code = 1
            try:
                os.setsid()
                self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == keeper:
                    self._become_hook(printing, (answer, printed, self._woken, waking))
                    code = _act(self.kind, self.call, answering)
            finally:
                os._exit(code)
        os.close(answering)
        os.close(printing)
        self._answer, self._printed = answer, printed
        for fd in (answer, printed, self._woken):
            self.selector.register(fd, selectors.EVENT_READ)
        self.deadline = time.monotonic() + self.limit
        self.channel.add({"began": self.hook})

    def _here(self, environment: Mapping[str, str], folder: str | None) -> None:
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)

    def _become_hook(self, printing: int, others: tuple[int, ...]) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.dup2(printing, 1)
        os.dup2(printing, 2)
        self.channel.close()
        self.selector.close()
        for fd in (printing, *others):
            os.close(fd)
        with contextlib.suppress(ValueError, OSError):
            limits.setrlimit(limits.RLIMIT_CORE, (0, limits.getrlimit(limits.RLIMIT_CORE)[1]))

    # ---- the watch

    def _watch(self) -> None:
        """Until there is an answer, or the hook has ended, or is to end and has had its time for that."""
        while self.status is None and not self.caller_is_gone:
            if self.answer.endswith(b"\n") and not self.why:
                return
            left = self.deadline - time.monotonic()
            if left <= 0:
                if self.why:
                    return
                self._ask_to_end(f"it took longer than its {self.limit:g}s and was killed")
            self._hear(max(0.0, min(left, 60.0)))

    def _ask_to_end(self, why: str) -> None:
        if not self.why:
            self.why = why
            self.deadline = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # what is stopped would not hear it

    def _hear(self, seconds: float) -> bool:
        """Wait for whatever there may be to hear. True: it is not wanted any more."""
        if self.channel.flush():
            with contextlib.suppress(KeyError):
                self.selector.register(self.channel.writing, selectors.EVENT_WRITE)
        for key, _ in self.selector.select(seconds):
            self._heard(key.fd)
        return bool(self.why)

    def _heard(self, fd: int) -> None:
        if fd == self.channel.writing:
            if not self.channel.flush():
                self.selector.unregister(fd)
        elif fd == self.channel.caller:
            self._caller_is_gone()
        elif fd == self.channel.reading:
            if not self.channel.take():
                self._caller_is_gone()
            elif b"stop" in self.channel.lines(-1):
                self._ask_to_end("it was interrupted")
        elif fd == self._woken:
            os.read(fd, 4096)
            self._bury()
        elif fd == self._printed:
            self._take_output()
        else:
            self._take_answer()

    def _caller_is_gone(self) -> None:
        self.caller_is_gone = True
        self.why = self.why or "nobody wants it any more"

    def _take_output(self) -> bool:
        try:
            data = os.read(self._printed, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self.selector.unregister(self._printed)
            return False
        self._show(self.output.take(data))
        return True

    def _show(self, text: str) -> None:
        if not self.shows:
            return
        self.shown += len(text)
        self.shows = self.shown <= SHOWN_CHARACTERS and self.channel.flush() < WAITING_BYTES
        self.channel.add({"output": text if self.shows else "\n[what else it prints is not shown]\n"})

    def _take_answer(self) -> None:
        data = os.read(self._answer, 1 << 16)
        self.answer += data
        if not data or len(self.answer) > MOST_ANSWER_BYTES:
            self.selector.unregister(self._answer)
            if data:
                self.why = f"its answer is longer than {MOST_ANSWER_BYTES} bytes"
                self.deadline = 0.0

    def _bury(self) -> None:
        """See what became of the hook, and of the orphans that came to us."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self.hook:
                    self.status = status

    # ---- the end

    def _end(self) -> Told:
        """How it ended. If that was not well, nothing of it is left when this returns."""
        if not self.why and not self.answer.endswith(b"\n"):  # it has died, maybe right after it answered
            os.set_blocking(self._answer, False)
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self._answer, 1 << 16):
                    self.answer += data
        told = {"ended": "failed", "reason": self.why} if self.why else self._answered()
        if told["ended"] == "returned":
            self._see_it_go()
        else:
            self._kill_all()
        while self._take_output_left():
            pass
        self.channel.flush()
        return {**told, "output_kept": self.output.kept}

    def _take_output_left(self) -> bool:
        return self._printed in self.selector.get_map() and self._take_output()

    def _answered(self) -> Told:
        if not self.answer:
            assert self.status is not None
            return {"ended": "failed", "reason": f"its process {ended_how(os.waitstatus_to_exitcode(self.status))}"}
        try:
            told = json.loads(self.answer)
            assert told["ended"] in ("returned", "later", "gone", "failed", "import")
        except (ValueError, TypeError, KeyError, AssertionError, RecursionError):
            return {"ended": "failed", "reason": "bad answer from its process"}
        return dict(told)

    def _signal(self, number: int) -> None:
        if self.hook:
            with contextlib.suppress(OSError):
                os.killpg(self.hook, number)

    def _see_it_go(self) -> None:
        """It has answered, and has nothing left to do. What it started is none of our business."""
        until = time.monotonic() + GONE_SECONDS
        while self.status is None:
            if time.monotonic() > until:
                with contextlib.suppress(OSError):
                    os.kill(self.hook, signal.SIGKILL)
            self._hear(LOOK_AGAIN_SECONDS)

    def _kill_all(self) -> None:
        """Kill the group; and the orphans, which come to us as their parents die, until there are none."""
        until = time.monotonic() + GONE_SECONDS
        while time.monotonic() < until:
            self._signal(signal.SIGKILL)
            for pid in _children():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self._bury()
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            time.sleep(0.001)


def _children() -> list[int]:
    """The processes whose parent we are; none where the system does not list them."""
    own = str(os.getpid()).encode()
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                    if file.read().rpartition(b") ")[2].split(b" ")[1] == own:
                        found.append(int(name))
    return found


def _act(kind: KindClass, call: Told, answering: int) -> int:
    """In the hook's process: call the hook and answer. Returns what to exit with."""
    here = os.getpid()
    # Those of the server know of another file.
    for name, fd in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(fd, "w", buffering=1, errors="backslashreplace", closefd=False))
    try:
        resource = call["resource"] and resource_heard(call["resource"])
        lease = call["lease"] and LeaseInfo(*call["lease"])
        blueprint = make(kind, call["blueprint"], call["settings"], call["source"])
        told = {"ended": "returned", "answer": perform(blueprint, call["hook"], resource, lease, call["held"])}
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure, and told
        told = _raised(error)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if os.getpid() != here:  # it forked, and this is not the one that was asked
        return 0
    data = json.dumps(told).encode() + b"\n"
    while data:
        data = data[os.write(answering, data) :]
    return 0


def _raised(error: BaseException) -> Told:
    if isinstance(error, BlueprintError):
        return {"ended": "import", "about": error.blueprint, "step": error.step, "reason": error.reason}
    reason = describe(error)
    text = reason.partition(": ")[2]
    if isinstance(error, Yield):
        return {"ended": "later", "after": error.after, "reason": text}
    if isinstance(error, Gone):
        return {"ended": "gone", "reason": text}
    if os.environ.get("DRYDOCK_DEBUG") == "1":
        import traceback

        with contextlib.suppress(Exception):
            traceback.print_exception(error)
    meant = next((kind.__name__ for kind in (Refused, ConfigError) if isinstance(error, kind)), None)
    return {"ended": "failed", "reason": reason, "meant": meant and [meant, text]}


def _flush(stream: Any) -> None:
    with contextlib.suppress(Exception):
        stream.flush()


class Lock:
    """A file that is locked by whoever is at work on what it stands for; there is none when nobody is."""

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path), 0o700)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Whether we have it now."""
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
                    return True
            # Whoever had it before has taken the file away: this is the lock of nothing.
            os.close(self._fd)
            self._open()

    def release(self) -> None:
        # Unlocked, not just closed: a fork of the hook that lives on has it, too.
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
