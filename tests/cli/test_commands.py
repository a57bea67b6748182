"""What all commands have in common: help, codes, `--store` and `--json` wherever they stand."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import Cli
from in_process import InProcess

from drydock import errors
from drydock.cli import EXIT_CODES
from drydock.cli import drydock as whole

pytestmark = pytest.mark.usefixtures("path")

COMMANDS = dict(whole.commands)
CONTRACT = {
    "apply", "lease", "run", "release", "release-resource", "reclaim", "doctor", "leases", "resources", "blueprints", "bindings",
    "locks", "log", "show", "disable", "enable", "completion", "command", "renew", "verify", "worker", "copy-store",
    "new-blueprint",
}  # fmt: skip


def test_the_commands_of_the_contract() -> None:
    assert set(COMMANDS) == CONTRACT


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_its_help_has_a_summary_and_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    summary, _, rest = command.help.partition("\n")
    assert summary.endswith((".", "?"))
    assert len(summary) < 90
    assert f"drydock {name}" in rest.partition("\b")[2], "no example"


def test_the_list_of_all_commands_tells_of_each_in_one_line(cli: Cli) -> None:
    done = cli("--help", COLUMNS="80")
    listed = done.stdout.partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1)[0] for line in listed] == sorted(CONTRACT)
    for line in listed:
        name, told = line.split(maxsplit=1)
        assert told.endswith(".")
        assert not told.endswith("..")
        assert told == COMMANDS[name].short_help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_help_and_common_ones_are_everywhere(name: str) -> None:
    options = {option.opts[0]: option for option in COMMANDS[name].params if isinstance(option, click.Option)}
    assert {"--store", "--json"} <= set(options)
    for option in options.values():
        assert option.help
        assert (
            option.help.rstrip("]")
            .rstrip("'")
            .endswith((".", "~/.local/state", "DRYDOCK_STORE", "it takes", "user@host"))
        )


def test_the_whole_has_an_example_and_tells_its_codes(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert "drydock lease --type host" in done.stdout
    assert "Exit codes: 0 done, 2 bad usage" in done.stdout
    for option in whole.params:
        assert isinstance(option, click.Option)
        assert option.help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_its_help_is_printed_and_makes_no_store(name: str, drydock: InProcess, path: Path) -> None:
    for flag in ("--help", "-h"):
        done = drydock(name, flag)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: drydock {name} ")
    assert not path.exists()


def all_errors(base: type[errors.DrydockError] = errors.DrydockError) -> Iterator[type[errors.DrydockError]]:
    yield base
    for kind in base.__subclasses__():
        yield from all_errors(kind)


#: the contract, spelt out for every class there is
CODES = {
    "DrydockError": 1, "ConfigError": 2, "NothingFree": 3, "NeverPossible": 3, "Conflict": 4, "SlotLockHeld": 4,
    "StatusChanged": 4, "LeaseLost": 4, "WrongFence": 4, "NotFound": 5, "NoBlueprint": 5, "BlueprintError": 6, "CommandFailed": 6,
    "Unreachable": 7, "StoreError": 7,
    "StoreBusy": 7, "StoreFull": 7, "StoreMoved": 7, "StoreAway": 7, "StoreDamaged": 8, "DamagedRow": 8, "Refused": 9,
}  # fmt: skip


def test_every_error_has_the_code_of_the_contract() -> None:
    import drydock.store.records  # noqa: F401 - it has one more

    found = {
        kind.__name__: next(EXIT_CODES[base] for base in kind.__mro__ if base in EXIT_CODES)
        for kind in all_errors()
        if kind.__module__.startswith("drydock.")
    }
    assert found == CODES


def test_every_error_that_is_named_is_an_error_of_ours() -> None:
    named = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.DrydockError)]
    assert set(EXIT_CODES) <= set(named)


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("drydock ")


def test_the_store_may_be_named_before_and_after_the_verb(lab: InProcess, path: Path, tmp_path: Path) -> None:
    other = {"DRYDOCK_STORE": str(tmp_path / "other.db")}
    for words in (["--store", str(path), "bindings"], ["bindings", "--store", str(path)]):
        assert len(lab(*words, "--json", **other).objects) == 3
    assert lab("--store", "/nowhere/x.db", "bindings", "--store", str(path), "--json", **other).returncode == 0
    assert not (tmp_path / "other.db").exists()


LISTS = ["leases", "resources", "blueprints", "bindings", "locks", "log"]


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list_says_so_on_stderr(name: str, drydock: InProcess) -> None:
    done = drydock(name)
    assert (done.returncode, done.stdout) == (0, "")
    assert name == "log" or "no " in done.stderr
    assert drydock(name, "--json").stdout == ""
