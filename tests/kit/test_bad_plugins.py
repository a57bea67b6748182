"""The kit against plugins that are bad on purpose: each is caught, and its author reads what a user would meet."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from drydock.testing import BlueprintContract

BAD = Path(__file__).parent / "bad_plugins"

#: plugin, the test that catches it, and how its sentence begins, FOLDER being the folder that it worked in
CAUGHT = [
    ("locks_nothing", "test_each_thing_has_a_slot_lock_of_its_own",
     'two users would get "one" at once, because it locks nothing'),
    ("locks_nothing", "test_two_processes_never_get_the_same_thing", 'two users had "one" at once'),
    ("locks_nothing", "test_in_no_order_of_steps_do_two_get_the_same_thing",
     'two users would get the same thing, or one would get none, in this order of steps: two resources are "one" at once'),
    ("only_counts", "test_each_thing_has_a_slot_lock_of_its_own",
     '3 users would get "one" at once and activate would work on it for each, because "folders" only counts'),
    ("one_lock_for_two", "test_each_thing_has_a_slot_lock_of_its_own",
     'a user who has "one" keeps everybody from "two": they share the slot lock "folder('),
    ("locks_its_own_name", "test_two_blueprints_that_list_one_thing_lock_the_same",
     'two users would get "one" at once if two blueprints list it: the slot locks "one(one)" depend on the blueprint\'s name'),
    ("another_order", "test_it_offers_the_same_whenever_it_is_asked",
     "it offers something else in another process, where sets have another order"),
    ("activates_once", "test_hooks_may_come_in_every_order_that_a_crash_gives[activate-twice]",
     "when a crash makes it come after activate, activate fails, so whoever asked for it gets nothing, though it could be built:"
     " FileExistsError"),
    ("destroys_once", "test_hooks_may_come_in_every_order_that_a_crash_gives[destroy-twice]",
     "when a crash makes it come after activate, destroy, destroy fails, so it is never free again, and nobody else gets it:"
     " FileNotFoundError"),
    ("leaves_a_half", "test_a_crash_leaves_nothing_behind[activate]", "a crash in activate at leaves_a_half.py line "),
    ("believes_a_half", "test_a_crash_leaves_nothing_behind[activate]",
     "after a crash in activate at believes_a_half.py line 22, before open: shutil.copytree("),
    ("leaves_it_to_the_next", "test_a_crash_leaves_nothing_behind[activate_lease]",
     'after a crash in activate_lease at leaves_it_to_the_next.py line 25: (folder / "ready").touch(), the next holder finds it'
     ' otherwise than usual: "one/secret" is left'),
    ("remembers", "test_each_hook_finds_what_it_needs_in_a_process_of_its_own",
     "it keeps something in memory between hooks, and each runs in a process of its own, so no lease ever works: destroy:"
     " AttributeError"),
    ("not_json", "test_it_offers_something",
     'nobody gets a lease, because it cannot say what it offers: BlueprintError: blueprint "kit" failed in plans: plan: "path":'),
    ("not_json", "test_its_attributes_survive_json",
     'whoever holds "one", and its hooks, find other attributes than you gave it: attributes: "path":'),
    ("loses_a_tuple", "test_its_attributes_survive_json",
     "whoever holds \"one\", and its hooks, find other attributes than you gave it: {'size': [2, 3]} for {'size': (2, 3)}"),
    ("silent_setting", "test_its_settings_can_be_understood",
     'setting "root" has no help: a user who leaves it out is not told what is missing'),
    ("trusts_its_pool_file", "test_hostile_settings_are_refused_or_harmless",
     'a pool file with folders = [""] is told of a bug of yours instead of a mistake in the file, TypeError'),
    ("sees_no_death", "test_its_looks_do_no_harm",
     "observe takes a thing for there that was destroyed: one that dies is handed out for ever"),
    ("forgets_the_wish", "test_it_offers_what_was_asked_for",
     'whoever asks for {"label":"nightly"} again would not get the idle "one", and a new one is built each time'),
    ("escapes", "test_hostile_attributes_are_refused_or_harmless",
     'a lease that asks for {"label": "'),
    ("asks_a_shell", "test_hostile_attributes_are_refused_or_harmless",
     'a lease that asks for {"label": "`touch canary`"} runs a command of the user\'s choice: what he asks for comes to a shell'),
    ("trusts_its_user", "test_hostile_attributes_are_refused_or_harmless",
     'a user who asks for {"cores": ""} is told of a bug of yours instead of his mistake, TypeError'),
    ("says_no", "test_each_hook_finds_what_it_needs_in_a_process_of_its_own",
     "no lease ever works: activate: TypeError: must return nothing, not bool"),
    ("hangs", "test_hooks_may_come_in_every_order_that_a_crash_gives[as-it-should-be]",
     "activate before anything else hangs: the user waits until `time_limit`, and whoever asked for it gets nothing"),
    ("no_name", "test_it_offers_something",
     'nobody gets a lease, because it cannot say what it offers: BlueprintError: blueprint "kit" failed in plans: plan: name'
     ' "one of many" is not allowed'),
    ("builds_when_asked", "test_to_ask_changes_nothing", 'to ask what it offers made "deep/folder/one", "one"'),
    ("another_version", "test_drydock_can_load_it",
     "Bad was written for version 2 of the interface, and this Drydock has 1: it is not loaded"),
]  # fmt: skip


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What the kit says of each, in one run of pytest as its author would start it."""
    folder = tmp_path_factory.mktemp("bad")
    chosen = [f"{plugin}.py::TestIt::{test}" for plugin, test, _ in CAUGHT]
    report = folder / "report.xml"
    words = ["-p", "no:cacheprovider", "--rootdir", str(BAD), "-c", os.devnull, f"--basetemp={folder / 'temp'}"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--junitxml={report}", *chosen],
        cwd=BAD,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failure = case.find("failure")
        plugin = case.attrib["classname"].split(".")[0]
        found[plugin, case.attrib["name"]] = "" if failure is None else failure.attrib["message"]
    return found


@pytest.mark.parametrize(("plugin", "test", "sentence"), CAUGHT, ids=[f"{row[0]}-{row[1]}" for row in CAUGHT])
def test_a_bad_plugin_is_caught_and_told_what_a_user_would_meet(
    sentences: dict[tuple[str, str], str], plugin: str, test: str, sentence: str
) -> None:
    assert sentences[plugin, test].removeprefix("Failed: ").startswith(sentence)


def test_every_test_of_the_kit_has_caught_something() -> None:
    tests = {name for name in vars(BlueprintContract) if name.startswith("test_")}
    assert tests == {row[1].partition("[")[0] for row in CAUGHT}


def test_every_bad_plugin_is_tried() -> None:
    assert {path.stem for path in BAD.glob("*.py")} == {row[0] for row in CAUGHT}
