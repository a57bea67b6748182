"""drydock run: what the command is given, what comes out of it, and what becomes of the lease; and the options it shares."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Ran
from in_process import InProcess

from drydock.cli.run_one import environment
from drydock.model import Lease, LeaseStatus, Resource, ResourceStatus

pytestmark = pytest.mark.usefixtures("path")

#: prints its DRYDOCK_ variables as one JSON object
VARIABLES = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('DRYDOCK_')}))"


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


def none_held(drydock: InProcess) -> bool:
    return drydock("leases", "--json").stdout == ""


# ---- what the command is given


def test_the_environment_of_the_contract(lab: InProcess, cli: Cli, path: Path) -> None:
    lab("lease", "-t", "host", "-a", '{"arch": "arm64"}')
    lab("release", "1")
    done = cli("run", "-t", "host", "-a", '{"arch": "arm64"}', *python(VARIABLES))
    assert (done.returncode, done.stderr) == (0, "")
    [given] = done.objects
    note = given.pop("DRYDOCK_ATTR_NOTE")
    assert note.startswith("[bold]x")
    assert given == {
        "DRYDOCK_STORE": str(path),
        "DRYDOCK_OWNER": "tester",
        "DRYDOCK_LEASE": "2",
        "DRYDOCK_FENCE": "2",
        "DRYDOCK_RESOURCE": "1",
        "DRYDOCK_NAME": "h3",
        "DRYDOCK_TYPE": "host",
        "DRYDOCK_ATTR_ARCH": "arm64",
        "DRYDOCK_LEASES": "2",
        "DRYDOCK_FENCES": "2",
        "DRYDOCK_RESOURCES": "1",
        "DRYDOCK_NAMES": "h3",
    }


def test_of_several_all_are_named_and_the_first_is_described(lab: InProcess, cli: Cli) -> None:
    [given] = cli("run", "-t", "host", "--count", "3", *python(VARIABLES)).objects
    assert given["DRYDOCK_LEASES"] == "1,2,3"
    assert sorted(given["DRYDOCK_NAMES"].split(",")) == ["h1", "h2", "h3"]
    assert given["DRYDOCK_FENCES"] == "1,1,1"
    assert given["DRYDOCK_LEASE"] == "1"
    assert given["DRYDOCK_NAME"] == given["DRYDOCK_NAMES"].split(",")[0]
    assert given["DRYDOCK_RESOURCE"] == given["DRYDOCK_RESOURCES"].split(",")[0]
    assert none_held(lab)


def test_the_store_that_an_option_names_is_the_commands_store_by_its_full_name(
    lab: InProcess, cli: Cli, path: Path
) -> None:
    done = subprocess.run(
        cli.command("--store", path.name, "run", "-t", "host", *python(VARIABLES)),
        cwd=path.parent, capture_output=True, text=True, env={**cli.environment, "DRYDOCK_STORE": "/nowhere"}, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["DRYDOCK_STORE"] == str(path)


def lease_of(attributes: dict[str, Any]) -> Lease:
    resource = Resource(
        3, "h1", "host", "lab", ResourceStatus.ACTIVE, attributes, (), 7, 1, 1, 0.0, 0.0, None, None, 0, 0.0, None, None, None,
        False, frozenset(),
    )  # fmt: skip
    return Lease(
        12, LeaseStatus.ACTIVE, "host", (), "tester", 0, {}, (), 7, None, None, 0.0, 0.0, None, None, resource
    )  # fmt: skip


def attributes_of(given: dict[bytes, bytes]) -> dict[str, str]:
    start = b"DRYDOCK_ATTR_"
    return {
        name.removeprefix(start).decode(): value.decode() for name, value in given.items() if name.startswith(start)
    }


def test_text_is_given_as_it_is_and_other_values_as_json() -> None:
    value = {
        "text": "a b\n$x",
        "number": 22,
        "half": 0.5,
        "yes": True,
        "none": None,
        "list": [1, "é"],
        "map": {"b": 1, "a": 2},
    }
    assert attributes_of(environment([lease_of(value)], "/store", {})) == {
        "TEXT": "a b\n$x",
        "NUMBER": "22",
        "HALF": "0.5",
        "YES": "true",
        "NONE": "null",
        "LIST": '[1, "é"]',
        "MAP": '{"a": 2, "b": 1}',
    }


def test_what_is_no_letter_or_digit_becomes_an_underscore_and_of_two_names_the_first_in_order_counts() -> None:
    given = environment([lease_of({"x.y": "3", "x_y": "4", "X-y": "1", "zoë 9": "5"})], "/store", {})
    assert attributes_of(given) == {"X_Y": "1", "ZO__9": "5"}


def test_nothing_is_left_of_the_attributes_that_an_outer_run_told_and_all_else_is() -> None:
    outer = {b"DRYDOCK_ATTR_OLD": b"x", b"DRYDOCK_LEASE": b"1", b"HOME": b"\xff\n", b"DRYDOCK_OWNER": b"me"}
    given = environment([lease_of({})], "/store", outer)
    assert attributes_of(given) == {}
    assert given[b"DRYDOCK_LEASE"] == b"12"
    assert (given[b"HOME"], given[b"DRYDOCK_OWNER"]) == (b"\xff\n", b"me")


# ---- what comes out of it


@pytest.mark.parametrize(
    ("code", "expected"),
    [("pass", 0), ("raise SystemExit(1)", 1), ("raise SystemExit(124)", 124), ("raise SystemExit(255)", 255),
     ("import os; os.kill(os.getpid(), 9)", 137), ("import os; os.kill(os.getpid(), 15)", 143)],
)  # fmt: skip
def test_the_exit_code_is_the_commands(lab: InProcess, cli: Cli, code: str, expected: int) -> None:
    """CLI-042, CLI-043: and drydock says nothing."""
    done = cli("run", "-t", "host", *python(code))
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")
    assert none_held(lab)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("no-such-command", 127, 'cannot run "no-such-command": No such file or directory'),
        ("/no/such/file", 127, 'cannot run "/no/such/file": No such file or directory'),
        ("no\x1b[2J", 127, r'cannot run "no\x1b[2J"'),
        ("/etc/passwd", 126, 'cannot run "/etc/passwd": Permission denied'),
        ("/", 126, 'cannot run "/": Permission denied'),
    ],
)
def test_what_cannot_be_started_gives_the_lease_back(
    lab: InProcess, cli: Cli, command: str, code: int, words: str
) -> None:
    """CLI-041: it is not held either, since there is nothing to look at."""
    done = cli("run", "-t", "host", "--hold-on-fail", "1h", "--", command)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"drydock: {words}")
    assert done.stderr.count("\n") == 1
    assert none_held(lab)


def test_a_file_that_is_no_program_cannot_be_executed(lab: InProcess, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("echo no shell is asked\n")
    (tmp_path / "text").chmod(0o755)
    done = cli("run", "-t", "host", "--", str(tmp_path / "text"))
    assert (done.returncode, done.stdout) == (126, "")
    assert "Exec format error" in done.stderr


def test_bytes_go_in_and_out_as_they_are(lab: InProcess, cli: Cli) -> None:
    content = bytes(range(256)) * 1000
    done = subprocess.run(
        cli.command("run", "-t", "host", "--json", "--", "cat"), input=content, capture_output=True, env=cli.environment, check=True
    )  # fmt: skip
    assert done.stdout == content
    assert json.loads(done.stderr)["id"] == 1


def test_a_command_whose_stdin_is_closed_finds_it_closed(lab: InProcess, cli: Cli) -> None:
    code = "import os\ntry:\n    os.fstat(0)\nexcept OSError:\n    print('closed')"
    shut = ["sh", "-c", 'exec "$@" <&-', "sh"]
    done = subprocess.run(
        [*shut, *cli.command("run", "-t", "host", *python(code))], capture_output=True, text=True, env=cli.environment, check=True
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("closed\n", "")


def test_json_goes_to_stderr_since_stdout_is_the_commands(lab: InProcess, cli: Cli) -> None:
    done = cli("run", "-t", "host", "--count", "2", "--json", "--", "echo", "mine")
    assert done.stdout == "mine\n"
    leases = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(lease["id"], lease["status"]) for lease in leases] == [(1, "active"), (2, "active")]


def test_what_follows_the_command_is_the_commands(lab: InProcess, cli: Cli) -> None:
    assert cli("run", "-t", "host", "--", "echo", "--json", "--", "-t").stdout == "--json -- -t\n"
    assert cli("run", "-t", "host", "echo", "--type", "x").stdout == "--type x\n"


# ---- what becomes of the lease


def test_a_failure_may_hold_the_lease_for_a_while(lab: InProcess, cli: Cli) -> None:
    before = time.time()
    done = cli("run", "-t", "host", "--ttl", "1m", "--hold-on-fail", "2h", *python("raise SystemExit(3)"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("drydock: the command failed: lease 1 (h1) is held until 20")
    assert done.stderr.endswith("; give it back with: drydock release 1\n")
    cli("leases")  # whoever comes by ends what has died with its process
    [held] = lab("leases", "--json").objects
    assert (held["status"], held["ttl"]) == ("active", None)
    assert held["until"] in done.stderr
    assert held["until"] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before + 7199))
    assert lab("release", "1").returncode == 0


def test_success_holds_nothing(lab: InProcess, cli: Cli) -> None:
    assert cli("run", "-t", "host", "--hold-on-fail", "2h", "--", "true").stderr == ""
    assert none_held(lab)


def test_it_waits_as_lease_does_and_gives_up(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3")
    done = cli("run", "-t", "host", "--no-wait", "--", "echo", "never")
    assert (done.returncode, done.stdout) == (3, "")
    assert cli("run", "-t", "no-such", "--", "echo", "never").returncode == 5


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_while_it_waits_leaves_no_lease(lab: InProcess, cli: Cli, number: int, code: int) -> None:
    lab("lease", "-t", "host", "--count", "3")
    with cli.start("run", "-t", "host", "--", "echo", "never") as waiting:
        assert waiting.stderr is not None
        assert "waiting for host (lease 4)" in waiting.stderr.readline()
        waiting.send_signal(number)
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err.strip()) == (code, "", "")
    assert len(lab("leases", "--json").objects) == 3


# ---- the options


@pytest.mark.parametrize("verb", ["lease", "run"])
def test_priority_ttl_and_until_are_on_the_lease(lab: InProcess, cli: Cli, verb: str) -> None:
    command = ["--", sys.executable, "-c", ""] if verb == "run" else []
    done = cli(verb, "-t", "host", "--json", "--priority", "-7", "--ttl", "90s", "--until", "+2h", *command)
    [lease] = [
        json.loads(line) for line in (done.stderr if verb == "run" else done.stdout).splitlines() if line[0] == "{"
    ]
    assert (lease["priority"], lease["ttl"]) == (-7, 90)
    assert lease["until"] is not None


def test_until_is_a_moment_with_a_zone(lab: InProcess) -> None:
    year = time.gmtime().tm_year + 1
    for given, meant in (
        (f"{year}-01-31T18:00:00Z", f"{year}-01-31T18:00:00.000Z"),
        (f"{year}-01-31t18:00:00.5+01:30", f"{year}-01-31T16:30:00.500Z"),
        (f"{year}-01-31T18:00-05:00", f"{year}-01-31T23:00:00.000Z"),
    ):
        [lease] = lab("lease", "-t", "host", "--json", "--until", given).objects
        assert lease["until"] == meant


HOST = ["-t", "host"]
REFUSED: list[tuple[list[str], str]] = [
    (["run", *HOST], "missing COMMAND; write it after --, as in: drydock run --type host -- make test"),
    (["run", *HOST, "--"], "missing COMMAND"),
    (["run", "--", "true"], "missing --type; known types: "),
    (["run", *HOST, "--grace", "1m", "--ttl", "1m", "--", "true"], '--grace must be at most a quarter of --ttl, not "1m"'),
    (["run", *HOST, "--grace", "2h", "--", "true"], '--grace must be 0s to 1h, not "2h"'),
    (["run", *HOST, "--hold-on-fail", "5 m", "--", "true"], "--hold-on-fail: not a duration"),
    (["run", *HOST, "--warn", "60s", "--", "true"], '--warn: not a signal and a duration: "60s"; write USR1@60s'),
    (["run", *HOST, "--warn", "NOPE@60s", "--", "true"], "--warn: not a signal and a duration"),
    (["run", *HOST, "--warn", "USR1@", "--", "true"], "--warn: not a duration"),
    *(
        ([*verb, "-t", "host", *words, *command], told)
        for verb, command in ((["lease"], []), (["run"], ["--", "true"]))
        for words, told in (
            (["--ttl", "0"], '--ttl must be 0.1s to 30d, not "0"'),
            (["--ttl", "31d"], "--ttl must be 0.1s to 30d"),
            (["--ttl", "nan"], "--ttl: not a duration"),
            (["--until", "18:00"], '--until: not a moment: "18:00"; write one with its zone'),
            (["--until", "2099-01-31T18:00"], "with its zone"),
            (["--until", "2030-02-30T18:00Z"], '--until: there is no such moment: "2030-02-30T18:00Z"'),
            (["--until", "2020-01-31T18:00Z"], '--until must be in the future, at most 3650d away, not "2020'),
            (["--until", "9999-12-31T23:59Z"], "at most 3650d away"),
            (["--until", "+0s"], "--until must be in the future"),
            (["--until", "+"], '--until: not a duration: ""'),
            (["--until", "90m"], "or +90m from now"),
            (["--priority", "1.5"], '--priority must be -1000 to 1000, not "1.5"'),
            (["--priority", "1001"], "--priority must be -1000 to 1000"),
            (["--priority", "\u0665"], "--priority must be"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_refused_with_one_sentence_before_a_store_is_made(
    drydock: InProcess, path: Path, words: list[str], told: str
) -> None:
    done = drydock(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not path.exists()


def test_what_no_clock_and_no_grace_need_is_accepted(lab: InProcess, cli: Cli) -> None:
    done: Ran = cli("run", "-t", "host", "--grace", "0", "--ttl", "1m", "--warn", "sigusr1@1s", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
