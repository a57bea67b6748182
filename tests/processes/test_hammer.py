"""Many real processes at once: nothing is handed out twice, and nothing is left behind, also by those that are killed."""

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, open_at

import drydock
from drydock.doctor import examine
from drydock.engine import Engine
from drydock.testing.children import Child

HOSTS = 4
WORKERS = 8

#: tells each grant when it is over: what, who, fence, and its interval on the clock that all processes share
WORKER = """
import json, time
import drydock

dock = drydock.connect(sys.argv[1])
type, grants = sys.argv[2], int(sys.argv[3])
say("ready")
hear()
for _ in range(grants):
    with dock.lease(type) as lease:
        began = time.monotonic()
        path = lease.resource.attributes.get("path")
        if path:
            open(os.path.join(path, "mine"), "x").close()
        ended = time.monotonic()
    say(json.dumps([lease.resource.name, lease.resource.id, lease.fence, began, ended]))
dock.close()
"""

#: takes and gives back until it is killed
RESTLESS = """
import drydock

dock = drydock.connect(sys.argv[1])
say("ready")
hear()
while True:
    with dock.lease(sys.argv[2]):
        say("held")
"""


def pool(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    root = tmp_path / "scratch"
    root.mkdir()
    (root / ".drydock-root").touch()
    return {
        "blueprint": {
            "lab": {"kind": "host-pool", "hosts": [f"h{n}" for n in range(HOSTS)], **settings},
            "scratch": {"kind": "scratch-dir", "root": str(root), "limit": 3},
        }
    }


def offer(store_address: str, content: dict[str, Any]) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply(content)


@contextmanager
def workers(code: str, store_address: str, number: int, *arguments: object) -> Iterator[list[Child]]:
    """So many processes that all have the store open and start at one word."""
    children = [Child(code, store_address, *arguments) for _ in range(number)]
    try:
        for child in children:
            child.expect("ready")
        yield children
    finally:
        for child in children:
            child.kill()


def hammer(store_address: str, type: str, grants: int) -> list[tuple[str, int, int, float, float]]:
    """Every grant that eight processes had: name, resource, fence, begin and end."""
    with workers(WORKER, store_address, WORKERS, type, grants) as children:
        for child in children:
            child.tell()
        told = [[json.loads(line) for line in child.rest()] for child in children]
    assert [len(grant) for grant in told] == [grants] * WORKERS
    return [tuple(grant) for grants_of_one in told for grant in grants_of_one]


def most_at_once(intervals: list[tuple[float, float]]) -> int:
    """How many of the intervals overlap at the worst moment."""
    steps = sorted([(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals])
    now = worst = 0
    for _, step in steps:
        now += step
        worst = max(worst, now)
    return worst


def assert_all_is_free_and_well(store_address: str, cli: Cli) -> None:
    """No lease, no lock of a lease; after `reclaim` no lock at all; the doctor finds nothing."""
    assert cli("leases", "--json").objects == []
    assert [held for held in cli("locks", "--json").objects if held["holder"].startswith("lease:")] == []
    doctor = cli("doctor", "--json")
    assert (doctor.returncode, [f for f in doctor.objects if f["broken"]]) == (0, [])
    store = open_at(store_address, lambda: 4_000_000_000.0)  # past every grace
    Engine(store).reclaim()
    assert store.slot_locks.all() == []
    assert store.resources.live() == []
    assert [finding for finding in examine(store) if finding.broken] == []
    store.close()


@pytest.mark.parametrize("seats", [1, 2])
def test_no_host_has_more_leases_at_once_than_seats_and_its_fence_grows(
    store_address: str, tmp_path: Path, cli: Cli, seats: int
) -> None:
    offer(store_address, pool(tmp_path, seats=seats))
    grants = hammer(store_address, "host", 40)
    assert {name for name, *_ in grants} == {f"h{n}" for n in range(HOSTS)}
    for host in {name for name, *_ in grants}:
        mine = sorted((begin, end, fence) for name, _, fence, begin, end in grants if name == host)
        assert most_at_once([(begin, end) for begin, end, _ in mine]) <= seats
        fences = [fence for *_, fence in mine]
        assert sorted(fences) == list(range(1, len(fences) + 1))
        if seats == 1:
            assert all(one < two for one, two in pairwise(fences))
    assert_all_is_free_and_well(store_address, cli)


def test_every_lease_has_a_folder_of_its_own_and_none_is_left(store_address: str, tmp_path: Path, cli: Cli) -> None:
    """Each holder makes a file that must not exist yet in its folder; a shared or uncleaned one would have it."""
    offer(store_address, pool(tmp_path))
    grants = hammer(store_address, "scratch-dir", 12)
    for folder in {name for name, *_ in grants}:
        mine = [(begin, end) for name, _, _, begin, end in grants if name == folder]
        assert most_at_once(mine) == 1
    assert most_at_once([(begin, end) for *_, begin, end in grants]) <= 3
    for resource in {id for _, id, *_ in grants}:
        fences = [fence for _, fence in sorted((begin, fence) for _, id, fence, begin, _ in grants if id == resource)]
        assert fences == list(range(fences[0], fences[0] + len(fences)))
    assert [entry.name for entry in (tmp_path / "scratch").iterdir()] == [".drydock-root"]
    assert_all_is_free_and_well(store_address, cli)


@pytest.mark.parametrize(("type", "settings"), [("host", {}), ("host", {"seats": 2}), ("scratch-dir", {})])
def test_whoever_is_killed_leaves_nothing_that_one_command_does_not_tidy(
    store_address: str, tmp_path: Path, cli: Cli, type: str, settings: dict[str, int]
) -> None:
    """Killed at any moment: waiting, choosing, inside a transaction, in a hook, holding."""
    offer(store_address, pool(tmp_path, **settings))
    randomness = random.Random(14118)
    kills = 0
    with workers(RESTLESS, store_address, 4, type) as children:
        for child in children:
            child.tell()
        while kills < 12:
            victim = randomness.randrange(len(children))
            for _ in range(randomness.randrange(1, 4)):
                children[victim].expect("held")
            children[victim].kill()
            kills += 1
            children[victim] = Child(RESTLESS, store_address, type)
            children[victim].expect("ready")
            children[victim].tell()
        for child in children:
            child.kill()
    assert cli("reclaim").returncode == 0
    assert_all_is_free_and_well(store_address, cli)
    if type == "scratch-dir":
        assert [entry.name for entry in (tmp_path / "scratch").iterdir()] == [".drydock-root"]


# ---- whose lease it is

HOLD = """
import drydock
dock = drydock.connect(sys.argv[1])
bound, detached = dock.lease("host"), dock.lease("host", detach=True)
say(bound.id, detached.id)
{then}
hear()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_lease_ends_with_its_process_and_a_detached_one_does_not(
    store_address: str, tmp_path: Path, cli: Cli, end: str
) -> None:
    offer(store_address, pool(tmp_path))
    with Child(HOLD.format(then=""), store_address) as child:
        bound, detached = map(int, child.hear().split())
        assert cli("reclaim").returncode == 0
        assert [lease["id"] for lease in cli("leases", "--json").objects] == [bound, detached]
        if end == "kill":
            child.kill()
        else:
            child.tell()
            child.rest()
    assert cli("reclaim").returncode == 0
    assert [lease["id"] for lease in cli("leases", "--json").objects] == [detached]
    [reason] = [
        e["data"].get("reason")
        for e in cli("log", f"lease:{bound}", "--json").objects
        if e["event"] == "lease.released"
    ]
    assert reason == "its process died"
    assert cli("release", str(detached)).returncode == 0
    assert_all_is_free_and_well(store_address, cli)


@pytest.mark.parametrize(
    "then",
    ["child = os.fork()\nif not child:\n    import time\n    time.sleep(600)\nsay(child)",
     "import subprocess\nsay(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], close_fds=False).pid)"],
    ids=["forked", "started"],
)  # fmt: skip
def test_a_child_does_not_keep_its_parents_lease(store_address: str, tmp_path: Path, cli: Cli, then: str) -> None:
    offer(store_address, pool(tmp_path))
    with Child(HOLD.format(then=then), store_address) as parent:
        bound, detached = map(int, parent.hear().split())
        grandchild = int(parent.hear())
        try:
            parent.process.kill()
            parent.process.wait()
            os.kill(grandchild, 0)  # still there
            assert cli("reclaim").returncode == 0
            assert [lease["id"] for lease in cli("leases", "--json").objects] == [detached]
        finally:
            os.kill(grandchild, 9)
    assert bound != detached


def test_a_forked_child_that_ends_does_not_end_its_parents_lease(store_address: str, tmp_path: Path, cli: Cli) -> None:
    offer(store_address, pool(tmp_path))
    then = "child = os.fork()\nif not child:\n    sys.exit()\nos.waitpid(child, 0)\nsay('gone')"
    with Child(HOLD.format(then=then), store_address) as parent:
        bound, detached = map(int, parent.hear().split())
        parent.expect("gone")
        assert cli("reclaim").returncode == 0
        assert [lease["id"] for lease in cli("leases", "--json").objects] == [bound, detached]


def test_a_waiter_that_is_killed_is_passed_over(store_address: str, tmp_path: Path, cli: Cli) -> None:
    """A request is bound to whoever waits: when it dies, the next in line gets what is freed."""
    offer(store_address, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}})
    wait = 'import drydock\ndock = drydock.connect(sys.argv[1])\nsay("ready")\nlease = dock.lease("host")\nsay(lease.id)\nhear()'
    with drydock.connect(store_address) as dock:
        mine = dock.lease("host", wait=0)
        with Child(wait, store_address) as first, Child(wait, store_address) as second:
            first.expect("ready")
            second.expect("ready")
            while len(dock.leases()) < 3:
                dock._engine.store.wait_for_news(60.0)
            waiting = {lease.id for lease in dock.leases()} - {mine.id}
            first.kill()
            mine.release()
            granted = int(second.hear())
            assert granted in waiting
            with drydock.connect(store_address) as other:  # whoever comes ends what the dead one asked for
                assert [lease.id for lease in other.leases()] == [granted]


def test_the_command_outlives_nobody(store_address: str, tmp_path: Path, cli: Cli) -> None:
    """A lease that the command `drydock lease` took is nobody's process; a request that it still waits for is."""
    offer(store_address, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}})
    [lease] = cli("lease", "--type", "host", "--json").objects
    waiting = cli.start("lease", "--type", "host")
    assert waiting.stderr is not None
    assert "waiting for" in waiting.stderr.readline()
    waiting.kill()
    waiting.communicate()
    assert cli("reclaim").returncode == 0
    assert [held["id"] for held in cli("leases", "--json").objects] == [lease["id"]]
