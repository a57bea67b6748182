"""drydock lease"""

import json
import re
from pathlib import Path

import pytest
from conftest import Cli
from in_process import InProcess

from .terminal import Terminal

KEYS = {
    "id", "status", "type", "blueprint", "owner", "priority", "attributes", "fence", "until", "ttl", "created_at", "resource",
}  # fmt: skip
RESOURCE_KEYS = {"id", "name", "type", "blueprint", "status", "attributes"}
MOMENT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def test_the_object_of_the_contract(lab: InProcess) -> None:
    done = lab("lease", "--type", "host", "--attributes", '{"arch": "arm64"}', "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [lease] = done.objects
    assert set(lease) >= KEYS
    assert set(lease["resource"]) >= RESOURCE_KEYS
    assert (lease["id"], lease["status"], lease["type"], lease["blueprint"]) == (1, "active", "host", "lab")
    assert (lease["owner"], lease["priority"], lease["attributes"], lease["fence"]) == (
        "tester",
        0,
        {"arch": "arm64"},
        1,
    )
    assert (lease["until"], lease["ttl"]) == (None, None)
    assert MOMENT.fullmatch(lease["created_at"])
    assert (lease["resource"]["id"], lease["resource"]["name"], lease["resource"]["status"]) == (1, "h3", "active")


def test_the_fence_grows(lab: InProcess) -> None:
    fences = []
    for _ in range(3):
        [lease] = lab("lease", "-t", "host", "-a", '{"arch": "arm64"}', "--json").objects
        fences.append(lease["fence"])
        lab("release", str(lease["id"]))
    assert fences == [1, 2, 3]


def test_what_a_person_is_told(lab: InProcess) -> None:
    done = lab("lease", "-t", "host")
    assert done.stdout == "lease 1: host h1 from lab, fence 1\n"
    assert done.stderr == "give it back with: drydock release 1\n"


def test_several_at_once_or_none(lab: InProcess) -> None:
    leases = lab("lease", "-t", "host", "--count", "3", "--json").objects
    assert sorted(lease["resource"]["name"] for lease in leases) == ["h1", "h2", "h3"]
    lab("release", "1")
    assert lab("lease", "-t", "host", "--count", "2", "--no-wait").returncode == 3
    assert len(lab("leases", "--json").objects) == 2


def test_attributes_from_a_file_and_from_stdin(lab: InProcess, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "wanted.json").write_text('{"arch": "arm64"}')
    [first] = lab("lease", "-t", "host", "-a", f"@{tmp_path}/wanted.json", "--json").objects
    assert first["resource"]["name"] == "h3"
    lab("release", "1")
    [second] = cli("lease", "-t", "host", "-a", "-", "--json", input='{"arch": "arm64"}').objects
    assert second["resource"]["name"] == "h3"


def test_a_switched_off_blueprint_is_named(lab: InProcess) -> None:
    lab("disable", "blueprint:lab")
    done = lab("lease", "-t", "host", "--no-wait")
    assert done.returncode == 3
    assert 'blueprint "lab" is disabled; switch it on with: drydock enable blueprint:NAME' in done.stderr


def test_waiting_says_who_holds_what_since_when_and_how_many_are_ahead(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3", "--owner", "ci@runner7")
    first = cli.start("lease", "-t", "host", "--json")
    assert first.stderr is not None
    said = first.stderr.readline()
    assert re.fullmatch(
        r"waiting for host \(lease 4\): h1 held by lease 1 \(ci@runner7\) since \d\d:\d\d:\d\d; "
        r"h2 held by lease 2 \(ci@runner7\) since \d\d:\d\d:\d\d; h3 held by lease 3 \(ci@runner7\) since \d\d:\d\d:\d\d\n",
        said,
    ), said
    second = cli.start("lease", "-t", "host", "--json")
    assert second.stderr is not None
    assert second.stderr.readline().endswith("; 1 waiting ahead\n")
    lab("release", "1", "2")
    told = [json.loads(waiting.communicate(timeout=60)[0]) for waiting in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert [lease["id"] for lease in told] == [4, 5]
    assert {lease["resource"]["name"] for lease in told} == {"h1", "h2"}


def test_waiting_on_a_terminal_is_one_line_that_lives(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3", "--owner", "[red]ci[/red]")
    terminal = Terminal(cli, "lease", "-t", "host", columns=200)
    terminal.read_until("waiting for host (lease 4): h1 held by lease 1 ([red]ci[/red]) for ")
    lab("release", "1")
    seen = terminal.finish()
    assert seen.code == 0
    assert "lease 4: host h1 from lab, fence 2" in seen.text


def test_waiting_on_a_terminal_that_cannot_move_its_cursor_is_told_all_the_same(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3")
    terminal = Terminal(cli, "lease", "-t", "host", columns=200, TERM="dumb")
    terminal.read_until("waiting for host (lease 4): h1 held by lease 1 (tester) since ")
    lab("release", "1")
    assert terminal.finish().code == 0


def test_control_c_on_a_terminal_leaves_no_lease(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "--count", "3")
    terminal = Terminal(cli, "lease", "-t", "host", columns=200)
    terminal.read_until("waiting for host")
    terminal.process.send_signal(2)
    seen = terminal.finish()
    assert seen.code == 130
    assert "Traceback" not in seen.text
    assert seen.raw.rfind("\x1b[?25h") > seen.raw.rfind("\x1b[?25l"), "the cursor is shown again"
    assert len(lab("leases", "--json").objects) == 3


@pytest.mark.parametrize("flag", ["--no-slot-locks", "--race-delay=0"])
def test_the_race_laboratory_is_shut(flag: str, lab: InProcess) -> None:
    assert lab("lease", "-t", "host", flag).returncode == 9
    assert lab("lease", "-t", "host", flag, DRYDOCK_RACE_LAB="yes").returncode == 9
    assert lab("lease", "-t", "host", flag, DRYDOCK_RACE_LAB="1").returncode == 0
