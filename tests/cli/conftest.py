"""A store with a pool of hosts, one of them rich in attributes that mean something to some printer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import InProcess, in_process

MARKUP = "[bold]x[/bold] [/] :smile: [link=http://x]y[/link]"
POOL = f"""
[blueprint.lab]
kind = "host-pool"
hosts = ["h1", "h2", {{ name = "h3", attributes = {{ arch = "arm64", note = "{MARKUP}" }} }}]
"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool file of three hosts, not applied."""
    file = tmp_path / "pool.toml"
    file.write_text(POOL)
    return file


@pytest.fixture
def drydock(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store_address: str
) -> Iterator[InProcess]:
    """The command line in this process, on the store of this test. `cli` is the same in a process of its own."""
    with in_process(capsys, monkeypatch, store_address) as drydock:
        yield drydock


@pytest.fixture
def lab(drydock: InProcess, pool: Path) -> InProcess:
    """The command line on a store to which the pool file is applied."""
    assert drydock("apply", str(pool)).returncode == 0
    return drydock
