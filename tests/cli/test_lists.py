"""drydock leases, resources, blueprints, bindings, locks, log"""

import signal

import pytest
from conftest import Cli
from in_process import InProcess

from .conftest import MARKUP
from .terminal import on_a_terminal

pytestmark = pytest.mark.usefixtures("path")

#: a list, what it has in each object, and the fields of its first row
LISTS = {
    "leases": {"id", "status", "type", "blueprint", "owner", "priority", "attributes", "fence", "until", "ttl", "created_at", "resource"},
    "resources": {"id", "name", "type", "blueprint", "status", "attributes"},
    "blueprints": {"name", "kind", "type", "enabled"},
    "bindings": {"name", "blueprint", "enabled", "resource"},
    "locks": {"key", "holder", "taken_at"},
    "log": {"id", "at", "event", "lease", "resource", "blueprint", "data"},
}  # fmt: skip


#: what a drawn table leaves out when it tells nothing
SPARE = ("PRIORITY", "FENCE", "LEFT", "WANTED", "IDLE", "NOTE", "ATTRIBUTES")


@pytest.fixture
def held(lab: InProcess) -> InProcess:
    """All three hosts are leased, and one is given back."""
    lab("lease", "-t", "host", "--count", "3")
    lab("release", "2")
    return lab


@pytest.mark.parametrize("name", LISTS)
def test_one_object_a_line_with_the_keys_of_the_contract(name: str, held: InProcess) -> None:
    done = held(name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.objects
    for item in done.objects:
        assert set(item) >= LISTS[name]
    if name in ("bindings", "locks", "log"):
        assert all(set(item) == LISTS[name] for item in done.objects)


@pytest.mark.parametrize("name", [name for name in LISTS if name != "log"])
def test_tabs_for_programs_and_a_drawn_table_for_people(name: str, held: InProcess, cli: Cli) -> None:
    """Both say the same, and the values mean nothing to whoever prints them."""
    lines = held(name).stdout.splitlines()
    number = len(held(name, "--json").objects)
    assert len(lines) == number + 1
    assert len({line.count("\t") for line in lines}) == 1
    seen = on_a_terminal(cli, name, columns=250)
    assert seen.code == 0
    header, rule, *rows = seen.lines
    assert [word.upper() for word in header] == [
        column
        for column, *cells in zip(*(line.split("\t") for line in lines), strict=True)
        if column not in SPARE or set(cells) - {"-", "0"}
    ]
    assert set(rule[0]) == {"\u2500"}
    assert len(rows) == number
    if name == "resources":
        assert MARKUP in seen.text
        assert MARKUP in held(name).stdout


@pytest.mark.parametrize("columns", ["1", "0", "30", "1000000", "x"])
@pytest.mark.parametrize("name", LISTS)
def test_one_record_a_line_however_wide(name: str, columns: str, held: InProcess, cli: Cli) -> None:
    """CLI-061: what does not fit into a table is not drawn as one."""
    seen = on_a_terminal(cli, name, columns=250, COLUMNS=columns)
    assert seen.code == 0
    names = [str(item.get("id", item.get("name", item.get("key")))) for item in held(name, "--json").objects]
    rows = seen.lines if name == "log" else [row for row in seen.lines[1:] if set(row[0]) != {"\u2500"}]
    assert len(rows) == len(names)
    if name != "log":
        assert [row[0] for row in rows] == names


def test_a_narrow_terminal_cuts_no_id_short(held: InProcess, cli: Cli) -> None:
    for columns in (20, 79, 80, 90):
        seen = on_a_terminal(cli, "locks", columns=columns)
        for lock in held("locks", "--json").objects:
            assert lock["key"] in seen.text.replace("\n", "")


def test_those_that_are_over_are_shown_when_asked_for(held: InProcess) -> None:
    assert [lease["id"] for lease in held("leases", "--json").objects] == [1, 3]
    assert [lease["id"] for lease in held("leases", "--all", "--json").objects] == [1, 2, 3]
    held("release-resource", "2")
    assert [resource["id"] for resource in held("resources", "--json").objects] == [1, 3]
    assert [resource["id"] for resource in held("resources", "--all", "--json").objects] == [1, 2, 3]


def test_leases_of_one_owner(held: InProcess) -> None:
    held("lease", "-t", "host", "--owner", "other")
    assert [lease["id"] for lease in held("leases", "--owner", "other", "--json").objects] == [4]
    assert held("leases", "--owner", "nobody").stdout == ""


def test_kinds(drydock: InProcess) -> None:
    kinds = {kind["kind"]: kind for kind in drydock("blueprints", "--kinds", "--json").objects}
    assert set(kinds) >= {"host-pool", "almanac-hosts", "scratch-dir"}
    assert kinds["host-pool"]["type"] == "host"
    assert kinds["host-pool"]["origin"].startswith("drydock-allocator ")
    assert "hosts" in kinds["host-pool"]["settings"]
    header, *rows = drydock("blueprints", "--kinds").stdout.splitlines()
    assert header == "KIND\tTYPE\tFROM\tABOUT\tSETTINGS"
    assert len(rows) == len(kinds)


def test_bindings_tell_what_stands_on_them(held: InProcess) -> None:
    held("disable", "binding:h1")
    assert [(b["name"], b["enabled"], b["resource"]) for b in held("bindings", "--json").objects] == [
        ("h1", False, 1), ("h2", True, 2), ("h3", True, 3),
    ]  # fmt: skip


def test_the_log_of_one_lease_of_one_event_and_the_newest(held: InProcess) -> None:
    assert {event["lease"] for event in held("log", "lease:2", "--json").objects} == {2}
    assert held("log", "2").stdout == held("log", "lease:2").stdout
    held("release-resource", "2")
    history = held("log", "resource:2", "--json").objects
    assert [event["event"] for event in history] == ["resource.activated", "resource.released", "resource.destroyed"]
    assert {event["resource"] for event in history} == {2}
    assert {event["event"] for event in held("log", "--event", "lease.released", "--json").objects} == {
        "lease.released"
    }
    ids = [event["id"] for event in held("log", "--json").objects]
    assert [event["id"] for event in held("log", "--lines", "2", "--json").objects] == ids[-2:]


def test_the_log_can_be_followed(held: InProcess, cli: Cli) -> None:
    following = cli.start("log", "--follow", "--lines", "1", "--json")
    assert following.stdout is not None
    following.stdout.readline()
    held("release", "1")
    assert '"lease.released"' in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "Traceback" not in err


def test_the_log_of_one_lease_can_be_followed(held: InProcess, cli: Cli) -> None:
    following = cli.start("log", "lease:1", "--follow", "--lines", "1", "--json")
    assert following.stdout is not None
    following.stdout.readline()
    cli("disable", "blueprint:lab")  # an event, but not about the lease
    cli("release", "1")
    assert '"lease.released"' in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)


def test_a_narrow_terminal_is_spared_what_can_be_spared(lab: InProcess, cli: Cli) -> None:
    """Column by column, before the drawing is given up."""
    lab("lease", "-t", "host", "--priority", "7", "--ttl", "1h")
    wide, narrow = (on_a_terminal(cli, "leases", columns=columns) for columns in (120, 72))
    assert {"priority", "fence", "left"} <= set(wide.lines[0])
    assert set(wide.lines[0]) - set(narrow.lines[0]) >= {"priority"}
    assert {"id", "status", "resource", "owner"} <= set(narrow.lines[0])
    assert set(narrow.lines[1][0]) == {"\u2500"}
