"""Rows that somebody else wrote: lists show the others and name them, `doctor` counts them as broken promises."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from in_process import InProcess

from .planting import copy_of, plant
from .refusals import is_safe

LISTS = (
    "leases",
    "leases --all",
    "resources",
    "resources --all",
    "blueprints",
    "bindings",
    "locks",
    "log",
    "show resource:2",
)
NOT_UTF8 = "CAST(x'7bff7d' AS TEXT)"
FAR_TOO_LONG = "CAST(zeroblob(70000000) AS TEXT)"


@pytest.fixture
def store(pool: Path, path: Path, drydock: InProcess) -> Path:
    """Two leases, on h1 and h2, and what became of a third."""
    told = drydock("lease", "-t", "host", "-b", "lab", "--count", "2", "--json", "--owner", "ci")
    assert told.returncode == 0, told.stderr
    assert drydock("lease", "-t", "host", "-b", "attic").returncode == 0
    assert drydock("release", "3").returncode == 0
    return path


#: id, what is planted, the list that leaves it out, and how it is called
DAMAGED = [
    ("DB-057", "UPDATE lease SET status = 'foo' WHERE id = 1", "leases", 'lease 1 is damaged (unknown status "foo")'),
    ("DB-057-resource", "UPDATE resource SET status = 'foo\x1b[2J' WHERE id = 3", "resources",
     r'resource 3 is damaged (unknown status "foo\x1b[2J")'),
    ("DB-058", "UPDATE lease SET attributes = '{' WHERE id = 1", "leases", "lease 1 is damaged (attributes: not JSON)"),
    ("DB-058-list", "UPDATE lease SET attributes = '[1]' WHERE id = 1", "leases",
     "lease 1 is damaged (attributes: not a JSON object)"),
    ("DB-058-deep", f"UPDATE lease SET attributes = '{'[' * 20000}' WHERE id = 1", "leases", "lease 1 is damaged ("),
    ("DB-058-not-utf8", f"UPDATE lease SET attributes = {NOT_UTF8} WHERE id = 1", "leases",
     "lease 1 is damaged (attributes: not text)"),
    ("DB-058-huge", f"UPDATE lease SET attributes = {FAR_TOO_LONG} WHERE id = 1", "leases",
     "lease 1 is damaged (attributes: not text)"),
    ("DB-058-resource", "UPDATE resource SET attributes = 'null' WHERE id = 3", "resources",
     "resource 3 is damaged (attributes: not a JSON object)"),
    ("DB-058-owner", f"UPDATE lease SET owner = {NOT_UTF8} WHERE id = 1", "leases", "lease 1 is damaged (owner: not text)"),
    ("DB-058-keys", "UPDATE lease SET slot_locks = '[1]' WHERE id = 1", "leases",
     "lease 1 is damaged (slot_locks: not a list of texts)"),
    ("DB-058-blueprints", "UPDATE lease SET blueprints = '{}' WHERE id = 1", "leases", "lease 1 is damaged (blueprints: "),
    ("DB-058-event", "UPDATE event SET data = 'x' WHERE id = 5", "log", "event 5 is damaged (data: not JSON)"),
    ("DB-058-binding", f"UPDATE binding SET name = {NOT_UTF8} WHERE id = 4", "bindings",
     "binding 4 is damaged (name: not text)"),
    ("DB-058-blueprint", f"UPDATE blueprint SET hooks = {NOT_UTF8} WHERE id = 2", "blueprints",
     "blueprint 2 is damaged (hooks: not text)"),
    ("DB-061", "UPDATE lease SET until = 9.2e18 WHERE id = 1", "leases", "lease 1 is damaged (until: not a moment: 9.2e+18)"),
    ("DB-061-minus", "UPDATE lease SET created_at = -1 WHERE id = 1", "leases", "lease 1 is damaged (created_at: not a moment"),
    ("DB-061-infinite", "UPDATE lease SET granted_at = 9e999 WHERE id = 1", "leases", "lease 1 is damaged (granted_at: "),
    ("DB-061-event", "UPDATE event SET at = 1e300 WHERE id = 5", "log", "event 5 is damaged (at: not a moment"),
    ("DB-061-lock", "UPDATE slot_lock SET taken_at = -5 WHERE key = 'host(h1)'", "locks",
     'slot lock "host(h1)" is damaged (taken_at: not a moment'),
]  # fmt: skip


@pytest.mark.parametrize(("id", "planted", "where", "words"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_a_damaged_row_is_named_and_the_others_are_shown(
    id: str, planted: str, where: str, words: str, store: Path, drydock: InProcess
) -> None:
    whole = {words: drydock(*words.split(), "--json").stdout.splitlines() for words in LISTS}
    plant(store, planted)
    for verb in LISTS:
        for form in ([], ["--json"]):
            done = drydock(*verb.split(), *form)
            assert done.returncode == 0, done.stderr
            assert is_safe(done.stdout)
            assert is_safe(done.stderr)
            for sentence in done.stderr.splitlines():
                assert sentence.startswith("drydock: ")
                assert sentence.endswith("; see: drydock doctor")
            if form:
                shown = done.stdout.splitlines()
                assert [json.loads(line) for line in shown]
                assert len(shown) == len(whole[verb]) - len(done.stderr.splitlines())
            if verb == where:
                assert f"drydock: {words}" in done.stderr
    doctor = drydock("doctor", "--json")
    assert doctor.returncode == 8, doctor.stderr
    about = words.partition(" is damaged")[0]
    findings = [json.loads(line) for line in doctor.stdout.splitlines()]
    assert [about] in [finding["holders"] for finding in findings if finding["rule"] == "damaged-row"]


@pytest.mark.parametrize(("id", "planted", "where", "words"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_the_others_can_be_leased_and_released(
    id: str, planted: str, where: str, words: str, store: Path, drydock: InProcess
) -> None:
    plant(store, planted)
    told = drydock("lease", "-t", "host", "-b", "lab", "--json", "--no-wait")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["resource"]["name"] == "h3"
    assert drydock("release", str(json.loads(told.stdout)["id"])).returncode == 0
    assert drydock("release", "2").returncode == 0


@pytest.mark.parametrize("verb", ["release 1", "show 1"])
def test_what_is_damaged_is_told_when_it_is_asked_for(verb: str, store: Path, drydock: InProcess) -> None:
    plant(store, "UPDATE lease SET status = 'foo' WHERE id = 1")
    done = drydock(*verb.split())
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == 'drydock: lease 1 is damaged (unknown status "foo"); see: drydock doctor\n'


def test_a_process_that_nobody_can_be_called(store: Path, drydock: InProcess) -> None:
    """DB-064: the lease ends as if that process had died."""
    plant(store, "UPDATE lease SET process = 'not a name' WHERE id = 1", "UPDATE lease SET process = '-1' WHERE id = 2")
    assert drydock("lease", "-t", "host", "-b", "attic").returncode == 0
    assert [json.loads(line)["id"] for line in drydock("leases", "--json").stdout.splitlines()] == [4]


#: id, what is planted, the rules that it breaks
BROKEN: list[tuple[str, Sequence[str], set[str]]] = [
    ("DB-060", [copy_of("lease", "id = 1")], {"over-seated", "miscount", "slot-lock-not-held"}),
    ("DB-060-resource", [copy_of("resource", "id = 1")], {"double-allocation", "miscount", "slot-lock-not-held"}),
    ("DB-062", ["UPDATE resource SET fence = 0 WHERE id = 1"], {"fence-regression"}),
    ("DB-063-orphan", ["INSERT INTO slot_lock VALUES ('x', 'lease:99', 0)"], {"dead-holder"}),
    ("DB-063-dead", ["INSERT INTO slot_lock VALUES ('x', 'lease:3', 0)"], {"dead-holder"}),
    ("DB-063-nonsense", ["INSERT INTO slot_lock VALUES ('x', 'nobody', 0)"], {"dead-holder"}),
    ("DB-063-missing", ["DELETE FROM slot_lock WHERE key = 'host(h1)'"], {"slot-lock-not-held"}),
    ("DB-063-stolen", ["UPDATE slot_lock SET holder = 'resource:2' WHERE key = 'host(h1)'"], {"slot-lock-not-held"}),
    ("DB-063-count", ["UPDATE resource SET used = 0 WHERE id = 1"], {"miscount"}),
    ("DB-063-live", ["UPDATE blueprint SET live = 9 WHERE id = 1"], {"miscount"}),
    ("DB-063-gone", ["UPDATE resource SET status = 'destroyed' WHERE id = 1"], {"lease-on-the-dead", "miscount", "dead-holder"}),
    ("DB-063-nowhere", ["UPDATE lease SET resource = 999 WHERE id = 1"], {"lease-on-the-dead", "miscount"}),
]  # fmt: skip


def rules(drydock: InProcess) -> set[str]:
    return {line["rule"] for line in map(json.loads, drydock("doctor", "--json").stdout.splitlines()) if line["broken"]}


@pytest.mark.parametrize(("id", "planted", "broken"), BROKEN, ids=[row[0] for row in BROKEN])
def test_doctor_names_the_broken_promise(
    id: str, planted: Sequence[str], broken: set[str], store: Path, drydock: InProcess
) -> None:
    assert rules(drydock) == set()
    plant(store, *planted)
    before = store.read_bytes()
    done = drydock("doctor")
    assert done.returncode == 8
    assert rules(drydock) == broken
    assert f"{done.stdout.count('BROKEN')} broken promises" in done.stdout
    assert is_safe(done.stdout)
    assert store.read_bytes() == before
