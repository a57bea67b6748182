"""drydock run, with real signals, deaths and deadlines: the command never outlives its lease, nor the lease its command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LAB, Cli, until
from processes.commands import Run

import drydock
from drydock.engine import Engine
from drydock.model import LeaseStatus
from drydock.store import open_store

#: says that it is there, and then waits for a word that never comes
WAIT = "say('ready'); hear(); say('went on')"
#: the same, of one that SIGTERM does not impress, nor its child
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    say("ready")
time.sleep(1000)
"""

#: says whether nobody else uses the same thing
ALONE = """
import fcntl
file = open(os.environ["FILE"], "w")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    say("alone")
except BlockingIOError:
    say("not alone")
"""


@pytest.fixture(autouse=True)
def _lab(store_address: str) -> None:
    """One host."""
    with drydock.connect(store_address) as dock:
        dock.apply(LAB)


@pytest.fixture
def operator(store_address: str) -> Iterator[Engine]:
    """Somebody else, on the real clock."""
    store = open_store(store_address)
    yield Engine(store)
    store.close()


def status(operator: Engine, id: int = 1) -> LeaseStatus:
    lease = operator.store.leases.get(id)
    assert lease is not None
    return lease.status


def is_free(cli: Cli) -> bool:
    return cli("lease", "-t", "host", "--no-wait").returncode == 0


# ---- death


def test_when_run_is_killed_the_next_in_the_queue_has_it_and_nothing_of_the_command_is_left(cli: Cli) -> None:
    """A child of the command that the kernel does not kill for us goes too. (S: dead holders)"""
    with Run(cli, "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n" + WAIT) as run:
        run.expect("ready")
        with Run(cli, "say(os.environ['DRYDOCK_FENCE'])", "--wait", "60") as next:
            assert "waiting for host" in next.stderr.readline()
            run.process.kill()
            next.expect("2")
            assert run.hear() == "", "stdout is closed: whoever had it is dead"
            assert next.end()[0] == 0


def test_nothing_of_ours_keeps_a_killed_runs_lease_alive(cli: Cli, operator: Engine) -> None:
    """The guard, and a daemon that escaped, inherit no lock."""
    with Run(
        cli, "import subprocess\nd = subprocess.Popen(['sleep', '1000'], start_new_session=True)\nsay(d.pid); hear()"
    ) as run:
        daemon = int(run.hear())
        try:
            run.process.kill()
            run.process.wait(60)
            operator.tend()
            assert status(operator) is LeaseStatus.DESTROYED
            os.kill(daemon, 0)  # it lives
        finally:
            os.kill(daemon, signal.SIGKILL)


if sys.platform == "linux":

    def test_the_command_dies_also_when_the_guard_was_killed_before(cli: Cli) -> None:
        with Run(cli, WAIT) as run:
            run.expect("ready")
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            [guard] = [int(pid) for pid in children if os.getpgid(int(pid)) == int(pid) == os.getsid(int(pid))]
            os.kill(guard, signal.SIGKILL)
            run.process.kill()
            assert run.hear() == ""

    def test_the_guard_is_gone_when_run_is(cli: Cli) -> None:
        with Run(cli, WAIT) as run:
            run.expect("ready")
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            assert len(children) == 2
            run.tell()
            run.expect("went on")
            assert run.end() == (0, "")
            assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_what_the_command_leaves_running_is_ended_before_the_lease_is_given_back(cli: Cli, operator: Engine) -> None:
    with Run(cli, "import subprocess\nsubprocess.Popen(['sleep', '1000'])\nsay('ready'); hear(); sys.exit(3)") as run:
        run.expect("ready")
        run.tell()
        code, told = run.end()
    assert (code, told) == (3, "drydock: the command has ended and left processes running, which are stopped\n")
    assert status(operator) is LeaseStatus.DESTROYED


def test_what_is_left_running_and_deaf_is_killed_after_the_grace(cli: Cli) -> None:
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0: say('ready'); time.sleep(1000)\nhear()"
    with Run(cli, code, "--grace", "100ms") as run:
        run.expect("ready")
        run.tell()
        assert run.end()[0] == 0
    assert is_free(cli)


# ---- signals


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_a_signal_is_passed_on_and_the_command_decides(cli: Cli, operator: Engine, number: str) -> None:
    with Run(cli, f"signal.signal(signal.{number}, on)\nsay('ready'); hear(); sys.exit(5)") as run:
        run.expect("ready")
        run.process.send_signal(getattr(signal, number))
        run.expect(number)
        assert status(operator) is LeaseStatus.ACTIVE
        run.tell()
        assert run.end() == (5, "")
    assert status(operator) is LeaseStatus.DESTROYED


def test_the_children_of_the_command_hear_it_too(cli: Cli) -> None:
    code = """
signal.signal(signal.SIGUSR1, on)
ready, child = os.pipe(), os.fork()
if child:
    os.read(ready[0], 1)
    say("ready")
    os.waitpid(child, 0)
else:
    signal.signal(signal.SIGUSR1, lambda *_: (say("child"), os._exit(0)))
    os.write(ready[1], b"!")
    time.sleep(1000)
"""
    with Run(cli, code) as run:
        run.expect("ready")
        run.process.send_signal(signal.SIGUSR1)
        heard = run.hear() + run.hear()  # both write to one pipe, perhaps in the middle of the other's line
        assert "child" in heard
        assert "SIGUSR1" in heard
        assert run.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_dies_of_it_is_told_by_the_exit_code(cli: Cli, operator: Engine, number: int) -> None:
    """CLI-045: also when it comes twice at once (CLI-046), the lease is given back, once."""
    with Run(cli, f"signal.signal({number}, signal.SIG_DFL)\n{WAIT}") as run:
        run.expect("ready")
        run.process.send_signal(number)
        run.process.send_signal(number)
        assert run.end() == (128 + number, "")
    events = [event.event for event in operator.store.events.of_lease(1, 100)]
    assert events.count("lease.released") == 1


def test_what_was_to_be_ignored_stays_ignored(cli: Cli) -> None:
    """As under nohup: neither run nor its command hears of it."""
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    say = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *cli.command("run", "-t", "host", "--", sys.executable, "-c", say)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=cli.environment,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGHUP)
        process.stdin.write("\n")
    assert process.returncode == 0


def test_what_the_interpreter_ignores_the_command_does_not(cli: Cli) -> None:
    done = cli("run", "-t", "host", "--", "sh", "-c", "kill -PIPE $$; echo alive")
    assert (done.returncode, done.stdout) == (128 + signal.SIGPIPE, "")


# ---- the lease is lost


def test_a_lease_that_the_operator_releases_takes_its_command_with_it(cli: Cli, operator: Engine) -> None:
    with Run(cli, f"signal.signal(signal.SIGTERM, lambda *_: (say('term'), sys.exit(0)))\n{WAIT}") as run:
        run.expect("ready")
        operator.release(1, "needed elsewhere")
        run.expect("term")
        code, told = run.end()
    assert code == 124
    assert told.startswith("drydock: lease 1 is lost: ")
    assert told.endswith("; the command is stopped\n")
    assert "Traceback" not in told


def test_of_a_lost_lease_nothing_goes_on_that_is_deaf_to_sigterm(cli: Cli, operator: Engine) -> None:
    with Run(cli, DEAF, "--grace", "100ms") as run:
        run.expect("ready")
        operator.release(1)
        assert run.end()[0] == 124


def test_a_stopped_command_is_ended_too(cli: Cli, operator: Engine) -> None:
    with Run(
        cli, "signal.signal(signal.SIGTERM, lambda *_: (say('term'), sys.exit(0)))\nsay(os.getpid()); hear()"
    ) as run:
        os.kill(int(run.hear()), signal.SIGSTOP)
        operator.release(1)
        run.expect("term")
        assert run.end()[0] == 124


def test_losing_one_of_several_loses_all_and_the_others_are_given_back(
    cli: Cli, operator: Engine, store_address: str
) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}})
    with Run(cli, WAIT, "--count", "2") as run:
        run.expect("ready")
        operator.release(2)
        assert run.end()[0] == 124
    assert operator.store.leases.live() == []


def test_a_command_ends_before_its_until(cli: Cli) -> None:
    """SIGTERM comes while the lease still lasts."""
    code = """
import drydock
def last(*_):
    with drydock.connect() as dock:
        say(*(lease.status for lease in dock.leases()))
    sys.exit(0)
signal.signal(signal.SIGTERM, last)
say("ready")
time.sleep(1000)
"""
    with Run(cli, code, "--until", "+4s") as run:
        run.expect("ready", "active")
        assert run.end() == (124, "drydock: the time of the lease is up; the command is stopped\n")


def test_a_deaf_command_is_killed_before_its_until(cli: Cli, tmp_path: Path) -> None:
    """Whoever has it next meets nobody."""
    with Run(cli, ALONE + DEAF, "--until", "+3s", FILE=str(tmp_path / "file")) as run:
        run.expect("alone", "ready")
        with Run(cli, ALONE, "--wait", "60", FILE=str(tmp_path / "file")) as next:
            next.expect("alone")
            assert next.end()[0] == 0
        assert run.end()[0] == 124


def test_until_may_be_moved_while_the_command_runs(cli: Cli, operator: Engine) -> None:
    with Run(cli, "say('ready')\nhear()\nsay('still here')", "--until", "+2s") as run:
        run.expect("ready")
        ends = time.time() + 2
        operator.renew(1, until=time.time() + 3600)
        until(lambda: time.time() > ends)
        run.tell()
        run.expect("still here")
        assert run.end() == (0, "")


# ---- a ttl


def test_a_ttl_is_renewed_as_long_as_the_command_runs(cli: Cli, operator: Engine) -> None:
    with Run(cli, WAIT, "--ttl", "1s") as run:
        run.expect("ready")
        seen = set()

        def renewed() -> bool:
            span = operator.store.leases.span(1)
            assert span is not None
            seen.add(span.deadline)
            return len(seen) > 4

        until(renewed)
        run.tell()
        run.expect("went on")
        assert run.end() == (0, "")


def test_a_run_that_stood_still_too_long_has_lost_its_lease_and_its_command(cli: Cli, tmp_path: Path) -> None:
    """Whoever has it next meets nobody, though run could do nothing about it: the guard did."""
    with Run(cli, ALONE + DEAF, "--ttl", "3s", FILE=str(tmp_path / "file")) as run:
        run.expect("alone", "ready")
        run.process.send_signal(signal.SIGSTOP)
        with Run(cli, ALONE, "--wait", "60", FILE=str(tmp_path / "file")) as next:
            next.expect("alone")
            state = subprocess.run(
                ["ps", "-o", "stat=", "-p", str(run.pid)], capture_output=True, text=True, check=True
            )
            assert state.stdout.startswith("T"), "run still stands still"
            assert next.end()[0] == 0
        run.process.send_signal(signal.SIGCONT)
        code, told = run.end()
    assert code == 124
    assert "lease 1 is lost" in told


def test_a_store_that_is_away_for_a_moment_is_waited_for(cli: Cli, operator: Engine, path: Path) -> None:
    away = path.with_suffix(".away")
    with Run(cli, WAIT, "--ttl", "4s") as run:
        run.expect("ready")
        path.rename(away)
        assert "; the command goes on, and this is tried again" in run.stderr.readline()
        away.rename(path)
        before = operator.store.leases.span(1)
        until(lambda: operator.store.leases.span(1) != before)
        run.tell()
        run.expect("went on")
        assert run.end() == (0, "")


def test_a_store_that_stays_away_ends_the_command_in_time(cli: Cli, operator: Engine, path: Path) -> None:
    say_left = (
        "signal.signal(signal.SIGTERM, lambda *_: (say('term'), hear(), sys.exit(0)))\nsay('ready')\ntime.sleep(1000)"
    )
    with Run(cli, say_left, "--ttl", "3s") as run:
        run.expect("ready")
        path.rename(path.with_suffix(".away"))
        run.expect("term")
        left = operator.seconds_left(1)
        assert left is not None
        assert left > 0
        run.tell()
        code, told = run.end()
    assert code == 124
    assert "the time of the lease is up; the command is stopped" in told
    assert "Traceback" not in told


# ---- warnings


def test_the_command_is_warned_once_before_the_end(cli: Cli) -> None:
    with Run(
        cli, "signal.signal(signal.SIGUSR1, on)\nsay('ready')\nhear()", "--until", "+1h", "--warn", "USR1@3599s"
    ) as run:
        run.expect("ready", "SIGUSR1")
        run.tell()
        assert run.end() == (0, "")


def test_a_ttl_that_is_renewed_is_no_end_to_warn_of(cli: Cli, operator: Engine, path: Path) -> None:
    """One that cannot be renewed is."""
    code = "signal.signal(signal.SIGUSR1, on)\nsay('ready')\nhear()\nsay('word')\nhear()"
    with Run(cli, code, "--ttl", "2s", "--warn", "sigusr1@1900ms") as run:
        run.expect("ready")
        before = operator.store.leases.span(1)
        until(lambda: operator.store.leases.span(1) != before)
        run.tell()
        run.expect("word")
        path.rename(path.with_suffix(".away"))
        run.expect("SIGUSR1")


# ---- descriptors


def test_the_command_has_the_descriptors_of_its_caller_and_none_of_ours(cli: Cli) -> None:
    reading, writing = os.pipe()
    code = "import os; print(sorted(int(n) for n in os.listdir('/dev/fd') if os.path.exists(f'/dev/fd/{n}')))"
    done = subprocess.run(
        cli.command("run", "-t", "host", "--", sys.executable, "-c", code),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=cli.environment, pass_fds=[writing], check=True,
    )  # fmt: skip
    os.close(reading)
    os.close(writing)
    assert done.stdout == f"{[0, 1, 2, writing]}\n"
