"""`drydock new-blueprint`: what it writes works as it stands, and it writes over nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

import drydock

pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its user is."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def python(*words: str, cwd: Path) -> str:
    """Run Python there, with this Drydock; returns what it printed."""
    where = {"PYTHONPATH": str(Path(drydock.__file__).parent.parent)}
    ran = subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**os.environ, **where}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("template", ["pool", "builder"])
def test_what_it_writes_passes_the_kit_is_installed_and_leased(
    cli: Cli, home: Path, tmp_path: Path, template: str
) -> None:
    """Words of the name become those of the module, the class, the type, the package and the entry point."""
    package, site = home / "drydock-disk-image", tmp_path / "site"
    told = cli("new-blueprint", "disk-image", f"--{template}", "--json").objects
    files = ["README.md", "disk_image.py", "pyproject.toml", "test_disk_image.py"]
    assert [(line["kind"], sorted(line["files"])) for line in told] == [("disk-image", files)]
    assert sorted(path.name for path in package.iterdir()) == files
    for path in package.iterdir():
        assert not any(word in path.read_text() for word in ("my-kind", "my_kind", "MyKind")), path
    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)
    python("-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--no-index", "--no-deps",
           "--no-build-isolation", "--target", str(site), ".", cwd=package)  # fmt: skip
    there = {"PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))}
    kinds = {kind["kind"]: kind for kind in cli("blueprints", "--kinds", "--json", **there).objects}
    assert (kinds["disk-image"]["origin"], kinds["disk-image"]["error"]) == ("drydock-disk-image 0.1.0", None)
    readme = (package / "README.md").read_text()
    (tmp_path / "images").mkdir()
    pool = readme.partition("```toml\n")[2].partition("```")[0].replace("/srv/disk-image", str(tmp_path / "images"))
    (home / "pool.toml").write_text(pool)
    assert cli("apply", "pool.toml", **there).returncode == 0
    [lease] = cli("lease", "--type", "disk-image", "--json", **there).objects
    assert lease["status"] == "active"
    assert cli("release", str(lease["id"]), **there).returncode == 0
    again = cli("new-blueprint", "disk-image", "--folder", "elsewhere", **there)
    assert again.returncode == 2
    assert 'there is a kind "disk-image" already, from drydock-disk-image 0.1.0' in again.stderr


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_it_writes_over_nothing(cli: Cli, home: Path, there: str) -> None:
    target = home / "target"
    if there == "file":
        target.write_text("mine")
    elif there == "folder":
        target.mkdir()
        (target / "README.md").write_text("mine")
    else:
        target.symlink_to(home / "nowhere")
    refused = cli("new-blueprint", "disk-image", "--folder", str(target))
    assert refused.returncode == 9
    assert "is not an empty folder" in refused.stderr
    whole = {
        "file": lambda: target.read_text() == "mine",
        "folder": lambda: [path.name for path in target.iterdir()] == ["README.md"],
        "link": lambda: not (home / "nowhere").exists(),
    }
    assert whole[there]()


def test_an_empty_folder_will_do_and_what_cannot_be_written_is_told(cli: Cli, home: Path) -> None:
    (home / "empty").mkdir()
    assert cli("new-blueprint", "disk-image", "--folder", "empty").returncode == 0
    (home / "file").touch()
    failed = cli("new-blueprint", "disk-image", "--folder", "file/below")
    assert failed.returncode == 7
    assert "cannot write to" in failed.stderr


@pytest.mark.parametrize(
    "name", ["", "Disk", "disk_image", "-disk", "disk-", "../disk", "d\n", "dïsk", "x" * 41, "import", "json", "drydock", "pool",
             "host-pool", "disk--image"]
)  # fmt: skip
def test_a_name_that_no_kind_can_have_is_refused(cli: Cli, home: Path, name: str) -> None:
    refused = cli("new-blueprint", "--", name)
    assert refused.returncode == 2
    assert list(home.iterdir()) == []
