"""drydock show"""

import pytest
from conftest import Cli
from in_process import InProcess

from .conftest import MARKUP
from .terminal import on_a_terminal

pytestmark = pytest.mark.usefixtures("path")


def test_a_lease_by_number_and_by_name(lab: InProcess) -> None:
    lab("lease", "-t", "host", "-a", '{"arch": "arm64"}')
    assert lab("show", "1").stdout == lab("show", "lease:1").stdout
    [lease] = lab("show", "1", "--json").objects
    assert (lease["id"], lease["resource"]["name"]) == (1, "h3")
    shown = lab("show", "1").stdout
    assert "status" in shown
    assert "lease.activated" in shown


def test_a_resource(lab: InProcess, cli: Cli) -> None:
    lab("lease", "-t", "host", "-a", '{"arch": "arm64"}')
    [resource] = lab("show", "resource:1", "--json").objects
    assert (resource["id"], resource["name"], resource["attributes"]["note"]) == (1, "h3", MARKUP)
    assert resource["slot_locks"] == ["host(h3)"]
    assert "resource.destroyed" not in lab("show", "resource:1").stdout
    assert MARKUP in on_a_terminal(cli, "show", "resource:1", columns=250).text


def test_a_blueprint(lab: InProcess) -> None:
    [blueprint] = lab("show", "blueprint:lab", "--json").objects
    assert (blueprint["name"], blueprint["kind"], blueprint["type"]) == ("lab", "host-pool", "host")
    assert blueprint["settings"]["hosts"][:2] == ["h1", "h2"]
