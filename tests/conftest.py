"""What most tests start from: a store in a temporary folder, engines on it, the command line, and a clock they own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.store.sqlite import SqliteStore

LAB = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}}


class Clock:
    """Wall-clock time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    for name in [n for n in os.environ if n.startswith("DRYDOCK_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of this test is."""
    return tmp_path / "drydock.db"


@pytest.fixture
def connect(path: Path, clock: Clock) -> Iterator[Callable[..., Engine]]:
    """Open one more engine on the store; `drop_ins` is a folder of kinds."""
    stores: list[SqliteStore] = []

    def connect(drop_ins: Path | None = None) -> Engine:
        store = SqliteStore.open(str(path), clock=clock)
        stores.append(store)
        environment = {} if drop_ins is None else {"DRYDOCK_BLUEPRINTS": str(drop_ins)}
        return Engine(store, environment=environment, sleep=clock.forward)

    yield connect
    for store in stores:
        store.close()


@pytest.fixture
def engine(connect: Callable[..., Engine]) -> Engine:
    return connect()


def apply(engine: Engine, pool: Mapping[str, Any], **options: bool) -> list[Any]:
    return engine.apply(parse_pool(pool, "pool"), **options)


class Ran(subprocess.CompletedProcess[str]):
    """A finished command: `code`, `out`, `err`, and `objects`, the JSON lines of its output."""

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


class Cli:
    """The real command in a real process."""

    def __init__(self, store: Path) -> None:
        self.environment = {**os.environ, "DRYDOCK_STORE": str(store), "DRYDOCK_OWNER": "tester"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from drydock.cli import main; main()", *arguments]

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**self.environment, **environment},
        )  # fmt: skip

    def __call__(self, *arguments: str, input: str | None = None, **environment: str) -> Ran:
        done = subprocess.run(
            self.command(*arguments), input=input, capture_output=True, text=True, timeout=60,
            env={**self.environment, **environment},
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.args, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(path: Path) -> Cli:
    return Cli(path)
