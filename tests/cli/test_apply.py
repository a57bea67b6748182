"""drydock apply"""

from pathlib import Path

import pytest
from in_process import InProcess

pytestmark = pytest.mark.usefixtures("path")


def changes(drydock: InProcess, *words: str) -> list[tuple[str, str, str | None, str, int]]:
    return [
        (c["kind"], c["name"], c["blueprint"], c["change"], c["leases"])
        for c in drydock("apply", *words, "--json").objects
    ]


def test_what_it_added(drydock: InProcess, pool: Path) -> None:
    done = drydock("apply", str(pool))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "blueprint lab: added", "binding h1 in lab: added", "binding h2 in lab: added", "binding h3 in lab: added",
    ]  # fmt: skip


def test_a_second_time_changes_nothing(lab: InProcess, pool: Path) -> None:
    events = len(lab("log", "--json").objects)
    done = lab("apply", str(pool))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing to change\n")
    assert lab("apply", str(pool), "--json").stdout == ""
    assert len(lab("log", "--json").objects) == events


def test_a_plan_says_what_would_change_and_changes_nothing(lab: InProcess, pool: Path) -> None:
    pool.write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h2", "h4"]')
    before = lab("bindings").stdout
    done = lab("apply", str(pool), "--plan")
    assert "binding h4 in lab: would be added" in done.stdout
    assert "binding h1 in lab: would be removed" in done.stdout
    planned = changes(lab, str(pool), "--plan")
    assert lab("bindings").stdout == before
    assert changes(lab, str(pool)) == planned
    assert lab("bindings").stdout != before


def test_what_live_leases_stand_on_is_drained(lab: InProcess, pool: Path) -> None:
    lab("lease", "-t", "host", "--count", "3")
    pool.write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h2"]')
    done = lab("apply", str(pool))
    assert "binding h1 in lab: drained (1 live leases go on)" in done.stdout
    assert [lease["status"] for lease in lab("leases", "--json").objects] == ["active"] * 3
    assert lab("release", "1", "3").returncode == 0
    assert [binding["name"] for binding in lab("bindings", "--json").objects] == ["h2"]


def test_prune_disables_what_the_file_no_longer_has(lab: InProcess, pool: Path) -> None:
    lab("lease", "-t", "host")
    pool.write_text('[blueprint.attic]\nkind = "host-pool"\nhosts = ["old"]')
    assert ("blueprint", "lab", None, "disabled", 1) not in changes(lab, str(pool), "--plan")
    assert ("blueprint", "lab", None, "disabled", 1) in changes(lab, str(pool), "--plan", "--prune")
    assert ("blueprint", "lab", None, "disabled", 1) in changes(lab, str(pool), "--prune")
    assert {b["name"]: b["enabled"] for b in lab("blueprints", "--json").objects} == {"lab": False, "attic": True}
    assert [lease["id"] for lease in lab("leases", "--json").objects] == [1]
    [lease] = lab("lease", "-t", "host", "--json").objects
    assert lease["resource"]["name"] == "old"
