"""A list tells nothing that is not true any more, though nobody has recorded yet what ended; and it runs no hook."""

from datetime import datetime
from pathlib import Path

import pytest
from conftest import Cli
from in_process import InProcess

from drydock.cli.app import App
from drydock.engine import Engine
from drydock.testing.children import Child

HOLD = """
import drydock
dock = drydock.connect(sys.argv[1])
lease = dock.lease("host")
say(lease.id)
hear()
"""


@pytest.mark.parametrize("how", ["killed", "ttl", "until"])
@pytest.mark.parametrize("verb", ["leases", "locks", "show", "resources", "bindings"])
def test_what_is_over_is_not_shown_as_held(
    verb: str, how: str, lab: InProcess, cli: Cli, store_address: str, engine: Engine
) -> None:
    if how == "killed":
        with Child(HOLD, store_address) as holder:
            holder.expect("1")
            holder.kill()
    else:
        lab("lease", "-t", "host", "--ttl", "1h", "--until", "+1h")
        with engine.store.write():
            engine.store.run(f"UPDATE lease SET {'deadline' if how == 'ttl' else 'until'} = 1 WHERE id = 1")
    found = lab(verb, *(["1"] if verb == "show" else []), "--json").objects
    if verb == "leases":
        assert found == []
    elif verb == "locks":
        assert [lock["holder"] for lock in found] == ["resource:1"]
    elif verb == "show":
        assert found[0]["status"] == "destroyed"
    elif verb == "resources":
        assert [resource["leases"] for resource in found] == [0]
    assert engine.store.rows("SELECT status FROM lease") == [("destroyed",)]


def test_a_list_that_has_nothing_to_record_writes_nothing(lab: InProcess, engine: Engine) -> None:
    lab("lease", "-t", "host", "--ttl", "1h")
    before = engine.store.version()
    for verb in ("leases", "resources", "locks", "bindings", "blueprints", "log"):
        assert lab(verb).returncode == 0
    assert engine.store.version() == before


def test_a_store_that_cannot_be_written_is_listed_as_it_is(lab: InProcess, path: Path, engine: Engine) -> None:
    lab("lease", "-t", "host", "--until", "+1h")
    with engine.store.write():
        engine.store.run("UPDATE lease SET until = 1 WHERE id = 1")
    app = App(str(path))
    app.store.run("PRAGMA query_only = ON")
    assert [lease.status for lease in app.fresh_store.leases.live()] == ["active"]
    app.close()


def test_a_thing_whose_lease_is_over_and_must_be_torn_down_is_left_to_others(
    lab: InProcess, tmp_path: Path, engine: Engine
) -> None:
    """The hook of the lease cleans up a folder, which is no work for a list."""
    (tmp_path / ".drydock-root").touch()
    pool = tmp_path / "scratch.toml"
    pool.write_text(f'[blueprint.tmp]\nkind = "scratch-dir"\nroot = "{tmp_path}"\n')
    assert lab("apply", str(pool)).returncode == 0
    [held] = lab("lease", "-t", "scratch-dir", "--until", "+1h", "--json").objects
    folder = Path(held["resource"]["attributes"]["path"])
    with engine.store.write():
        engine.store.run("UPDATE lease SET until = 1")
    assert [lease["status"] for lease in lab("leases", "--json").objects] == ["released"]
    assert folder.exists()
    lab("worker", "--once")
    assert lab("leases", "--json").objects == []
    assert not folder.exists()


def test_when_a_lease_ends_what_it_is_worth_and_its_fence(lab: InProcess) -> None:
    lab("lease", "-t", "host", "--ttl", "2h", "--priority", "7")
    header, row = (line.split("\t") for line in lab("leases").stdout.splitlines())
    shown = dict(zip(header, row, strict=True))
    assert (shown["PRIORITY"], shown["FENCE"]) == ("7", "1")
    assert shown["LEFT"] in ("2h", "119m")
    [item] = lab("leases", "--json").objects
    assert item["until"] is None
    assert item["ends_at"] is not None
    [alone] = lab("show", "1", "--json").objects
    moments = [datetime.fromisoformat(one["ends_at"]).timestamp() for one in (item, alone)]
    assert moments == pytest.approx([moments[0]] * 2, abs=1.0), "as two clocks say, which are read one after the other"


def test_a_resource_tells_what_is_wrong_with_it(lab: InProcess, engine: Engine) -> None:
    """Its hook fails, it cools down, and its days are counted."""
    lab("lease", "-t", "host", "--count", "3")
    lab("release", "1", "2", "3")
    with engine.store.write():
        engine.store.run("UPDATE resource SET status = 'released', failures = 3, not_before = 4102444800 WHERE id = 1")
        engine.store.run("UPDATE blueprint SET cooldown = 4102444800")  # or its rest would be too long to be true
        engine.store.run("UPDATE resource SET rests_until = 4102444800 WHERE id = 2")
        engine.store.run("UPDATE resource SET until = 4102444800 WHERE id = 3")
    header, *rows = (line.split("\t") for line in lab("resources").stdout.splitlines())
    notes = [row[header.index("NOTE")] for row in rows]
    assert notes[0].startswith("its hook failed 3 times, next try in ")
    assert notes[1].startswith("cools down for ")
    assert notes[2].startswith("goes in ")
    items = lab("resources", "--json").objects
    moment = "2100-01-01T00:00:00.000Z"
    assert [(i["failures"], i["next_try_at"], i["rests_until"], i["until"]) for i in items] == [
        (3, moment, None, None), (0, None, moment, None), (0, None, None, moment),
    ]  # fmt: skip
