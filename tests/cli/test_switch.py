"""drydock disable, enable"""

import pytest
from conftest import Cli
from in_process import InProcess

pytestmark = pytest.mark.usefixtures("path")


def test_a_binding(lab: InProcess) -> None:
    lab("lease", "-t", "host")
    done = lab("disable", "binding:h1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "binding:h1: disabled\n", "")
    assert [lease["id"] for lease in lab("leases", "--json").objects] == [1]
    lab("release", "1")
    names = [lease["resource"]["name"] for lease in lab("lease", "-t", "host", "--count", "2", "--json").objects]
    assert sorted(names) == ["h2", "h3"]
    assert lab("lease", "-t", "host", "--no-wait").returncode == 3
    assert lab("enable", "binding:lab/h1", "--json").objects == [{"target": "binding:lab/h1", "enabled": True}]
    assert lab("lease", "-t", "host", "--no-wait").returncode == 0


def test_a_blueprint(lab: InProcess) -> None:
    assert lab("disable", "blueprint:lab", "--json").objects == [{"target": "blueprint:lab", "enabled": False}]
    assert [b["enabled"] for b in lab("blueprints", "--json").objects] == [False]
    assert lab("lease", "-t", "host", "--no-wait").returncode == 3
    assert lab("enable", "blueprint:lab").stdout == "blueprint:lab: enabled\n"
    assert lab("lease", "-t", "host", "--no-wait").returncode == 0


def test_a_waiting_request_gets_what_is_switched_on(lab: InProcess, cli: Cli) -> None:
    lab("disable", "blueprint:lab")
    waiting = cli.start("lease", "-t", "host", "--json")
    assert waiting.stderr is not None
    assert "waiting for host" in waiting.stderr.readline()
    lab("enable", "blueprint:lab")
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert '"h1"' in out
