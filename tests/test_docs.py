"""What the guides say is run as it stands there, and what there is is said in them."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import Cli

from drydock.blueprint import Builder, Pool
from drydock.cli import CANNOT_WRITE_OUTPUT, EXIT_CODES, drydock
from drydock.errors import DrydockError
from drydock.testing import BlueprintContract

pytestmark = pytest.mark.usefixtures("path")

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
AUTHORS = (ROOT / "blueprints" / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(console: str) -> list[tuple[str, list[str]]]:
    """A console block as commands, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return found


def play(console: str, folder: Path, cli: Cli) -> None:
    """Type a console block into a shell, and see that it prints what it says. `export` lasts, as it would."""
    environment = {**cli.environment, "PATH": f"{Path(sys.executable).parent}:{cli.environment['PATH']}"}
    for command, expected in commands(console):
        if command.startswith("pip install"):
            continue
        if export := re.fullmatch(r"export (\w+)=\$PWD", command):
            environment[export[1]] = str(folder)
            continue
        ran = subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        if expected:
            assert ran.stdout.splitlines() == expected, command


def test_the_readme_begins_with_a_session_of_ten_lines_that_runs(cli: Cli, tmp_path: Path) -> None:
    session = blocks(README, "console")[0]
    assert len(session.splitlines()) <= 10
    play(session, tmp_path, cli)


def test_the_readme_names_the_two_commands_of_a_clone() -> None:
    assert re.findall(r"^    (scripts/\S+)", README, flags=re.MULTILINE) == ["scripts/demo", "scripts/test"]
    assert "exec scripts/test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_pool_file_of_the_readme_can_be_applied(cli: Cli, tmp_path: Path) -> None:
    [pool] = blocks(README, "toml")
    (tmp_path / ".drydock-root").touch()
    (tmp_path / "pool.toml").write_text(
        pool.replace("/srv/scratch", str(tmp_path)).replace("/srv/services", str(tmp_path))
    )
    assert cli("apply", str(tmp_path / "pool.toml")).returncode == 0
    applied = {blueprint["name"] for blueprint in cli("blueprints", "--json").objects}
    assert applied == set(tomllib.loads(pool)["blueprint"])


def test_the_python_of_the_readme_runs(cli: Cli, tmp_path: Path) -> None:
    code, _ = blocks(README, "python")
    [pool] = blocks(README, "toml")
    (tmp_path / ".drydock-root").touch()
    (tmp_path / "pool.toml").write_text(
        pool.replace("/srv/scratch", str(tmp_path)).replace("/srv/services", str(tmp_path))
    )
    cli("apply", str(tmp_path / "pool.toml"))
    ran = subprocess.run([sys.executable, "-c", code], env=cli.environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "h3 {'address': '10.0.0.3', 'arch': 'arm64', 'port': 22} 1\n"
    assert cli("leases", "--json").objects == []


def test_the_service_of_the_readme_is_one_that_drydock_can_be(cli: Cli, path: Path) -> None:
    """Its command line is one of ours, and its settings are those that we read."""
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    [text] = blocks(README, "ini")
    unit.read_string(text)
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert program.endswith("/drydock")
    name, _, value = unit["Service"]["Environment"].partition("=")
    assert name == "DRYDOCK_STORE"
    assert value.startswith("/")
    assert cli(*arguments, "--once", **{name: str(path)}).returncode == 0
    assert path.exists()


def test_every_command_stands_in_the_readme() -> None:
    for name in drydock.commands:
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`", README), name


def test_every_exit_code_stands_in_the_readme() -> None:
    table = set(map(int, re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)))
    codes = {code for kind, code in EXIT_CODES.items() if kind is not DrydockError}
    assert table == {0, *codes}
    assert f"| {CANNOT_WRITE_OUTPUT}, 128+n |" in README


@pytest.mark.parametrize("guide", [README, AUTHORS, (ROOT / "drydock" / "README.md").read_text()])
def test_what_a_guide_links_to_is_there(guide: str) -> None:
    folders = [ROOT, ROOT / "blueprints", ROOT / "drydock"]
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", guide):
        assert any((folder / target).exists() for folder in folders), target


def test_the_first_kind_of_the_authors_guide_works(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "usb_board.py").write_text(blocks(AUTHORS, "python")[0])
    (tmp_path / "pool.toml").write_text(blocks(AUTHORS, "toml")[0])
    play(blocks(AUTHORS, "console")[0], tmp_path, cli)
    [lease] = cli("leases", "--json").objects
    assert lease["resource"]["attributes"] == {"serial": "A100"}
    assert [lock["key"] for lock in cli("locks", "--json").objects][-1] == "usb-board(A100)"


def pytest_in(folder: Path) -> None:
    """The author's own tests pass."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_the_first_kind_of_the_authors_guide_passes_the_kit(tmp_path: Path) -> None:
    kind, test, *_ = blocks(AUTHORS, "python")
    assert len([line for line in kind.splitlines() if line]) == 8
    (tmp_path / "usb_board.py").write_text(kind)
    (tmp_path / "test_usb_board.py").write_text(test)
    pytest_in(tmp_path)


def test_who_follows_the_authors_guide_comes_to_a_tested_package(cli: Cli, tmp_path: Path) -> None:
    """The example is the stranger's package, which other tests install and lease."""
    [kind, test] = blocks(AUTHORS, "python")[2:]
    [entry_point] = blocks(AUTHORS, "toml")[1:]
    begin, enter, *_ = (command for command, _ in commands(blocks(AUTHORS, "console")[1]))
    play(f"$ {begin}", tmp_path, cli)
    package = tmp_path / enter.removeprefix("cd ")
    assert entry_point in (package / "pyproject.toml").read_text()
    (package / "usb_boards.py").write_text(kind)
    (package / "test_usb_boards.py").write_text(test)
    pytest_in(package)
    stranger = ROOT / "tests" / "stranger"
    assert (kind, test) == tuple((stranger / name).read_text() for name in ("usb_boards.py", "test_usb_boards.py"))


def test_all_that_an_author_may_say_stands_in_the_authors_guide() -> None:
    for kind in (Pool, Builder):
        names = {
            name for base in kind.__mro__ for name in vars(base) if base is not object and not name.startswith("_")
        }
        for name in names:
            assert re.search(rf"`[^`]*\b{name}\b[^`]*`", AUTHORS), name
    for name in vars(BlueprintContract):
        if not name.startswith(("_", "test_")) and name not in ("folder", "subject", "offer"):
            assert re.search(rf"`[^`]*\b{name}\b[^`]*`", AUTHORS), name


def test_every_kind_of_ours_stands_in_the_authors_guide() -> None:
    kinds = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["drydock.blueprints"]
    for where in kinds.values():
        file = where.partition(":")[0].removeprefix("drydock_blueprints.") + ".py"
        assert f"| [`{file}`]({file}) |" in AUTHORS
