"""Which room may know what, read from the source; and what a command may load, seen in a fresh Python."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from conftest import LAB, Cli

import drydock
from drydock.cli import COMMANDS
from drydock.cli import drydock as commands

PACKAGE = Path(drydock.__file__).parent
KINDS = Path(str(find_spec("drydock_blueprints").origin)).parent  # type: ignore[union-attr]

#: what costs a command its start-up and is not needed before the command has begun
NOT_AT_START = (
    "rich", "sqlite_utils", "sqlite3", "tomllib", "importlib.metadata", "pathlib", "asyncio", "hashlib", "subprocess", "socket",
    "drydock_blueprints", "drydock.engine", "drydock.api",
)  # fmt: skip
#: what a list may not load once the store is there
NOT_FOR_A_LIST = (
    "rich", "sqlite_utils", "tomllib", "importlib.metadata", "asyncio", "hashlib", "socket", "drydock.engine",
    "drydock.cli.lease", "drydock.cli.worker",
)  # fmt: skip
#: what a lease and a release of a pool's binding may not load
NOT_FOR_A_LEASE = (
    "rich", "sqlite_utils", "tomllib", "importlib.metadata", "asyncio", "hashlib", "statistics", "socket", "drydock_blueprints",
    "drydock.applying", "drydock.config",
)  # fmt: skip


def loaded(code: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """Which of these modules a fresh Python has when it has run `code`. What is printed goes through a pipe."""
    ask = f"\nprint('loaded', *[n for n in {names!r} if n in sys.modules])"
    # Without the site module: in a development install that one loads pathlib before we come.
    path = [str(PACKAGE.parent), *(p for p in sys.path if p.endswith("-packages"))]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\n{code}{ask}", *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip
    return done.stdout.splitlines()[-1].split()[1:]


def sources(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> set[str]:
    """The modules that a module imports, wherever in it; relative ones with their dots."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


# ---- what is loaded


def test_the_command_line_is_loaded_without_what_most_commands_never_need() -> None:
    assert loaded("import drydock.cli", NOT_AT_START) == []


def test_a_help_loads_no_command_and_nothing_that_packs_archives() -> None:
    """For a line on each command, and to find out how wide the terminal is, click would."""
    show = "import contextlib\nfrom drydock.cli import main\nwith contextlib.suppress(SystemExit): main(['--help'])"
    modules = {f"drydock.cli.{where.partition('.')[0]}" for where, _ in COMMANDS.values()}
    assert loaded(show, ("shutil", "bz2", "rich", *modules)) == []


def test_nothing_is_searched_for_rubbish_as_a_command_ends(path: Path) -> None:
    """What is frozen then is not looked at any more, and that is all that was loaded."""
    code = (
        "import atexit, gc, os, sys\n"
        "atexit.register(lambda: os.write(2, b'frozen' if gc.get_freeze_count() > len(gc.get_objects()) else b'not frozen'))\n"
        "from drydock.cli import main\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "--store", str(path)]
    for arguments in (["--version"], ["leases"], ["nonsense"]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.stderr.endswith("\nfrozen") or done.stderr == "frozen"


def test_the_package_alone_loads_next_to_nothing() -> None:
    assert loaded("import drydock", (*NOT_AT_START, "click", "drydock.errors", "drydock.cli")) == []


@pytest.mark.parametrize("verb", ["locks", "leases", "resources", "blueprints", "bindings", "log"])
def test_a_list_through_a_pipe_draws_nothing_and_migrates_nothing(cli: Cli, path: Path, verb: str) -> None:
    with drydock.connect(str(path)) as dock:
        dock.apply(LAB)
        dock.lease("host", wait=0)
        run = "from drydock.cli import run\nassert run(sys.argv[1:]) == 0"
        for more in ((), ("--json",)):
            assert loaded(run, NOT_FOR_A_LIST, "--store", str(path), verb, *more) == []


def test_a_lease_and_its_release_load_no_kind_and_no_schema(path: Path) -> None:
    with drydock.connect(str(path)) as dock:
        dock.apply(LAB)
    run = (
        "from drydock.cli import run\n"
        "assert run(['--store', sys.argv[1], 'lease', '-t', 'host', '--no-wait']) == 0\n"
        "assert run(['--store', sys.argv[1], 'release', '1']) == 0"
    )
    assert loaded(run, NOT_FOR_A_LEASE, str(path)) == []


def test_the_guard_itself_sees_what_is_loaded() -> None:
    assert loaded("import rich, sqlite3", ("rich", "sqlite3", "tomllib")) == ["rich", "sqlite3"]


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_has_help_with_an_example(cli: Cli, name: str, path: Path) -> None:
    """One that says how it is called; asking for help makes no store."""
    done = cli(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: drydock")
    assert f"drydock {name}" in done.stdout.split("\n", 1)[1]
    assert not path.exists()


def test_every_command_that_touches_the_store_takes_store_and_json() -> None:
    for name, command in commands.commands.items():
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        assert options >= {"--store", "--json"} or name == "completion", name


# ---- who may know what


def test_rich_is_imported_by_show_alone() -> None:
    knows = {name for name, tree in sources(PACKAGE) if any(m.split(".")[0] == "rich" for m in imports(tree))}
    assert knows == {"cli/show.py"}


def test_the_database_is_imported_by_the_store_alone() -> None:
    drivers = {"sqlite3", "sqlite_utils", "psycopg"}
    knows = {name for name, tree in sources(PACKAGE) if any(m.split(".")[0] in drivers for m in imports(tree))}
    servers = {"testing/postgres.py", "testing/pgbouncer.py"}  # they make databases
    assert knows - servers == {
        "store/sqlite.py",
        "store/schema.py",
        "store/postgres.py",
        "store/postgres_address.py",
        "store/postgres_errors.py",
        "store/postgres_session.py",
    }


SQL = re.compile(
    r"\b(SELECT\b.+\bFROM\b|INSERT\s+INTO\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b|CREATE\s+(TABLE|INDEX)\b|PRAGMA\b)",
    re.S,
)


def test_sql_is_spoken_in_the_store_alone() -> None:
    speaks = {
        name
        for name, tree in sources(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    }
    explorer = {"testing/explore.py", "testing/schedule.py"}  # it stands between a store and its database
    beside = explorer | {"testing/postgres.py", "testing/store_contract.py"}  # makes databases; damages rows
    assert {name.split("/")[0] for name in speaks - beside} == {"store"}
    kinds = {
        name
        for name, tree in sources(KINDS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    }
    assert kinds == {"postgres_database.py"}, "whose things are databases, and no tables of ours"


def test_kinds_import_of_us_what_a_stranger_imports() -> None:
    ours = {m for _, tree in sources(KINDS) for m in imports(tree) if m.startswith((".", "drydock"))}
    assert "drydock.blueprint" in ours
    assert {m for m in ours if m.startswith("drydock")} == {"drydock.blueprint"}
    names = {path.stem for path in KINDS.glob("*.py")}
    assert {m.lstrip(".").split(".")[0] for m in ours if m.startswith(".")} <= names
    assert not [m for m in ours if m.startswith("..")]


def test_what_a_kind_imports_is_said_to_be_there() -> None:
    """`drydock.blueprint.__all__` is the door: our kinds take nothing from it that it does not offer."""
    import drydock.blueprint as door

    taken = {
        alias.name
        for _, tree in sources(KINDS)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "drydock.blueprint"
        for alias in node.names
    }
    assert taken <= set(door.__all__)
    assert all(hasattr(door, name) for name in door.__all__)


def test_nothing_outside_the_store_reads_a_clock_but_what_is_handed_one() -> None:
    """The engine is given its clock: only waiting (monotonic time), screens, and what
    is said in hours from now look at one themselves."""
    looks = {
        name
        for name, tree in sources(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in (("time", "time"), ("datetime", "now"))
    }
    assert looks <= {"cli/show.py", "cli/asking.py"}
