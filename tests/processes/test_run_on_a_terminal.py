"""drydock run on a real terminal, started by a shell that knows jobs, and by one that does not."""

import contextlib
import fcntl
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from conftest import LAB, Cli

import drydock
from drydock.testing.children import PRELUDE

SECONDS = 60.0
#: makes the terminal that it is given the one that it is controlled by, and becomes what follows
CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
PROMPT = "next> "
CONTROL_C, CONTROL_Z, CONTROL_BACKSLASH = "\x03", "\x1a", "\x1c"

WHOSE = """
def whose():
    terminal = os.open("/dev/tty", os.O_RDWR)
    return "mine" if os.tcgetpgrp(terminal) == os.getpgrp() else "others"
"""


class Session:
    """A command that a new terminal belongs to; what is typed there, and what is seen."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *command],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**environment, "TERM": "xterm", "PS1": PROMPT, "ENV": "", "PROMPT_COMMAND": ""},
        )  # fmt: skip
        os.close(theirs)
        self._seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        self.hang_up()

    def hang_up(self) -> None:
        """The terminal goes away."""
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def see(self, words: str) -> str:
        """Read on until these words are there; what came before them. They are not seen again."""
        while words not in self._seen:
            if not self._read():
                raise AssertionError(f"never saw {words!r}, but {self._seen!r}")
        before, _, self._seen = self._seen.partition(words)
        return before

    def end(self) -> int:
        """Read to the end: the exit code. What was seen is in `rest`."""
        while self._read():
            pass
        self.rest = self._seen
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        assert select.select([self._ours], [], [], SECONDS)[0], f"nothing more than {self._seen!r}"
        with contextlib.suppress(OSError):  # it has ended
            data = os.read(self._ours, 65536)
            self._seen += data.decode(errors="replace")
            return bool(data)
        return False


def ran(cli: Cli, code: str, *options: str) -> list[str]:
    return cli.command("run", "-t", "host", *options, "--", sys.executable, "-c", PRELUDE + WHOSE + code)


def shell(cli: Cli, *, jobs: bool) -> Session:
    session = Session(["sh", "-i"] if jobs else ["sh"], cli.environment)
    if jobs:
        session.see(PROMPT)
    return session


@pytest.fixture(autouse=True)
def _lab(path: Path) -> None:
    """One host."""
    with drydock.connect(str(path)) as dock:
        dock.apply(LAB)


@pytest.fixture
def script(tmp_path: Path, cli: Cli) -> "Script":
    return Script(tmp_path, cli)


class Script:
    """Writes the command line of `drydock run` around Python code, since it is too long to be typed."""

    def __init__(self, folder: Path, cli: Cli) -> None:
        self.folder, self.cli = folder, cli

    def __call__(self, code: str, *options: str) -> str:
        file = self.folder / "job"
        file.write_text("exec " + shlex.join(ran(self.cli, code, *options)) + "\n")
        return f"sh {file}"


def statuses(path: Path) -> Iterator[str]:
    with drydock.connect(str(path)) as dock:
        yield from (lease.status for lease in dock.leases())


def test_the_command_is_in_the_foreground_and_run_has_it_back_afterwards(cli: Cli) -> None:
    with Session(ran(cli, "say(whose()); say(hear())"), cli.environment) as session:
        session.see("mine")
        session.type("hello\n")
        session.see("hello")  # as the terminal shows it
        session.see("hello")  # as the command says it
        assert session.end() == 0


def test_control_c_reaches_the_command_alone_and_it_decides(cli: Cli) -> None:
    code = """
try:
    say("ready"); hear()
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(5)
"""
    with Session(ran(cli, code), cli.environment) as session:
        session.see("ready")
        session.type(CONTROL_C)
        session.see("interrupted")
        assert session.end() == 5
        assert "interrupted" not in session.rest, "it came once"
        assert "Traceback" not in session.rest


@pytest.mark.parametrize(("key", "code"), [(CONTROL_C, 130), (CONTROL_BACKSLASH, 131)])
def test_a_command_that_a_key_ends_gives_its_lease_back(cli: Cli, path: Path, key: str, code: int) -> None:
    """Without any ado: what the command might say to ^C is its own affair."""
    silent = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nsay('ready')\ntime.sleep(1000)"
    with Session(ran(cli, silent), cli.environment) as session:
        session.see("ready")
        session.type(key)
        assert session.end() == code
        assert "drydock:" not in session.rest
    assert list(statuses(path)) == []


def test_control_c_while_it_waits_leaves_no_lease(cli: Cli, path: Path) -> None:
    assert cli("lease", "-t", "host").returncode == 0
    with Session(ran(cli, "say('never')"), cli.environment) as session:
        session.see("waiting for host")
        session.type(CONTROL_C)
        assert session.end() == 130
        assert "Traceback" not in session.rest
    assert list(statuses(path)) == ["active"]


def test_control_z_stops_the_job_and_fg_continues_it(cli: Cli, script: Script, path: Path) -> None:
    """As with any command of a shell; it has the terminal again."""
    with shell(cli, jobs=True) as session:
        session.type(script("say('ready'); say('heard', hear()); say(whose()); sys.exit(7)") + "\n")
        session.see("ready\r\n")
        session.type(CONTROL_Z)
        session.see("Stopped")
        session.see(PROMPT)
        assert list(statuses(path)) == ["active"]
        session.type("fg\n")
        session.type("word\n")
        session.see("heard word")
        session.see("mine")
        session.see(PROMPT)
        session.type("echo code $?\n")
        session.see("code 7")
        session.type("exit\n")
        session.end()


def test_a_job_in_the_background_gets_the_terminal_with_fg(cli: Cli, script: Script) -> None:
    with shell(cli, jobs=True) as session:
        session.type(script("say('started'); say('heard', hear()); say(whose())") + " &\n")
        session.see("started")
        session.type("jobs\n")
        while "Stopped" not in session.see(PROMPT):  # it wants to read, and may not
            session.type("jobs\n")
        session.type("fg\n")
        session.type("word\n")
        session.see("heard word")
        session.see("mine")
        session.type("exit\n")
        session.end()


def test_where_no_shell_could_continue_it_control_z_means_nothing(cli: Cli) -> None:
    with Session(ran(cli, "say('ready'); say('heard', hear())"), cli.environment) as session:
        session.see("ready")
        session.type(CONTROL_Z)
        session.type("word\n")
        session.see("heard word")
        assert session.end() == 0


def test_a_stopped_job_whose_lease_was_lost_is_ended_when_it_is_continued(cli: Cli, script: Script, path: Path) -> None:
    with shell(cli, jobs=True) as session:
        session.type(
            script("import signal; signal.signal(signal.SIGCONT, lambda *_: say('went', 'on')); say('ready'); hear()")
            + "\n"
        )
        session.see("ready\r\n")
        session.type(CONTROL_Z)
        session.see("Stopped")
        session.see(PROMPT)
        assert cli("release", "1").returncode == 0
        session.type("fg\n")
        assert "went on" not in session.see("lease 1 is lost") + session.see(PROMPT)
        session.type("echo code $?\n")
        session.see("code 124")
        session.type("exit\n")
        session.end()


def test_in_a_pipeline_the_terminal_stays_with_the_others_until_the_command_asks(cli: Cli, script: Script) -> None:
    """The pager reads its keys there."""
    with shell(cli, jobs=True) as session:
        asks = "say(whose()); print(open('/dev/tty').readline().strip(), whose(), file=sys.stderr)"
        session.type(script(asks) + " | cat\n")
        session.see("others")
        session.type("password\n")
        session.see("password mine")
        session.see(PROMPT)
        session.type("exit\n")
        session.end()


def test_control_c_reaches_the_script_around_it_too(cli: Cli, script: Script) -> None:
    """A shell without jobs leaves the terminal to all that it has started."""
    with shell(cli, jobs=False) as session:
        job = script("say('ready'); hear()").removeprefix("sh ")
        lines = Path(job).read_text().removeprefix("exec ")
        Path(job).write_text(f"trap 'echo the script heard' INT\n{lines}echo code $?\n")
        session.type(f"exec sh {job}\n")
        session.see("ready")
        session.type(CONTROL_C)
        session.see("the script heard")
        session.see("code 130")
        session.end()


@pytest.mark.parametrize("asks", [False, True])
def test_control_c_under_a_script_is_what_run_dies_of(cli: Cli, asks: bool, path: Path) -> None:
    """Or bash would go on with its script. Also when the command had the terminal, and was alone to hear of it."""
    scripted = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: print("the script heard", flush=True))
print("code", subprocess.call(sys.argv[1:]), flush=True)
"""
    code = (
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        + ("say(hear())\n" if asks else "")
        + "say('ready')\ntime.sleep(1000)"
    )
    with Session(
        [sys.executable, "-c", scripted, *ran(cli, "import signal, time\n" + code)], cli.environment
    ) as session:
        session.type("word\n" if asks else "")
        session.see("ready")
        session.type(CONTROL_C)
        session.see("the script heard")
        session.see("code -2")
        assert session.end() == 0
        assert "the script heard" not in session.rest
    assert list(statuses(path)) == []


def test_a_terminal_that_goes_away_ends_the_command(cli: Cli, path: Path) -> None:
    with Session(ran(cli, "say('ready'); hear()"), cli.environment) as session:
        session.see("ready")
        session.hang_up()
        session.process.wait(SECONDS)
    assert list(statuses(path)) == []
