"""drydock completion, and what the shell is told when the user presses Tab"""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, Ran
from in_process import InProcess

pytestmark = pytest.mark.usefixtures("path")


def complete(cli: Cli, line: str, **environment: str) -> Ran:
    """What bash is offered for the last word of `line`."""
    words = line.split(" ")
    return cli(
        _DRYDOCK_COMPLETE="bash_complete", COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1), **environment
    )  # fmt: skip


def offered(cli: Cli, line: str) -> list[str]:
    done = complete(cli, line)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.split()]


@pytest.fixture
def held(lab: InProcess) -> InProcess:
    lab("lease", "-t", "host", "--count", "3")
    lab("release", "2")
    return lab


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("drydock le", ["lease", "leases"]),
        ("drydock lease --type ", ["host"]),
        ("drydock run --type ", ["host"]),
        ("drydock lease --type x", []),
        ("drydock lease --blueprint ", ["lab"]),
        ("drydock release ", ["1", "3"]),
        ("drydock release 3", ["3"]),
        ("drydock renew ", ["1", "3"]),
        ("drydock renew 1 ", ["1", "3"]),
        ("drydock verify 3", ["3"]),
        ("drydock command --lease ", ["1", "3"]),
        ("drydock worker --o", ["--once"]),
        ("drydock leases --w", ["--waiting"]),
        ("drydock release-resource ", ["1", "2", "3"]),
        ("drydock disable ", ["blueprint:lab", "binding:h1", "binding:h2", "binding:h3"]),
        ("drydock enable blueprint:", ["blueprint:lab"]),
        ("drydock completion ", ["bash", "zsh", "fish"]),
        ("drydock completion f", ["fish"]),
        ("drydock leases --ow", ["--owner"]),
    ],
)
def test_offered_from_the_store(line: str, expected: list[str], held: InProcess, cli: Cli) -> None:
    assert offered(cli, line) == expected


def test_offered_from_the_store_that_the_line_names(held: InProcess, cli: Cli, path: Path, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    assert offered(cli, f"drydock --store {other} release ") == []
    done = complete(cli, f"drydock --store {path} release ", DRYDOCK_STORE=other)
    assert done.stdout == "plain,1\nplain,3\n"


@pytest.mark.parametrize("line", ["drydock lease --type ", "drydock release ", "drydock disable ", "drydock lease -b "])
def test_silent_where_the_store_cannot_answer(line: str, cli: Cli, path: Path) -> None:
    """No store, one that is none, and one that is of another version: and none is made."""
    assert offered(cli, line) == []
    assert list(path.parent.iterdir()) == []
    path.write_text("This is no store.")
    assert offered(cli, line) == []
    assert path.read_text() == "This is no store."


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(shell: str, drydock: InProcess, path: Path) -> None:
    done = drydock("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_DRYDOCK_COMPLETE={shell}_complete" in done.stdout
    assert drydock("completion", SHELL=f"/usr/bin/{shell}").stdout == done.stdout
    assert drydock("completion", shell, "--json").objects == [
        {"shell": shell, "script": done.stdout.removesuffix("\n")}
    ]
    assert not path.exists()


def test_in_a_real_shell(held: InProcess, cli: Cli, tmp_path: Path) -> None:
    """bash evaluates the script, and offers what the store has."""
    command = tmp_path / "drydock"
    command.write_text(f"#!{sys.executable}\nfrom drydock.cli import main\nmain()\n")
    command.chmod(0o755)
    script = """
eval "$(drydock completion bash)"
complete -p drydock
COMP_WORDS=(drydock release "") COMP_CWORD=2
_drydock_completion drydock
echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60,
        env={**cli.environment, "PATH": f"{tmp_path}:{cli.environment['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "1 3"
