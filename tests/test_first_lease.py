"""The main road, as a person walks it."""

from pathlib import Path

from conftest import Cli

POOL = """
[blueprint.lab]
kind = "host-pool"
hosts = ["h1", { name = "h3", address = "10.0.0.3", port = 22, attributes = { arch = "arm64" } }]
"""


def test_apply_lease_list_release(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pool.toml").write_text(POOL)
    assert cli("apply", str(tmp_path / "pool.toml")).returncode == 0
    [lease] = cli("lease", "--type", "host", "--attributes", '{"arch": "arm64"}', "--json").objects
    assert (lease["status"], lease["owner"], lease["resource"]["name"]) == ("active", "tester", "h3")
    assert [held["id"] for held in cli("leases", "--json").objects] == [lease["id"]]
    assert cli("release", str(lease["id"])).returncode == 0
    assert cli("leases", "--json").objects == []
    assert cli("doctor").returncode == 0
