"""The author's door: a kind that lives elsewhere is installed or dropped in, and works without a change of ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

import drydock

pytestmark = pytest.mark.usefixtures("path")

STRANGER = Path(__file__).parent / "stranger"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the stranger's package, from a copy and without any network."""
    source, target = tmp_path_factory.mktemp("usb-boards"), tmp_path_factory.mktemp("site")
    shutil.copytree(STRANGER, source, dirs_exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--no-index", "--no-deps",
         "--no-build-isolation", "--target", str(target), str(source)],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """Two boards; the log tells of each power cycle."""
    path = tmp_path / "pool.toml"
    cycle = ["sh", "-c", f'echo "power-cycled $1" >> {tmp_path / "log"}', "power-cycle"]
    path.write_text(
        f'[blueprint.hub]\nkind = "usb-boards"\nserials = ["A1", "A2"]\npower_cycle = {json.dumps(cycle)}\n'
    )
    return str(path)


@pytest.fixture
def drop_ins(tmp_path: Path) -> Path:
    folder = tmp_path / "kinds"
    folder.mkdir()
    return folder


def kinds(cli: Cli, **environment: str) -> dict[str, dict[str, object]]:
    return {kind["kind"]: kind for kind in cli("blueprints", "--kinds", "--json", **environment).objects}


def test_an_installed_kind_is_seen_and_leased(cli: Cli, installed: Path, pool: str, tmp_path: Path) -> None:
    there = {"PYTHONPATH": os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))}
    assert "usb-boards" not in kinds(cli)
    kind = kinds(cli, **there)["usb-boards"]
    assert (kind["origin"], kind["type"], kind["summary"]) == (
        "usb-boards 1.2.3",
        "board",
        "boards at a USB hub, power-cycled before the next holder",
    )
    assert kind["error"] is None
    assert cli("apply", pool, **there).returncode == 0
    one, two = cli("lease", "--type", "board", "--count", "2", "--owner", "ann", "--json", **there).objects
    assert [lease["resource"]["attributes"] for lease in (one, two)] == [{"serial": "A1"}, {"serial": "A2"}]
    assert cli("lease", "--type", "board", "--no-wait", **there).returncode == 3
    assert not (tmp_path / "log").exists()
    assert cli("release", str(one["id"]), str(two["id"]), **there).returncode == 0
    assert (tmp_path / "log").read_text() == "power-cycled A1\npower-cycled A2\n"
    assert cli("doctor").returncode == 0


def test_without_its_kind_a_blueprint_fails_and_nothing_else_does(cli: Cli, drop_ins: Path, pool: str) -> None:
    """What it made is listed all the same; what needs its code is told which is missing."""
    text = (STRANGER / "usb_boards.py").read_text()
    (drop_ins / "usb_boards.py").write_text(text + "\n    def activate_lease(self, resource, lease):\n        pass\n")
    there = {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
    assert cli("apply", pool, **there).returncode == 0
    assert cli("lease", "--type", "board", **there).returncode == 0
    [lease] = cli("leases", "--json").objects
    assert lease["resource"]["name"] == "A1"
    failed = cli("lease", "--type", "board", "--no-wait")
    assert failed.returncode == 6
    assert 'blueprint "hub" failed in import: no kind "usb-boards" is installed' in failed.stderr
    assert cli("release", "1").returncode == 0
    assert [left["status"] for left in cli("leases", "--json").objects] == ["released", "broken"]
    told = cli("log", "lease:1", "--event", "lease.destroy-failed", "--json").objects
    assert all('no kind "usb-boards"' in event["data"]["error"] for event in told)
    assert len(told) == 1
    assert cli("doctor").returncode == 0


def test_it_passes_the_kit_as_its_author_runs_it(tmp_path: Path) -> None:
    shutil.copytree(STRANGER, tmp_path / "usb-boards")
    where = {"PYTHONPATH": str(Path(drydock.__file__).parent.parent)}
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path / "usb-boards",
        env={**os.environ, **where},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout


def test_a_drop_in_is_seen_and_leased(cli: Cli, drop_ins: Path, pool: str) -> None:
    shutil.copy(STRANGER / "usb_boards.py", drop_ins)
    (drop_ins / "_helper.py").write_text("raise SystemExit('not a kind, and never loaded')")
    there = {"DRYDOCK_BLUEPRINTS": f"{drop_ins.parent / 'not-there'}{os.pathsep}{drop_ins}"}
    kind = kinds(cli, **there)["usb-boards"]
    assert (kind["origin"], kind["type"], kind["error"]) == (str(drop_ins / "usb_boards.py"), "board", None)
    assert cli("apply", pool, **there).returncode == 0
    [lease] = cli("lease", "--type", "board", "--json", **there).objects
    assert lease["resource"]["name"] == "A1"


@pytest.mark.parametrize("name", ["usb_boards.py", "host_pool.py"])
def test_two_places_that_offer_one_kind_are_refused_and_both_named(
    cli: Cli, installed: Path, drop_ins: Path, tmp_path: Path, name: str
) -> None:
    """Neither is preferred, ours included: which code runs must not depend on the order of folders. Others can be used."""
    shutil.copy(STRANGER / "usb_boards.py", drop_ins / name)
    there = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH")))),
        "DRYDOCK_BLUEPRINTS": str(drop_ins),
    }
    both = {"usb_boards.py": "usb-boards 1.2.3", "host_pool.py": "drydock-allocator"}[name]
    kind, other = ("usb-boards", "host-pool") if name == "usb_boards.py" else ("host-pool", "usb-boards")
    found = kinds(cli, **there)
    assert str(drop_ins / name) in str(found[kind]["error"])
    assert both in str(found[kind]["error"])
    assert found[other]["error"] is None
    (tmp_path / "pool.toml").write_text(f'[blueprint.x]\nkind = "{kind}"\n')
    refused = cli("apply", str(tmp_path / "pool.toml"), **there)
    assert refused.returncode == 6
    assert str(drop_ins / name) in refused.stderr
    assert both in refused.stderr
    (tmp_path / "pool.toml").write_text('[blueprint.x]\nkind = "scratch-dir"\n')
    assert "missing setting" in cli("apply", str(tmp_path / "pool.toml"), **there).stderr


def test_one_kind_in_two_drop_in_folders_is_refused(cli: Cli, drop_ins: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    for folder in (drop_ins, other):
        shutil.copy(STRANGER / "usb_boards.py", folder)
    error = str(kinds(cli, DRYDOCK_BLUEPRINTS=f"{drop_ins}{os.pathsep}{other}")["usb-boards"]["error"])
    assert str(drop_ins / "usb_boards.py") in error
    assert str(other / "usb_boards.py") in error
    twice = kinds(cli, DRYDOCK_BLUEPRINTS=f"{drop_ins}{os.pathsep}{drop_ins}")
    assert twice["usb-boards"]["error"] is None


@pytest.mark.parametrize(
    ("entry_points", "kind", "sentence"),
    [
        ("[drydock.blueprints]\npoor = nowhere:Poor\n", "poor", "No module named 'nowhere'"),
        ("[drydock.blueprints]\npoor = os:path.Poor\n", "poor", "has no attribute 'Poor'"),
        ("[drydock.blueprints]\npoor = os:path\n", "poor", "is not a subclass of"),
        ("[drydock.blueprints]\npoor = not a name\n", "poor", "AttributeError"),
        ("[drydock.blueprints]\npoor\n", "poor-package", "cannot be read"),
        (b"[drydock.blueprints]\n\xff\xfe = x:y\n", "poor-package", "cannot be read"),
    ],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_a_broken_package_is_told_with_its_name_and_hides_no_other(
    cli: Cli, tmp_path: Path, entry_points: str | bytes, kind: str, sentence: str, metadata: bool
) -> None:
    """Nor does it keep anybody from a lease."""
    package = tmp_path / "site" / "poor_package-1.0.dist-info"
    package.mkdir(parents=True)
    text = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
    (package / "entry_points.txt").write_bytes(text)
    if metadata:
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: poor-package\nVersion: 1.0\n")
    there = {"PYTHONPATH": os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))}
    (tmp_path / "pool.toml").write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1"]\n')
    assert cli("apply", str(tmp_path / "pool.toml")).returncode == 0
    [(name, error)] = [(name, str(found["error"])) for name, found in kinds(cli, **there).items() if found["error"]]
    assert name == kind or (kind == "poor-package" and not metadata)
    assert sentence in error
    assert cli("apply", str(tmp_path / "pool.toml"), **there).returncode == 0
    assert cli("lease", "--type", "host", **there).returncode == 0


def test_the_settings_of_a_kind_are_shown_with_their_types_and_defaults(cli: Cli, drop_ins: Path) -> None:
    (drop_ins / "rich.py").write_text(
        "from drydock.blueprint import *\nclass Rich(Pool):\n    settings_schema = {'a': Setting(list, 'what'),"
        " 'b': Setting(str, 'which', 'x')}\n    def bindings(self): return []\n"
    )
    there = {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
    assert kinds(cli, **there)["rich"]["settings"] == {
        "a": {"type": "list", "help": "what", "required": True},
        "b": {"type": "str", "help": "which", "required": False, "default": "x"},
    }
    header, *rows = cli("blueprints", "--kinds", **there).stdout.splitlines()
    [row] = [row for row in rows if row.startswith("rich\t")]
    assert dict(zip(header.split("\t"), row.split("\t"), strict=True))["SETTINGS"] == 'a: list, b: str = "x"'


@pytest.mark.parametrize("setting", ["Setting('str', 'x')", "Setting(set, 'x')", "Setting(str, 5)", "Setting(str, 'x', 5)",
                                     "Setting(list, 'x', [{1}])", "'x'"])  # fmt: skip
def test_a_setting_that_no_pool_file_can_give_is_told(cli: Cli, drop_ins: Path, setting: str) -> None:
    (drop_ins / "odd.py").write_text(
        f"from drydock.blueprint import *\nclass Odd(Pool):\n    settings_schema = {{'a': {setting}}}\n"
        "    def bindings(self): return []\n"
    )
    there = {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
    assert "Odd.settings_schema may not be" in str(kinds(cli, **there)["odd"]["error"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("x = (", "SyntaxError"),
        ("", "must define one Blueprint, and defines 0"),
        ("from drydock.blueprint import Pool", "defines 0"),
        ("from drydock.blueprint import Pool\nclass A(Pool):\n    type = 'a'", "lacks the method bindings()"),
        ("from drydock.blueprint import Builder\nclass A(Builder):\n    type = 'a'", "lacks the method plans()"),
        ("from drydock.blueprint import Pool\nclass A(Pool): pass\nclass B(Pool): pass", "defines 2"),
    ],
)
def test_a_kind_that_cannot_be_loaded_is_told_with_its_name_and_hides_no_other(
    cli: Cli, drop_ins: Path, tmp_path: Path, text: str, sentence: str
) -> None:
    (drop_ins / "poor.py").write_text(text + "\n")
    there = {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
    found = kinds(cli, **there)
    assert sentence in str(found["poor"]["error"])
    assert found["host-pool"]["error"] is None
    (tmp_path / "pool.toml").write_text('[blueprint.x]\nkind = "poor"\ntype = "x"\n')
    failed = cli("apply", str(tmp_path / "pool.toml"), **there)
    assert failed.returncode == 6
    assert '"poor"' in failed.stderr
    assert sentence in failed.stderr


def test_what_a_kind_prints_does_not_reach_our_output(cli: Cli, drop_ins: Path, pool: str) -> None:
    text = (STRANGER / "usb_boards.py").read_text()
    loud = text + "\n    def activate_lease(self, resource, lease):\n        print('while preparing')\n"
    (drop_ins / "usb_boards.py").write_text("print('while imported')\n" + loud)
    there = {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
    assert [line["change"] for line in cli("apply", pool, "--json", **there).objects]
    leased = cli("lease", "--type", "board", "--json", **there)
    assert [lease["status"] for lease in leased.objects] == ["active"]
    assert "while preparing" in leased.stderr
