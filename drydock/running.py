"""A command that runs while leases are held: its processes, its signals, its terminal, and the end of its time.

One thread and one loop: a signal, the end of the command, news of the leases and the next moment that matters all end
the same wait. The command is the leader of a process group of its own, and what is done to it is done to the group.

Two things must happen when this process cannot do them, because it was killed, stopped, or hangs in a dead disk: a
command whose lease is gone must not go on. So a second process, the guard, does nothing but wait at a pipe. When the
pipe's other end dies, or the deadline that it was told passes, it kills the group. It kills at once: the lease is gone
at that moment and somebody else may hold the thing, so there is no time left to ask politely. Where we still live but
are stopped, or wait for a server that does not answer, it sends the SIGTERM that we should have sent by then. Where the guard is
killed together with us, Linux still kills the command itself (PR_SET_PDEATHSIG), though not what it has started.
Where the kernel has it (PR_SET_CHILD_SUBREAPER) we bury what the command leaves behind, since the first process of a
container often does not, and a group is gone only when its dead are buried. What leaves the group (a daemon, a job of an interactive shell) escapes all of this.
"""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, Self

from .errors import DrydockError, LeaseLost, NotFound, quoted
from .prctl import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, find_prctl
from .uptime import uptime

if TYPE_CHECKING:
    from socket import socket

NOT_EXECUTABLE = 126
NO_SUCH_COMMAND = 127
LOST = 124

#: what is done to us is done to the command, too
PASSED_ON = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGTSTP,
)  # fmt: skip
HEARD = (*PASSED_ON, signal.SIGCHLD, signal.SIGCONT)
#: the interpreter ignores them for itself, and a command expects them as the system has them
IGNORED_BY_PYTHON = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name))

LOOK_AGAIN_SECONDS = 1.0
RETRY_SECONDS = 0.25
#: how soon it is seen that the last of a group is gone, which no signal tells
REMAINS_SECONDS = 0.02
#: when so much of the grace is left and we have not asked the command to end, the guard does
LATE = 0.75
#: after SIGKILL, for what the kernel cannot end
AFTER_KILL_SECONDS = 1.0
#: a deadline is kept so much too early, or by a tenth of the time if that is less
MARGIN_SECONDS = 1.0
JITTER_SECONDS = 0.01
#: the first descriptor that is handed over; the protocol is systemd's, sd_listen_fds(3)
FIRST_HANDED = 3


class Held(Protocol):
    """What the command runs under: one lease or several."""

    @property
    def ttl(self) -> float | None:
        """How long they last after a renewal; None: they need none."""

    def seconds_left(self) -> float | None:
        """Until the first of them ends; None: no end."""

    def seconds_fixed(self) -> float | None:
        """Until the end that no renewal moves; None: no such end."""

    def renew(self) -> None:
        """Raises `LeaseLost`; `StoreError` when that cannot be told now."""

    def verify(self) -> None:
        """Raises `LeaseLost`; `StoreError` when that cannot be told now."""

    def wait(self, seconds: float, wake: int) -> None:
        """Until there may be news of them, the descriptor `wake` can be read, or the time is up."""


class Warn(NamedTuple):
    """A signal for the command, so long before the end of its time."""

    signal: int
    seconds: float


class Handed(NamedTuple):
    """An open socket that the command inherits, and the name under which it finds it."""

    name: str
    socket: "socket"


class Ended(NamedTuple):
    """How it went: the exit code as a shell would give it, and whether the leases were lost.

    `interrupted`: ^C ended it under a script that shares the terminal. A shell goes on with its script unless what it
    waited for died of SIGINT, too.
    """

    code: int
    lost: bool = False
    interrupted: bool = False


class NotStarted(Exception):
    """The command could not be started; `code` is what a shell would say to that."""

    def __init__(self, command: str, number: int) -> None:
        self.code = NO_SUCH_COMMAND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
        super().__init__(f"cannot run {quoted(command)}: {os.strerror(number)}")


class Signals:
    """While it is entered, signals interrupt nothing: they queue up, and a descriptor can be read when there are some.

    Those that we were told to ignore, as `nohup` does, stay ignored, by the command too.
    """

    def __enter__(self) -> Self:
        self.wake, self._writing = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._writing, False)
        self._before = {
            number: signal.getsignal(number)
            for number in HEARD
            if number in (signal.SIGCHLD, signal.SIGCONT) or signal.getsignal(number) is not signal.SIG_IGN
        }
        self._fd_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in self._before:
            signal.signal(number, heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self.wake)
        os.close(self._writing)

    def take(self) -> list[int]:
        """Those that came since the last time, in their order."""
        try:
            return list(os.read(self.wake, 4096))
        except BlockingIOError:
            return []

    def reset(self) -> None:
        """In the child: as they were before anybody listened."""
        for number in (*self._before, *IGNORED_BY_PYTHON):
            signal.signal(number, signal.SIG_DFL)


def heard(number: int, frame: object) -> None:
    """The handler of them all: the descriptor tells."""


class Terminal:
    """The terminal that we were started from, if there is one, and whose turn it is there."""

    def __init__(self) -> None:
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    @property
    def exists(self) -> bool:
        return self._fd is not None

    def belongs_to(self, group: int) -> bool:
        """Whether this process group is in the foreground."""
        try:
            return self._fd is not None and os.tcgetpgrp(self._fd) == group
        except OSError:  # it was hung up
            return False

    def is_ours_alone(self) -> bool:
        """Whether we are in the foreground, and nobody else of our job is.

        In a pipeline, or under a script, the others need the terminal as well: a pager reads its keys there, and ^C
        must reach the script. Then the command gets it when it asks, and not before.
        """
        alone = os.getpgrp() == os.getpid() and os.isatty(0) and os.isatty(1)
        return alone and self.belongs_to(os.getpgrp())

    def give(self, group: int) -> None:
        """Put this process group into the foreground."""
        if self._fd is None:
            return
        # Who is in the background would be stopped for asking.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._fd, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take_back(self, group: int) -> bool:
        """Put ourselves into the foreground where this group is. True if it was."""
        if not self.belongs_to(group):
            return False
        self.give(os.getpgrp())
        return True


class Mourner(NamedTuple):
    """A command that is run when we were killed: it tells those who cannot see that for themselves."""

    command: list[str]
    environment: Mapping[bytes, bytes]


class Guard:
    """The process that outlives us if need be; see the module."""

    def __init__(self, clock: Callable[[], float], mourner: "Mourner | None" = None) -> None:
        reading, self._writing = os.pipe()
        self._told: tuple[float | None, float | None] = (None, None)
        self._pid, mask = _fork()
        if self._pid == 0:
            _guard(reading, clock, mourner)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)

    def watch(self, group: int) -> None:
        """Kill this process group when the time comes."""
        self._tell(f"group {group}")

    def until(self, deadline: float | None, ask_at: float | None) -> None:
        """When the time comes, though we still live; and ask politely at `ask_at`, unless told otherwise by then."""
        if (deadline, ask_at) != self._told:
            self._told = deadline, ask_at
            self._tell(f"until {'' if deadline is None else repr(deadline)} {'' if ask_at is None else repr(ask_at)}")

    def dismiss(self) -> None:
        """There is nothing left to guard."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._writing)

    def _tell(self, words: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            os.write(self._writing, f"{words}\n".encode())  # in one piece, so that it is told whole or not at all


def _guard(pipe: int, clock: Callable[[], float], mourner: Mourner | None) -> NoReturn:
    """The life of the guard. It keeps nothing of ours: no file, no lock, no terminal; and no signal ends it softly."""
    group: int | None = None
    deadline: float | None = None
    ask_at: float | None = None
    died = False
    try:
        os.setsid()
        os.dup2(pipe, 0)
        os.closerange(1, min(os.sysconf("SC_OPEN_MAX"), 65_536))
        told = b""
        while deadline is None or clock() < deadline:
            # Not to the end in one go: a machine that sleeps stops this wait, and not the clock that counts.
            next = deadline if ask_at is None else ask_at
            timeout = None if next is None else min(LOOK_AGAIN_SECONDS, max(0.0, next - clock()))
            if ask_at is not None and clock() >= ask_at:
                ask_at = None
                if group is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(group, signal.SIGTERM)
                        os.killpg(group, signal.SIGCONT)  # what is stopped would not hear it
            if not select.select([0], [], [], timeout)[0]:
                continue
            data = os.read(0, 4096)
            if not data:
                died = True
                break
            *lines, told = (told + data).split(b"\n")
            for word, _, value in (line.partition(b" ") for line in lines):
                if word == b"group":
                    group = int(value)
                else:
                    deadline, ask_at = (float(moment) if moment else None for moment in value.split(b" "))
        if group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if died and mourner:
            for number in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execve(mourner.command[0], mourner.command, mourner.environment)  # noqa: S606 - our own command
    finally:
        os._exit(0)


def _fork() -> tuple[int, set[signal.Signals]]:
    """Fork with every signal blocked, so that the child runs no handler of ours; and how they were before."""
    mask: set[signal.Signals] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # type: ignore[assignment]
    try:
        return os.fork(), mask
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise


class Running:
    """One command under its leases, from start to end. `run` is called once.

    `tell` is given sentences for the user. `grace` is how long the command may take to end after SIGTERM, when its
    leases are lost or end; at most a quarter of the time that they have at the start. `mourner` is run if we are killed.
    `handed` is handed over when the command starts, and closed here, so that it is the command's alone.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[bytes, bytes],
        held: Held,
        signals: Signals,
        *,
        tell: Callable[[str], None],
        grace: float,
        warn: Warn | None = None,
        mourner: Mourner | None = None,
        handed: Sequence[Handed] = (),
        clock: Callable[[], float] = uptime,
    ) -> None:
        self.mourner, self.handed = mourner, handed
        self.command, self.environment, self.held, self.signals = command, environment, held, signals
        self.tell, self.grace, self.warn, self.clock = tell, grace, warn, clock
        self.terminal = Terminal()
        self._prctl = find_prctl()
        self.guard: Guard | None = None
        self.margin: float | None = None  # none before it is known how much time there is
        self.deadline: float | None = None  # by then the command must be gone
        self.warn_at: float | None = None
        self.kill_at: float | None = None  # SIGTERM was sent
        self.killed_at: float | None = None
        self.lost = False
        self._group = 0
        self._code: int | None = None
        self._ended_at = 0.0
        self._renewed_at = self._look_at = clock()
        self._in_trouble = False  # the last look found no answer
        self._may_go_on = False  # it was stopped, and is to be continued if its leases are still there
        self._wants_terminal = self._alone = False
        self._interrupted = False

    def run(self) -> Ended:
        """Start the command, and return when all of its group is gone. Raises `NotStarted`."""
        try:
            self._look()
            if self.lost:
                return Ended(LOST, lost=True)
            self._prctl(PR_SET_CHILD_SUBREAPER, 1)
            try:
                self.guard = Guard(self.clock, self.mourner)
                self._tell_guard()
                self._start()
            except OSError as error:
                raise NotStarted(self.command[0], error.errno or 0) from error
            return self._watch()
        except BaseException:
            self._send(signal.SIGKILL)
            raise
        finally:
            self.terminal.take_back(self._group)
            self.terminal.close()
            self._prctl(PR_SET_CHILD_SUBREAPER, 0)
            if self.guard:
                self.guard.dismiss()

    # ---- the loop

    def _watch(self) -> Ended:
        while True:
            for number in self.signals.take():
                self._hear(number)
            self._look()
            self._mind_the_time()
            if self._may_go_on:
                self._go_on()
            self._reap()
            if self._code is not None and not self._remains():
                interrupted = self._interrupted and self._code == 128 + signal.SIGINT
                return Ended(LOST, lost=True) if self.lost else Ended(self._code, interrupted=interrupted)
            self.held.wait(self._pause(), self.signals.wake)

    def _pause(self) -> float:
        if self._code is not None:
            return REMAINS_SECONDS
        moments = [self._look_at, self.warn_at, self.kill_at if self.killed_at is None else None]
        if self.deadline is not None and not self.lost:
            moments.append(self.deadline - self.grace)
        left = min(moment for moment in moments if moment is not None) - self.clock()
        return max(0.0, min(left, LOOK_AGAIN_SECONDS))

    def _look(self) -> None:
        """Renew when it is due, and otherwise see that the leases are ours; both tell how long they last."""
        asked_at = self.clock()
        self._look_at = asked_at + LOOK_AGAIN_SECONDS
        if self.lost or self._code is not None:
            return
        ttl = self.held.ttl
        due = ttl is not None and asked_at >= self._renewed_at + ttl / 3
        try:
            if due:
                self.held.renew()
                self._renewed_at = asked_at
            else:
                self.held.verify()
            told_at = self.clock()
            left, fixed = self.held.seconds_left(), self.held.seconds_fixed()
        except (LeaseLost, NotFound) as lost:
            self._lose(str(lost))
            return
        except DrydockError as trouble:
            self._trouble(trouble)
            return
        self._in_trouble = False
        if self.deadline is not None and self.clock() >= self.deadline:
            # Whatever was answered: by now the guard has ended the command, since it went by what we knew.
            self._lose("the time of the lease is up")
            return
        if self.margin is None and left is not None:
            self.margin = min(MARGIN_SECONDS, left / 10)
            self.grace = min(self.grace, left / 4)
        self._set_deadline(None if left is None else told_at + left - (self.margin or 0.0))
        self.warn_at = told_at + fixed - self.warn.seconds if self.warn and fixed is not None else None
        if ttl is not None:
            self._look_at = min(self._look_at, max(asked_at, self._renewed_at + ttl / 3))

    def _set_deadline(self, deadline: float | None) -> None:
        # The answers differ by what asking took: only a change that somebody made is one.
        if deadline is None or self.deadline is None or abs(deadline - self.deadline) > JITTER_SECONDS:
            self.deadline = deadline
            self._tell_guard()

    def _tell_guard(self) -> None:
        if self.guard:
            asks = self.deadline is not None and self.kill_at is None
            self.guard.until(self.deadline, self.deadline - LATE * self.grace if asks and self.deadline else None)

    def _trouble(self, error: DrydockError) -> None:
        """Nothing is known of the leases now. That is no reason to stop before the time that is known."""
        if not self._in_trouble:
            self.tell(f"{error}; the command goes on, and this is tried again")
        self._in_trouble = True
        self._look_at = self.clock() + RETRY_SECONDS
        if self.warn and self.deadline is not None:
            self.warn_at = self.deadline - self.warn.seconds

    def _mind_the_time(self) -> None:
        now = self.clock()
        if self.warn and self.warn_at is not None and now >= self.warn_at:
            self._send(self.warn.signal)
            self.warn = self.warn_at = None
        in_time = self.lost or self._code is not None
        if self.deadline is not None and now >= self.deadline - self.grace and not in_time:
            self._lose("the time of the lease is up")
        if self.kill_at is not None and now >= self.kill_at and self.killed_at is None:
            self.killed_at = now
            self._send(signal.SIGKILL)

    def _lose(self, reason: str) -> None:
        self.lost = True
        self.tell(f"{reason}; the command is stopped" if self._group else reason)
        self._end_group()

    def _end_group(self) -> None:
        """SIGTERM now, and SIGKILL after the grace, or before somebody else may have what the command uses."""
        self.kill_at = self.clock() + self.grace
        if self.deadline is not None:
            self.kill_at = min(self.kill_at, self.deadline)
        self._tell_guard()
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)  # what is stopped would not hear it

    # ---- the command

    def _start(self) -> None:
        assert self.guard is not None
        self._alone = self.terminal.is_ours_alone()
        parent = os.getpid()
        reading, writing = os.pipe()
        pid, mask = _fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                self.guard.watch(os.getpid())
                self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    return
                if self._alone:
                    self.terminal.give(os.getpid())
                self.signals.reset()
                environment = self.environment
                if self.handed:
                    writing = hand_over(self.handed, keep=writing)
                    environment = {**environment, **listening(self.handed, os.getpid())}
                    environment.pop(b"LISTEN_PIDFDID", None)  # another way to say whom an outer one meant
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.execvpe(self.command[0], self.command, environment)  # noqa: S606 - that is what we are for
            except OSError as error:
                os.write(writing, str(error.errno).encode())
            finally:
                os._exit(NO_SUCH_COMMAND)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writing)
        for one in self.handed:
            one.socket.close()
        with os.fdopen(reading, "rb") as answer:
            failed = answer.read()  # nothing: it was closed as the command began
        self._group, self._wants_terminal = pid, self._alone
        if failed:
            os.waitpid(pid, 0)
            raise NotStarted(self.command[0], int(failed))

    def _send(self, number: int) -> None:
        if self._group:
            with contextlib.suppress(OSError):
                os.killpg(self._group, number)

    def _hear(self, number: int) -> None:
        if number in PASSED_ON:
            self._send(number)
        if number == signal.SIGINT and not self._alone:
            self._interrupted = self.terminal.belongs_to(os.getpgrp())
        if number == signal.SIGTERM:
            self._send(signal.SIGCONT)
        if number == signal.SIGCONT:
            self._may_go_on = True

    def _reap(self) -> None:
        """See what became of the command, and bury what it has left to us."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-self._group, os.WNOHANG | os.WUNTRACED)
                if not pid:
                    return
                if pid != self._group:
                    continue
                if os.WIFSTOPPED(status):
                    self._stopped(os.WSTOPSIG(status))
                    continue
                code = os.waitstatus_to_exitcode(status)
                self._code, self._ended_at = code if code >= 0 else 128 - code, self.clock()
                self.lost |= self.deadline is not None and self._ended_at >= self.deadline
                had_terminal = self.terminal.take_back(self._group)
                if code == -signal.SIGINT and not self._alone:
                    self._interrupted |= had_terminal
                    if had_terminal:  # so it alone has heard of ^C
                        os.kill(0, signal.SIGINT)

    def _remains(self) -> bool:
        """The command has ended; whether something of its group is still there, which is ended then.

        What would go on in the background would use what is about to be somebody else's.
        """
        try:
            os.killpg(self._group, 0)
        except OSError:
            return False
        if self.kill_at is None:
            if self.clock() < self._ended_at + REMAINS_SECONDS:  # it may be about to end, too
                return True
            self.tell("the command has ended and left processes running, which are stopped")
            self._end_group()
        return self.killed_at is None or self.clock() < self.killed_at + AFTER_KILL_SECONDS

    # ---- job control

    def _stopped(self, number: int) -> None:
        """The command was stopped. So are we, as a shell expects of a job, unless all that it lacks is the terminal."""
        if self.lost:
            return
        wants = number in (signal.SIGTTIN, signal.SIGTTOU)
        if wants and self.terminal.belongs_to(os.getpgrp()):
            self._wants_terminal = True
            self._go_on()
            return
        self._wants_terminal = self.terminal.take_back(self._group) or wants
        if self.terminal.exists and not self._stand_still(number) and number == signal.SIGTSTP:
            self._go_on()  # nobody is there who could continue the job later: then ^Z means nothing

    def _stand_still(self, number: int) -> bool:
        """Stop until we are continued. False if there is no shell that could do that: the kernel sees to it."""
        came = self.signals.take()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid() if number == signal.SIGSTOP else 0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, heard)
        since = self.signals.take()
        for heard_of in (*came, *since):
            self._hear(heard_of)
        return signal.SIGCONT in since

    def _go_on(self) -> None:
        self._may_go_on = False
        if self._wants_terminal and self.terminal.belongs_to(os.getpgrp()):
            self.terminal.give(self._group)
        self._send(signal.SIGCONT)


def hand_over(handed: Sequence[Handed], keep: int) -> int:
    """In the child, about to be the command: put the sockets where it looks for them. Return the descriptor that `keep`
    has become."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    # Out of the way first: what is there may be one of them, or `keep`.
    above = FIRST_HANDED + len(handed)
    keep = fcntl(keep, F_DUPFD_CLOEXEC, above)
    moved = [fcntl(one.socket.fileno(), F_DUPFD_CLOEXEC, above) for one in handed]
    for number, descriptor in enumerate(moved, start=FIRST_HANDED):
        os.dup2(descriptor, number)
    return keep


def listening(handed: Sequence[Handed], pid: int) -> dict[bytes, bytes]:
    """What tells the command `pid` of the sockets that it inherits."""
    return {
        b"LISTEN_PID": str(pid).encode(),
        b"LISTEN_FDS": str(len(handed)).encode(),
        b"LISTEN_FDNAMES": ":".join(one.name for one in handed).encode(),
    }
