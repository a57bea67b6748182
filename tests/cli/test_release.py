"""drydock release, release-resource, reclaim"""

from conftest import Cli
from in_process import InProcess


def test_release(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2")
    done = lab("release", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lease 1: released h1\n", "")
    [lease] = lab("release", "lease:2", "--json").objects
    assert (lease["id"], lease["status"]) == (2, "destroyed")
    assert lease["ended_at"] is not None
    assert not [lock for lock in lab("locks", "--json").objects if lock["holder"].startswith("lease:")]


def test_twice_is_no_error(lab: InProcess) -> None:
    lab("lease", "-t", "host")
    lab("release", "1")
    events = len(lab("log", "--json").objects)
    done = lab("release", "1", "--json")
    assert done.returncode == 0
    assert [lease["id"] for lease in done.objects] == [1]
    assert "lease 1 was released already, at " in done.stderr
    assert len(lab("log", "--json").objects) == events


def test_one_that_is_not_there_does_not_keep_the_others(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2")
    done = lab("release", "1", "98", "2", "99")
    assert done.returncode == 5
    assert done.stdout == "lease 1: released h1\nlease 2: released h2\n"
    assert sorted(done.stderr.splitlines()) == [
        f"drydock: no lease {id}; list them with: drydock leases" for id in (98, 99)
    ]
    assert lab("leases", "--json").objects == []


def test_a_request_that_waits_is_taken_back(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3")
    waiting = cli.start("lease", "-t", "host")
    assert waiting.stderr is not None
    waiting.stderr.readline()
    assert lab("release", "4").returncode == 0
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (4, "")
    assert err == "drydock: lease 4 is lost: it is destroyed\n"


def test_release_resource_ends_its_leases(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2")
    done = lab("release-resource", "1")
    assert (done.returncode, done.stdout) == (0, "resource 1 (h1): destroyed\n")
    assert [lease["id"] for lease in lab("leases", "--json").objects] == [2]
    assert lab("release-resource", "resource:1").stdout == "resource 1 (h1): destroyed, was released already\n"
    [resource] = lab("release-resource", "2", "--json").objects
    assert (resource["id"], resource["name"], resource["status"], resource["leases"]) == (2, "h2", "destroyed", 0)


def test_reclaim_tells_of_each_why(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--count", "2")
    lab("release", "1")
    results = lab("reclaim", "--json").objects
    assert [(r["id"], r["name"], r["reclaimed"]) for r in results] == [(1, "h1", True), (2, "h2", False)]
    assert results[1]["reason"] == "1 leases on it"
    assert lab("reclaim").stdout == "resource 2 (h2): could not be reclaimed: 1 leases on it\n"
