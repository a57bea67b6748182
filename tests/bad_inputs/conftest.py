"""A store with a pool of three hosts, and the command line in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli
from in_process import InProcess, in_process

from drydock.cli import run

from .privileges import Enterable, enterable_folder

POOL = """
[blueprint.lab]
kind = "host-pool"
hosts = ["h1", "h2", { name = "h3", attributes = { arch = "arm64" } }]

[blueprint.attic]
kind = "host-pool"
type = "host"
hosts = ["old"]
"""


@pytest.fixture
def cli(path: Path) -> Cli:
    """The command line in a process of its own."""
    return Cli(str(path))


@pytest.fixture
def drydock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[InProcess]:
    """The command line in this process, on the store of this test."""
    with in_process(capsys, monkeypatch, str(path)) as drydock:
        yield drydock


@pytest.fixture
def pool(tmp_path: Path, path: Path) -> Path:
    """A pool file that is applied to the store."""
    file = tmp_path / "pool.toml"
    file.write_text(POOL)
    assert run(["--store", str(path), "apply", str(file)]) == 0
    return file


@pytest.fixture
def enterable() -> Iterator[Enterable]:
    """A folder for a command of somebody who may not do everything."""
    with enterable_folder() as folder:
        yield folder
