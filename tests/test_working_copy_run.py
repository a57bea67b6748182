"""Working copies through the command line, on a host that is leased for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from drydock_blueprints.working_copy import MARKER

from drydock.testing.poison import git

SCRIPT = Path(__file__).parent.parent / "scripts" / "working_copies.py"

pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        git(tmp_path, "init", "-q", "-b", "main", name)
        git(tmp_path / name, "commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path / "a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / MARKER).touch()
    return tmp_path / "root"


@pytest.fixture
def pool(cli: Cli, origin: Path, root: Path, tmp_path: Path) -> Callable[..., None]:
    """Applies a pool file with one host and working copies on it."""

    def pool(limit: int = 2, grace: str = "0s") -> None:
        file = tmp_path / "pool.toml"
        file.write_text(
            '[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1"]\nlocal = true\nseats = "unlimited"\n'
            f'[blueprint.src]\nkind = "working-copy"\nrepositories = {{ a = "{origin}", b = "{origin.with_name("b")}" }}\n'
            f'root = "{root}"\nhost = {{ blueprints = ["lab"] }}\nlimit = {limit}\ngrace = "{grace}"\n'
        )
        done = cli("apply", str(file))
        assert done.returncode == 0, done.stderr

    return pool


def lease(cli: Cli, *options: str, **wanted: Any) -> dict[str, Any]:
    done = cli(
        "lease", "--type", "working-copy", "--attributes", json.dumps(wanted), "--json", *(options or ("--no-wait",))
    )
    assert done.returncode == 0, done.stderr
    one: dict[str, Any] = done.objects[0]
    return one


def types(cli: Cli) -> list[str]:
    return sorted(one["type"] for one in cli("leases", "--json").objects)


def test_a_copy_is_built_on_a_leased_host_and_commands_run_in_it(
    cli: Cli, pool: Callable[..., None], root: Path
) -> None:
    """S75: with the copy goes its host's lease, and all that was on the host."""
    pool()
    held = lease(cli, **{"repository.a": True, "ref": "main"})
    assert types(cli) == ["host", "working-copy"]
    assert (
        cli("command", "--lease", str(held["id"]), "--", "pwd").stdout.strip() == held["resource"]["attributes"]["path"]
    )
    assert cli("command", "--lease", str(held["id"]), "--", "ls").stdout == "a\n"
    assert cli("release", str(held["id"])).returncode == 0
    assert types(cli) == ["host"]
    assert cli("release-resource", str(held["resource"]["id"])).returncode == 0
    assert types(cli) == []
    assert [path.name for path in root.iterdir()] == [MARKER]
    assert cli("doctor").returncode == 0


def test_with_the_host_goes_what_stands_on_it(cli: Cli, pool: Callable[..., None], root: Path) -> None:
    """S76: nothing remains on the host."""
    pool()
    held = lease(cli)
    [host] = [one for one in cli("leases", "--json").objects if one["type"] == "host"]
    assert cli("release", str(host["id"])).returncode == 0
    assert types(cli) == []
    assert cli("verify", str(held["id"]), "--fence", str(held["fence"])).returncode == 4
    assert [path.name for path in root.iterdir()] == [MARKER]
    assert cli("doctor").returncode == 0


def test_an_unknown_ref_costs_that_lease_alone(cli: Cli, pool: Callable[..., None]) -> None:
    pool()
    done = cli("lease", "--type", "working-copy", "--attributes", '{"ref": "nope"}', "--no-wait")
    assert done.returncode == 6
    assert 'repository "a" has no ref "nope"' in done.stderr
    held = lease(cli, ref="main")
    assert held["resource"]["name"] == "copy-0", "the copy was as good as before"


@pytest.mark.parametrize("ref", ["--help", "a..b", "HEAD:etc", "a\nb"])
def test_a_ref_that_git_would_not_have_is_bad_input(cli: Cli, pool: Callable[..., None], ref: str) -> None:
    pool()
    done = cli("lease", "--type", "working-copy", "--attributes", json.dumps({"ref": ref}), "--no-wait")
    assert done.returncode == 2, done.stderr
    assert types(cli) == []


def test_a_copy_that_fits_is_used_again_and_else_one_is_reclaimed(cli: Cli, pool: Callable[..., None]) -> None:
    """S101, and the limit of one copy: {a, b} serves who needs a, and makes way for who needs just a."""
    pool(limit=1)
    both = lease(cli, repositories=["a", "b"])
    cli("release", str(both["id"]))
    one = lease(cli, **{"repository.a": True})
    assert one["resource"]["id"] == both["resource"]["id"]
    cli("release", str(one["id"]))
    strict = lease(cli, "--wait", "30s", repositories=["a"])
    assert strict["resource"]["id"] != both["resource"]["id"]
    assert strict["resource"]["attributes"]["repositories"] == ["a"]
    never = cli("lease", "--type", "working-copy", "--attributes", '{"repository.c": true}', "--no-wait")
    assert never.returncode == 3
    assert "can ever be built" in never.stderr


def test_each_holder_spoils_his_copy_and_none_sees_it(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    words = ["--leases", "6", "--at-once", "3", "--limit", "2", "--commits", "3"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  yes  nothing that was planted ran") == 2
    assert done.stdout.count("  yes  2 copies were made") == 2
    assert list((tmp_path / "tmp").iterdir()) == []
