"""drydock leases --waiting, and what a command that waits says: place, holders, what is missing, how long."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from conftest import Cli
from in_process import InProcess

KEYS = {"rank", "wanted", "leases", "free", "kept_for", "held", "holders", "estimate_seconds"}


@pytest.fixture
def wait(cli: Cli) -> Iterator[Callable[..., str]]:
    """Start a command that waits; return the first thing that it says."""
    begun: list[subprocess.Popen[str]] = []

    def wait(*arguments: str) -> str:
        begun.append(cli.start("lease", "-t", "host", *arguments))
        stderr = begun[-1].stderr
        assert stderr is not None
        return stderr.readline()

    yield wait
    for process in begun:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_one_object_for_each_request(lab: InProcess, wait: Callable[..., str]) -> None:
    lab("lease", "-t", "host", "--count", "3", "--owner", "anna", "--until", "+1h")
    wait("--owner", "ben", "--count", "2")
    wait("--owner", "cem", "--priority", "1")
    found = lab("leases", "--waiting", "--json").objects
    assert [(one["owner"], one["rank"], one["wanted"], one["leases"]) for one in found] == [
        ("cem", 1, 1, [6]), ("ben", 2, 2, [4, 5]),
    ]  # fmt: skip
    for one in found:
        assert set(one) >= KEYS
        assert (one["status"], one["resource"], one["held"], one["free"]) == ("pending", None, 3, 0)
        assert [h["name"] for h in one["holders"]] == ["h1", "h2", "h3"]
        for holder in one["holders"]:
            assert set(holder) == {"lease", "owner", "resource", "name", "since", "until"}
            assert holder["owner"] == "anna"
            assert holder["until"] == lab("show", str(holder["lease"]), "--json").objects[0]["until"]
    assert 3500 < found[0]["estimate_seconds"] <= 3600
    assert [one["owner"] for one in lab("leases", "--waiting", "--owner", "ben", "--json").objects] == ["ben"]


def test_a_row_says_why(lab: InProcess, wait: Callable[..., str]) -> None:
    lab("lease", "-t", "host", "--owner", "anna")
    wait("--count", "3", "--owner", "ben")
    told = wait("--owner", "cem")
    assert told.endswith("; 2 free, kept for lease 2 which wants 3; 1 waiting ahead\n")
    header, *rows = (line.split("\t") for line in lab("leases", "--waiting").stdout.splitlines())
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["RANK"], first["ID"], first["OWNER"], first["COUNT"], first["ABOUT"]) == ("1", "2", "ben", "3", "-")
    assert first["WHY"].startswith("h1 held by lease 1 (anna) for ")
    assert first["WHY"].endswith("; 2 free, 3 wanted")
    assert (second["RANK"], second["ID"]) == ("2", "5")
    assert second["WHY"].endswith("2 free, kept for lease 2 which wants 3; 1 waiting ahead")


def test_the_waiting_command_says_how_long_it_may_take(lab: InProcess, wait: Callable[..., str]) -> None:
    """Nothing about it when nobody knows; and it is not said again when only that has changed."""
    lab("lease", "-t", "host", "--count", "3", "--owner", "anna")
    assert "about" not in wait()
    lab("renew", "1", "--until", "+4h")
    assert wait().endswith("; 1 waiting ahead\n")
    lab("release", "5", "4")
    assert wait().endswith("; about 4h\n")


def test_nobody_waits(lab: InProcess) -> None:
    done = lab("leases", "--waiting")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nobody waits\n")
    assert lab("leases", "--waiting", "--json").stdout == ""


def test_a_request_that_nobody_can_serve_any_more_is_shown(lab: InProcess, wait: Callable[..., str]) -> None:
    lab("lease", "-t", "host", "--count", "3")
    wait("--attributes", '{"arch": "arm64"}')
    lab("disable", "blueprint:lab")
    [one] = lab("leases", "--waiting", "--json").objects
    assert (one["rank"], one["estimate_seconds"]) == (1, None)


def test_those_that_are_over_do_not_wait(lab: InProcess) -> None:
    done = lab("leases", "--waiting", "--all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--waiting and --all exclude one another" in done.stderr
