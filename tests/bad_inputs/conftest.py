"""A store with a pool of three hosts, and the command line in this process."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drydock.cli import run

from .privileges import Enterable, enterable_folder
from .refusals import InProcess

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
def drydock(capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """The command line in this process, on the store of this test; signals are put back as they were."""
    monkeypatch.setenv("DRYDOCK_STORE", str(path))
    monkeypatch.setenv("DRYDOCK_OWNER", "tester")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield InProcess(capsys)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pool(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool file that is applied to the store."""
    monkeypatch.setenv("DRYDOCK_STORE", str(path))
    file = tmp_path / "pool.toml"
    file.write_text(POOL)
    assert run(["apply", str(file)]) == 0
    return file


@pytest.fixture
def enterable() -> Iterator[Enterable]:
    """A folder for a command of somebody who may not do everything."""
    with enterable_folder() as folder:
        yield folder
