"""scripts/race-demo and scripts/demo, run for real with the interpreter of the tests, without their set-up."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
RACE = [sys.executable, str(SCRIPTS / "race_lab")]
DEMO = [sys.executable, str(SCRIPTS / "demo.py")]
#: how a `drydock` that we put on the PATH goes on
REAL = f"{shlex.quote(sys.executable)} -c 'from drydock.cli import main; main()'"

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[str], Environment]:
    """Where `drydock` is a shell script of one line; `tmp` takes what is temporary, so that leftovers are seen."""

    def environment(line: str = f'exec {REAL} "$@"') -> Environment:
        for folder in ("bin", "tmp"):
            (tmp_path / folder).mkdir()
        command = tmp_path / "bin" / "drydock"
        command.write_text(f"#!/bin/sh\n{line}\n")
        command.chmod(0o755)
        return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "tmp")}

    return environment


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[Path]]:
    return lambda: list((tmp_path / "tmp").iterdir())


def run(command: list[str], environment: Environment) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_the_race_is_lost_without_slot_locks_and_won_with_them(
    environment: Callable[..., Environment], left: Callable[[], list[Path]], tmp_path: Path
) -> None:
    picture = tmp_path / "race.svg"
    done = run([*RACE, "--delay", "1", "--svg", str(picture)], environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without slot locks: build001 was allocated TWICE" in done.stdout
    assert "with slot locks: build001 was allocated once" in done.stdout
    assert "key=almanac.host.binding(build001)  holder=resource:1" in done.stdout
    assert left() == []
    drawn = picture.read_text()
    assert drawn.count("build001") > 2
    assert "url(" not in drawn.replace("url(#", "")
    assert drawn.count("http") == 1  # the name of the format itself
    assert str(tmp_path) not in drawn
    assert os.uname().nodename not in drawn.replace("host", "")


def test_the_race_goes_the_same_way_with_a_server(
    environment: Callable[..., Environment], left: Callable[[], list[Path]]
) -> None:
    """The writers of a server queue at one lock, which must not hide that two have chosen the same."""
    done = run([*RACE, "--store", "postgres", "--delay", "1"], environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without slot locks: build001 was allocated TWICE" in done.stdout
    assert "with slot locks: build001 was allocated once" in done.stdout
    assert "key=almanac.host.binding(build001)  holder=resource:1" in done.stdout
    assert left() == []


def test_a_drydock_that_always_takes_slot_locks_fails_the_race_without_them(
    environment: Callable[..., Environment],
) -> None:
    drop = f'for word; do shift; [ "$word" = --no-slot-locks ] || set -- "$@" "$word"; done; exec {REAL} "$@"'
    done = run([*RACE, "--delay", "1"], environment(drop))
    assert done.returncode == 1
    assert (
        "FAILED without slot locks: build001 was not allocated twice; doctor found no double allocation" in done.stderr
    )
    assert "with slot locks: build001 was allocated once" in done.stdout


def test_a_drydock_that_never_takes_slot_locks_fails_the_race_with_them(
    environment: Callable[..., Environment],
) -> None:
    add = f'case "$1 $*" in "lease "*--no-slot-locks*) ;; "lease "*) set -- "$@" --no-slot-locks ;; esac; exec {REAL} "$@"'
    done = run([*RACE, "--delay", "1"], environment(add))
    assert done.returncode == 1
    assert "FAILED with slot locks: build001 was allocated 2 times; doctor found double-allocation" in done.stderr
    assert "without slot locks: build001 was allocated TWICE" in done.stdout


def test_processes_that_did_not_choose_together_prove_nothing(environment: Callable[..., Environment]) -> None:
    """Where one chooses only when the other is granted there was no race, whatever the store looks like."""
    late = f'while [ "$1 $DRYDOCK_OWNER" = "lease terminal-2" ] && [ -z "$({REAL} leases --json)" ]; do :; done; exec {REAL} "$@"'
    done = run([*RACE, "--delay", "0.1"], environment(late))
    assert done.returncode == 1
    assert "FAILED without slot locks: no race: terminal-2 had not chosen" in done.stderr
    assert "FAILED with slot locks: no race: terminal-2 had not chosen" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_race_that_is_interrupted_ends_its_processes_and_leaves_nothing(
    number: signal.Signals, environment: Callable[..., Environment], left: Callable[[], list[Path]], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    racing = subprocess.Popen(
        [*RACE, "--delay", "600"],
        env=environment(f'[ "$1" != lease ] || echo $$ >> {shlex.quote(str(pids))}; exec {REAL} "$@"'),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not pids.exists():  # as soon as the first has started: nothing is settled then
        assert racing.poll() is None
        time.sleep(0.01)
    racing.send_signal(number)
    assert racing.wait(60) == 128 + number
    assert [pid for pid in pids.read_text().split() if is_running(int(pid))] == []
    assert left() == []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_exploring_the_race_shows_the_way_to_the_double_allocation_and_that_there_is_none_with_slot_locks(
    environment: Callable[..., Environment], left: Callable[[], list[Path]]
) -> None:
    done = run([*RACE, "--explore"], environment())
    assert done.returncode == 0, done.stdout + done.stderr
    unsafe, safe = done.stdout.split("\nwith slot locks: ")
    assert unsafe.startswith("without slot locks: ")
    assert 'double-allocation: binding "h1" is allocated 2 times' in unsafe
    assert unsafe.count("insert resource") == 2
    assert safe.splitlines()[1] == "none of them breaks a promise"
    assert left() == []


def test_the_demo_does_what_it_shows_and_leaves_nothing(
    environment: Callable[..., Environment], left: Callable[[], list[Path]]
) -> None:
    done = run(DEMO, environment())
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("$ drydock lease --type host", "lease 1: host h2 from lab", "(exit code 3)", "$ scripts/race-demo"):
        assert shown in done.stdout
    assert left() == []


def test_the_demo_fails_when_a_command_does_not_do_what_it_should(
    environment: Callable[..., Environment], left: Callable[[], list[Path]]
) -> None:
    """A release that says nothing and does nothing, and is no error either."""
    done = run(DEMO, environment(f'[ "$1" != release ] || exit 0; exec {REAL} "$@"'))
    assert done.returncode == 1
    assert "demo: FAILED: wanted to find lease 1: released" in done.stderr
    assert left() == []
