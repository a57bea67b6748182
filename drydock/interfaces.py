"""Where a leased thing is, and how a command, a file in or a file out gets there.

An interface is data: a kind says where its resource is, and whoever wants something done there starts it through the
functions here. Nothing is ever put together for a shell on this machine; what goes over ssh is quoted for the one that
sshd starts on the other side, and that one runs `SESSION`, a constant, with the command as its arguments.

sshd does nothing to a command whose client is gone. So `SESSION` looks once a second whether its sshd is still there,
and ends the command when it is not: a command whose lease is lost must not go on, here or there.
"""

import contextlib
import errno
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .errors import CommandFailed, ConfigError, Unreachable, quoted

if TYPE_CHECKING:  # imported late: slow, and every command of ours imports this module
    import subprocess
    from pathlib import Path

Words = Sequence[str | bytes | os.PathLike[str]]

SSH_FAILED = 255
NO_CLIENT = "there is no ssh client here; install the package openssh-client of your system"
MOST_PORTS = 65_535
#: how often it is seen to what may end a command before its time
LOOK_SECONDS = 1.0
#: from SIGTERM to SIGKILL
GRACE_SECONDS = 2.0
SAID_BYTES = 2_000

#: Host keys are checked, nobody is asked anything, and nothing of ours is lent to a host that others lease, too. The
#: rest is up to the user's own configuration, except what would change what the command reads, says or is.
SSH_OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ForwardAgent=no", "ForwardX11=no",
    "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no", "EscapeChar=none",
    "ControlMaster=no", "ControlPath=none", "LogLevel=ERROR", "ConnectTimeout=15", "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)  # fmt: skip

#: Its arguments are a folder and a command. It is the one that waits, so that a command which a signal ended has the exit
#: code that a shell gives it, and not ssh's 255. Where the parent may not be asked after, it is not.
SESSION = (
    'if [ "$1" ]; then cd -- "$1" || exit 126; fi; shift; p=$PPID; if kill -0 $p 2>/dev/null; then'
    ' (trap "" HUP INT TERM; while kill -0 $p; do sleep 1; done; kill -s TERM -- -$$; sleep 5; kill -s KILL -- -$$)'
    ' </dev/null >/dev/null 2>&1 & fi; (exec "$@"); s=$?; exec 2>/dev/null; kill -s KILL $!; exit $s'
)

#: Its arguments are a name that nobody has, the file, its mode and size. What was cut off is never put into its place.
PUT = """
[ ! -d "$2" ] || { echo "it is a folder" >&2; exit 1; }
umask 077
set -C
trap 'rm -f "$1"' EXIT
trap 'exit 1' HUP INT TERM
cat > "$1" || exit 1
[ $(($(wc -c < "$1"))) -eq "$4" ] || { echo "it changed, or was cut off, on its way" >&2; exit 1; }
chmod "$3" "$1" && mv -f "$1" "$2"
"""

#: Its argument is the file. The last that it says on stderr is the file's mode, as ls shows it, and its size.
GET = """
[ -e "$1" ] || { echo "there is no such file" >&2; exit 1; }
[ -f "$1" ] || { echo "it is not a file" >&2; exit 1; }
exec < "$1" || exit 1
m=$(ls -ldL "$1") && s=$(wc -c < "$1") && cat && printf '\\n%.10s %d\\n' "$m" $((s)) >&2
"""

# Patterns are compiled when they are first needed: every command of ours imports this.
_ADDRESS = r"[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}"
#: ssh splits, expands or unquotes the others
_FILE = r"""/[^\x00-\x1f\x7f"'\\%$]*"""
_NOT_TEXT = "([\udc80-\udcff]+)"
_MODE_AND_SIZE = rb"\n-([r-][w-][xsS-])([r-][w-][xsS-])([r-][w-][xtT-]) ([0-9]+)\n\Z"


class Local(NamedTuple):
    """On this machine."""

    folder: str = ""  #: where commands start, absolute; "": where their caller is


class Ssh(NamedTuple):
    """On a host that the system's ssh client reaches without asking anybody anything."""

    address: str
    port: int = 22
    user: str = ""  #: "": as ssh's own configuration says
    folder: str = ""  #: where commands start, absolute; "": where sshd puts them
    identity_file: str = ""  #: "": as ssh's own configuration says
    known_hosts: str = ""  #: the file of host keys that are trusted; "": the user's


Interface = Local | Ssh


class Done(NamedTuple):
    """A command that has ended."""

    code: int  #: as a shell has it
    out: bytes  #: empty unless it was asked for
    err: bytes  #: the same


# ---- what may be said


def check_interface(value: object) -> Interface:
    """`value` if it is an interface that can be meant. Its words will stand on command lines, so none may be more than a
    word there. Raises `ConfigError`."""
    if not isinstance(value, Local | Ssh):
        raise ConfigError(f"not an interface: {quoted(value)}")
    if not isinstance(value.folder, str) or "\0" in value.folder or (value.folder and value.folder[0] != "/"):
        raise ConfigError(f"the folder must be an absolute path, not {quoted(value.folder)}")
    if isinstance(value, Ssh):
        if not isinstance(value.address, str) or not re.fullmatch(_ADDRESS, value.address):
            raise ConfigError(f"not the address of a host: {quoted(value.address)}")
        if type(value.port) is not int or not 1 <= value.port <= MOST_PORTS:
            raise ConfigError(f"port must be a whole number from 1 to {MOST_PORTS}, not {quoted(value.port)}")
        if not isinstance(value.user, str) or (value.user and not re.fullmatch(_USER, value.user)):
            raise ConfigError(f"not the name of a user: {quoted(value.user)}")
        for name in ("identity_file", "known_hosts"):
            file = getattr(value, name)
            if not isinstance(file, str) or (file and not re.fullmatch(_FILE, file)):
                raise ConfigError(
                    f"""{name} must be an absolute path without any of " ' \\ $ % in it, not {quoted(file)}"""
                )
    return value


def check_argv(argv: Words) -> list[str]:
    """A command and its arguments, as text. Raises `ConfigError`."""
    if isinstance(argv, str | bytes):
        raise ConfigError(f"a command is a list of words, not {quoted(argv)}")
    words = [os.fsdecode(word) for word in argv]
    if not words or words[0].startswith("-"):
        raise ConfigError(f"not a command: {quoted(words[0])}" if words else "there is no command")
    for word in words:
        try:
            wrong = b"\0" in os.fsencode(word)
        except UnicodeEncodeError:
            wrong = True
        if wrong:
            raise ConfigError(f"no word of a command can be {quoted(word)}")
    return words


# ---- from an interface to a process


def command_line(interface: Interface, argv: Words, log: "Path | None" = None) -> list[str]:
    """What is started on this machine so that `argv` runs there. `log`: where ssh says what it itself has to say."""
    words = check_argv(argv)
    check_interface(interface)
    if isinstance(interface, Local):
        return words
    options = list(SSH_OPTIONS)
    if interface.identity_file:
        options += ["IdentitiesOnly=yes", f'IdentityFile="{interface.identity_file}"']
    if interface.known_hosts:
        options += [f'UserKnownHostsFile="{interface.known_hosts}"', "GlobalKnownHostsFile=/dev/null"]
    line = ["ssh", "-T", "-p", str(interface.port)]
    line += ["-l", interface.user] if interface.user else []
    line += ["-E", str(log)] if log else []
    for option in options:
        line += ["-o", option]
    remote = ["/bin/sh", "-c", SESSION, "sh", interface.folder, *words]
    return [*line, "--", interface.address, f"exec {' '.join(map(_quote, remote))}"]


def _quote(word: str) -> str:
    """For a POSIX shell. What is no text is spelt out, since some servers take text alone."""
    import shlex

    parts = [part for part in re.split(_NOT_TEXT, word) if part] or [""]
    return "".join(_spelt_out(part) if re.fullmatch(_NOT_TEXT, part) else shlex.quote(part) for part in parts)


def _spelt_out(part: str) -> str:
    octal = "".join(f"\\{byte:03o}" for byte in os.fsencode(part))
    return f"\"$(printf '{octal}')\""


@contextlib.contextmanager
def ssh_log(interface: Interface) -> Iterator["Path | None"]:
    """A file for what ssh itself has to say, which it would else mix with what the command says on stderr."""
    if isinstance(interface, Local):
        yield None
        return
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="drydock-") as folder:
        yield Path(folder, "ssh.log")


def check_reached(interface: Interface, code: int, log: "Path | None") -> None:
    """Raise `Unreachable` if `code` is ssh's own and not the command's: then ssh has said why."""
    if code != SSH_FAILED or log is None or not isinstance(interface, Ssh):
        return
    with contextlib.suppress(FileNotFoundError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:  # before the last two it draws a box around a warning
            raise Unreachable(interface.address, " ".join(line.strip() for line in lines[-2:]))


def place(interface: Interface) -> str:
    """Where it is, for a sentence."""
    return "here" if isinstance(interface, Local) else f"on {quoted(interface.address)}"


# ---- a command


def run(
    interface: Interface,
    argv: Words,
    *,
    input: bytes | None = None,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Done:
    """Run a command there to its end, whatever its exit code; the streams are those of `subprocess.run`.

    `meanwhile` is called before and then every second; what it raises ends the command.

    Raises `CommandFailed` if it cannot be started here or takes longer than `seconds`, `Unreachable` if there is no way
    there. Whatever is raised, the command and its process group are gone; over ssh they are within seconds.
    """
    import subprocess

    words = check_argv(argv)
    end = None if seconds is None else time.monotonic() + seconds
    folder = interface.folder or None if isinstance(interface, Local) else None
    with ssh_log(interface) as log:
        line = command_line(interface, words, log)
        if meanwhile:
            meanwhile()
        try:
            # A session of its own: it has no terminal to ask at, and all that it starts can be ended.
            process = subprocess.Popen(  # noqa: S603 - that is what we are for
                line, cwd=folder, stdin=stdin if input is None else subprocess.PIPE, stdout=stdout, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            if isinstance(interface, Ssh) and isinstance(error, FileNotFoundError):
                raise Unreachable(interface.address, NO_CLIENT) from error
            missing = isinstance(error, FileNotFoundError | NotADirectoryError) and error.filename != folder
            code = 127 if missing else 126
            what = f"{error.strerror}: {quoted(error.filename)}" if error.filename else str(error.strerror)
            raise CommandFailed(words[0], place(interface), code, what) from error
        with process:
            try:
                out, err = _communicate(process, input, end, meanwhile)
            except subprocess.TimeoutExpired:
                _end(process)
                raise CommandFailed(words[0], place(interface), None, f"it took longer than {seconds:g}s") from None
            except BaseException:
                _end(process)
                raise
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        check_reached(interface, code, log)
    return Done(code, out or b"", err or b"")


def _communicate(
    process: "subprocess.Popen[bytes]",
    input: bytes | None,
    end: float | None,
    meanwhile: Callable[[], object] | None,
) -> tuple[bytes | None, bytes | None]:
    import subprocess

    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        pause = left if meanwhile is None else LOOK_SECONDS if left is None else min(LOOK_SECONDS, left)
        try:
            return process.communicate(input, timeout=pause)
        except subprocess.TimeoutExpired:
            if end is not None and time.monotonic() >= end:
                raise
        input = None  # it is on its way
        if meanwhile:
            meanwhile()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, then SIGKILL, for it and all of its group."""
    import subprocess

    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()


def run_on(
    interface: Interface,
    argv: Words,
    *,
    input: bytes | None = None,
    seconds: float | None = None,
) -> bytes:
    """Run a command there and return what it writes to stdout. Its stdin is `input`, or empty; nobody is asked anything.

    Raises `CommandFailed`, with the end of what it said on stderr, when its exit code is not 0 or it takes longer than
    `seconds`; `Unreachable` when there is no way there.
    """
    from subprocess import DEVNULL, PIPE

    done = run(interface, argv, input=input, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, seconds=seconds)
    if done.code:
        raise failed(interface, argv, done)
    return done.out


def failed(interface: Interface, argv: Words, done: Done) -> CommandFailed:
    """The error for a command whose exit code is not 0."""
    said = " | ".join(done.err[-SAID_BYTES:].decode(errors="replace").split("\n")[-6:]).strip(" |\r")
    return CommandFailed(os.fsdecode(argv[0]), place(interface), done.code, said or "it said nothing")


# ---- a file


def put_file(
    interface: Interface,
    local: str | os.PathLike[str],
    remote: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Copy the file `local` of this machine to `remote`, there. It appears, or replaces what is there, whole and with its
    permissions, or not at all. A path that is not absolute begins at the interface's folder; none is ever expanded.

    Raises `OSError` for `local`, and else as `run_on` does.
    """
    from subprocess import DEVNULL, PIPE

    target = _path(remote)
    with open(local, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"not a file: {quoted(local)}")
        folder, slash, _ = target.rpartition("/")
        new = f"{folder}{slash}{_new_name()}"
        argv = ["/bin/sh", "-c", PUT, "sh", new, target, f"{stat.S_IMODE(about.st_mode) & 0o777:o}", str(about.st_size)]
        done = run(interface, argv, stdin=file, stdout=DEVNULL, stderr=PIPE, seconds=seconds, meanwhile=meanwhile)
    if done.code:
        raise failed(interface, [f"put {target}"], done)


def get_file(
    interface: Interface,
    remote: str | os.PathLike[str],
    local: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Copy the file `remote` from there to `local`, on this machine; otherwise as `put_file`."""
    from pathlib import Path
    from subprocess import DEVNULL, PIPE

    source, target = _path(remote), Path(local)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    new = target.parent / _new_name()
    try:
        with open(new, "xb", opener=_for_us_alone) as file:
            done = run(interface, ["/bin/sh", "-c", GET, "sh", source], stdin=DEVNULL, stdout=file, stderr=PIPE,
                       seconds=seconds, meanwhile=meanwhile)  # fmt: skip
            told = re.search(_MODE_AND_SIZE, done.err)
            if done.code or told is None:
                raise failed(interface, [f"get {source}"], done)
            if os.fstat(file.fileno()).st_size != int(told[4]):
                raise failed(interface, [f"get {source}"], done._replace(err=b"it changed, or was cut off, on its way"))
            # "s" and "t" in the place of "x": it may be executed, too
            bits = b"".join(told.groups()[:3])
            os.fchmod(file.fileno(), sum(0o400 >> at for at, bit in enumerate(bits) if bit not in b"-ST"))
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def _path(path: str | os.PathLike[str]) -> str:
    """`path` such that no command takes it for an option."""
    text = os.fsdecode(path)
    if not text or text.endswith("/"):
        raise ConfigError(f"not the path of a file: {quoted(text)}")
    return text if text.startswith("/") else f"./{text}"


def _new_name() -> str:
    return f".drydock-{os.urandom(8).hex()}"


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would wait for somebody to write to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
