"""On a disk that is really full what is held can still be given back, and nothing is lost when there is room again."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
#: ways to a mount that nobody else sees and that ends with its process: as root, as oneself, as a CI machine allows
WAYS = (
    ["unshare", "--mount"],
    ["unshare", "--mount", "--user", "--map-root-user"],
    ["sudo", "-nE", "unshare", "--mount"],
)
MOUNT = 'mount -t tmpfs -o size=4m,mode=700 none "$0" && exec "$@"'


def on_a_small_disk(folder: Path, *command: str) -> str:
    """What `command` prints, which has a file system of 4 MiB for itself at `folder`."""
    folder.mkdir()
    tried = []
    for way in WAYS:
        inside = [*way, "sh", "-c", MOUNT, str(folder)]
        probe = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
        tried.append(f"{' '.join(way)}: {probe.stderr.strip()}")
        if probe.returncode == 0:
            done = subprocess.run([*inside, *command], capture_output=True, text=True, cwd=TESTS, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout
    raise AssertionError(f"no way to mount a small file system here, which this test needs: {tried}")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full") / "disk"
    told: dict[str, Any] = json.loads(on_a_small_disk(folder, sys.executable, "-m", "faults.full_disk", str(folder)))
    return told


def test_what_asks_for_more_fails_and_says_why(told: dict[str, Any]) -> None:
    """Whether it opens the store or has it open."""
    code, sentence = told["lease"]
    assert code == 7
    for said in (sentence.strip(), told["in vain"]):
        assert said.endswith("is full; nothing was changed, and releasing still works")


def test_commands_can_look_and_give_back(told: dict[str, Any]) -> None:
    """Each opens the store anew, which itself needs room; one of the leases has a hook that must run."""
    assert told["leases"] == 81
    assert told["commands"] == [0, ""] * 10
    assert told["doctor"] == 0


def test_a_process_that_has_it_open_can_give_all_back(told: dict[str, Any]) -> None:
    """Their log alone is several times the room that is kept."""
    assert told["released"] == ["True"] * 64


def test_what_was_just_written_has_room_already(told: dict[str, Any]) -> None:
    """Tables, and thousands of hosts: the room that is kept would not be enough to move them from the log."""
    assert told["young"] == "True"


def test_who_closes_the_store_leaves_it_to_those_who_have_it_open(told: dict[str, Any]) -> None:
    """One is of the same process, where all locks on a file go with the first descriptor of it that is closed."""
    assert told["beside it"] == ["True"] * 2


def test_doctor_tells_how_much_is_left_for_that(told: dict[str, Any]) -> None:
    [less] = told["less"]
    assert re.match(r"\d+ of 256 KiB are kept for giving things back on a full disk; ", less)
    assert told["enough"] == []


def test_nothing_is_lost_when_there_is_room_again(told: dict[str, Any]) -> None:
    assert told["broken"] == []
    assert told["kept"] is True
    assert told["in time"] == "lease 82"
    assert told["reserve"] == 256 * 1024


@pytest.mark.parametrize("what", ["fills_the_disk", "fills_the_disk_and_raises"])
def test_a_hook_that_fills_the_disk_keeps_nobody_from_giving_back(tmp_path: Path, what: str) -> None:
    """PLUGIN-072: also what the hook came to is recorded, in the room that is kept for that."""
    folder = tmp_path / "disk"
    told = json.loads(on_a_small_disk(folder, sys.executable, "-m", "faults.disk_filled_by_a_hook", str(folder), what))
    raises = what == "fills_the_disk_and_raises"
    assert told["thing"][0] == (6 if raises else 0)
    assert ("failed in activate: OSError: [Errno 28] No space left on device" in told["thing"][1]) is raises
    assert told["others"] == [[0, ""]] * 3
    code, sentence = told["more"]
    assert (code, sentence.count("\n")) == (7, 1)
    assert sentence.endswith("is full; nothing was changed, and releasing still works\n")
    assert told["room"] == 0
    assert told["held"] == ["host", "host"] + ["thing"] * (not raises)
