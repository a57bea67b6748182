"""drydock renew, drydock verify, and a fence on release: only who still holds a lease may go on with it."""

from datetime import UTC, datetime

import pytest
from conftest import Cli
from in_process import InProcess

from drydock.engine import Engine
from drydock.testing.children import Child

HOLD = """
import drydock
dock = drydock.connect(sys.argv[1])
lease = dock.lease("host")
say(lease.id)
hear()
"""


def ends_at(item: dict[str, str]) -> float:
    return datetime.fromisoformat(item["ends_at"]).timestamp()


def test_renew_tells_until_when(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--ttl", "1h")
    before = lab("show", "1", "--json").objects[0]["until"]
    done = lab("renew", "1", "--until", "+2h", "--ttl", "30d")
    assert (done.returncode, done.stderr) == (0, "")
    [item] = lab("show", "1", "--json").objects
    assert (before, item["ttl"]) == (None, 30 * 86_400)
    assert done.stdout == f"lease 1: until {item['until']}\n"


def test_the_ttl_begins_anew_and_the_earlier_of_two_ends_counts(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--ttl", "1h", "--until", "+30m")
    now = datetime.now(UTC).timestamp()
    [item] = lab("renew", "1", "--json").objects
    assert now + 1700 < ends_at(item) <= now + 1800
    [item] = lab("renew", "1", "--ttl", "10m", "--json").objects
    assert now + 600 <= ends_at(item) < now + 700


def test_a_lease_without_end_has_none(lab: InProcess) -> None:
    lab("lease", "-t", "host")
    assert lab("renew", "1").stdout == "lease 1: without end\n"
    assert lab("renew", "1", "--json").objects[0]["ends_at"] is None


def test_one_that_is_lost_does_not_keep_the_others(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2", "--ttl", "1h")
    lab("release", "1")
    done = lab("renew", "1", "99", "lease:2")
    assert done.returncode == 4
    assert done.stdout.startswith("lease 2: until ")
    assert sorted(done.stderr.splitlines()) == [
        "drydock: lease 1 is lost: it is destroyed",
        "drydock: no lease 99; list them with: drydock leases",
    ]


@pytest.mark.parametrize("verb", ["renew", "verify", "release"])
def test_only_with_its_own_fence(verb: str, lab: InProcess) -> None:
    lab("lease", "-t", "host")
    lab("release", "1")
    lab("lease", "-t", "host", "--ttl", "1h")
    refused = lab(verb, "2", "--fence", "1")
    assert refused.returncode == 4
    assert refused.stderr == "drydock: lease 2 is lost: its fence is 2, not 1\n"
    assert lab("verify", "2").returncode == 0
    assert lab(verb, "2", "--fence", "2").returncode == 0


@pytest.mark.parametrize("verb", ["renew", "verify", "release"])
def test_a_lease_that_is_over_is_lost_and_one_that_never_was_is_not_found(verb: str, lab: InProcess) -> None:
    lab("lease", "-t", "host")
    lab("release", "1")
    assert lab(verb, "1", "--fence", "1").returncode == 4
    assert lab(verb, "2", "--fence", "1").returncode == 5


def test_verify_says_nothing_when_it_holds(lab: InProcess) -> None:
    lab("lease", "-t", "host")
    done = lab("verify", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [item] = lab("verify", "1", "--json").objects
    assert (item["id"], item["status"], item["ends_at"]) == (1, "active", None)


def test_a_request_that_waits_is_not_held(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3")
    waiting = cli.start("lease", "-t", "host")
    assert waiting.stderr is not None
    waiting.stderr.readline()
    assert lab("verify", "4").returncode == 4
    lab("release", "4")
    waiting.communicate(timeout=60)


@pytest.mark.parametrize("verb", ["renew", "verify"])
def test_past_its_time_it_is_lost_though_nobody_has_ended_it(verb: str, lab: InProcess, engine: Engine) -> None:
    lab("lease", "-t", "host", "--until", "+1h")
    with engine.store.write():
        engine.store.run("UPDATE lease SET until = 1000000 WHERE id = 1")
    done = lab(verb, "1")
    assert (done.returncode, done.stderr) == (4, "drydock: lease 1 is lost: its time is over\n")
    assert engine.store.rows("SELECT status FROM lease") == [("active",)]


@pytest.mark.parametrize("verb", ["renew", "verify"])
def test_a_lease_whose_process_died_is_lost_though_nobody_has_ended_it(verb: str, cli: Cli, lab: InProcess) -> None:
    with Child(HOLD, cli.environment["DRYDOCK_STORE"]) as holder:
        id = holder.hear()
        assert lab("verify", id).returncode == 0
        holder.kill()
        done = lab(verb, id)
    assert (done.returncode, done.stderr) == (4, f"drydock: lease {id} is lost: its process died\n")


def test_a_heartbeat_waits_for_no_hook_of_others(lab: InProcess, engine: Engine) -> None:
    """It does nothing but what it is asked for: what others left is left where it is."""
    lab("lease", "-t", "host", "--count", "2", "--ttl", "1h")
    with engine.store.write():
        engine.store.run("UPDATE lease SET deadline = 0 WHERE id = 1")
    assert lab("renew", "2").returncode == 0
    assert engine.store.rows("SELECT status FROM lease WHERE id = 1") == [("active",)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["renew"], ["LEASE"]),
        (["renew", "x"], ["not a lease id", '"x"']),
        (["renew", "1", "--ttl", "x"], ["--ttl", '"x"']),
        (["renew", "1", "--ttl", "0"], ["--ttl", '"0"']),
        (["renew", "1", "--until", "tomorrow"], ["--until", '"tomorrow"']),
        (["renew", "1", "--until", "2001-01-01T00:00Z"], ["--until", "future"]),
        (["renew", "1", "--fence", "0"], ["--fence", '"0"']),
        (["renew", "1", "--fence", "-1"], ["--fence", '"-1"']),
        (["renew", "1", "--fence", "1.5"], ["--fence", '"1.5"']),
        (["renew", "1", "--fence", "99999999999999999999"], ["--fence"]),
        (["renew", "1", "--fence", "\u0661"], ["--fence"]),
        (["renew", "1", "2", "--fence", "1"], ["--fence goes with one lease"]),
        (["release", "1", "2", "--fence", "1"], ["--fence goes with one lease"]),
        (["release", "1", "--fence", "x"], ["--fence", '"x"']),
        (["verify"], ["LEASE"]),
        (["verify", "1", "2"], ["2"]),
        (["verify", "resource:1"], ["not a lease id"]),
        (["verify", "1", "--fence", ""], ["--fence"]),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], words: list[str], lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2", "--ttl", "1h")
    done = lab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert [lease["status"] for lease in lab("leases", "--json").objects] == ["active", "active"]
