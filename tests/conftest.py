"""What most tests start from: a store, engines on it, the command line, and a clock they own.

A test that asks for a store, whichever way, runs with SQLite and with PostgreSQL. One that asks for `path` is about
SQLite's file, or about words that no store has a part in, and runs with that alone.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from databases import Databases

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.errors import StoreError
from drydock.store import open_store, presence
from drydock.store.base import Store
from drydock.store.postgres import PostgresStore
from drydock.testing import sshd as ssh_server
from drydock.testing.postgres import SETTING, Server, server_for_tests

LAB = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}}

# A job in the background ignores what a terminal sends, and so would all that it starts; tests send it.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

#: read before any test has its environment cleared
GIVEN_POSTGRES = os.environ.get(SETTING, "")
GIVEN_SSHD = os.environ.get(ssh_server.SETTING, "")
POSTGRES = pytest.StashKey[Server]()


class Clock:
    """Wall-clock time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "new_store" in metafunc.fixturenames and "path" not in metafunc.fixturenames:
        metafunc.parametrize("new_store", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the settings of whoever runs it, or writes what is theirs."""
    for name in [n for n in os.environ if n.startswith("DRYDOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    # A process keeps these for as long as it lives, and this one has many stores.
    for file in [f for f in presence._registry.files if f.startswith(str(tmp_path))]:
        os.close(presence._registry.files.pop(file)[0])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of this test's store."""
    return tmp_path / "drydock.db"


@pytest.fixture
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the address of one more store that nobody has used yet: a file, or a database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        numbers = itertools.count(2)
        names = itertools.chain(["drydock.db"], (f"drydock-{number}.db" for number in numbers))
        return lambda: str(tmp_path / next(names))
    new: Callable[[], str] = request.getfixturevalue("new_postgres_store")
    return new


@pytest.fixture
def store_address(new_store: Callable[[], str]) -> str:
    """Where the store of this test is."""
    return new_store()


def open_at(address: str, clock: Callable[[], float] | None = None, uptime: Callable[[], float] | None = None) -> Store:
    """The store at this address, with clocks that the test owns, or its own."""
    store = open_store(address)
    store.clock, store.uptime = clock or store.clock, uptime or store.uptime
    return store


def until(true: Callable[[], bool]) -> None:
    """Look again and again until it is so."""
    patience = time.monotonic() + 60
    while not true():
        assert time.monotonic() < patience, "it never became so"
        time.sleep(0.005)


def dies(store: Store) -> None:
    """Others see what they see of a process that has died."""
    if isinstance(store, PostgresStore):
        assert store._machine is not None
        store._machine.withdraw(store.process)
    else:
        presence.withdraw(f"{store.address}.live", store.process)


@pytest.fixture
def connect(store_address: str, clock: Clock) -> Iterator[Callable[..., Engine]]:
    """Open one more engine on the store; `drop_ins` is a folder of kinds."""
    stores: list[Store] = []

    def connect(drop_ins: Path | None = None) -> Engine:
        store = open_at(store_address, clock)
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

    def __init__(self, store: str) -> None:
        self.environment = {**os.environ, "DRYDOCK_STORE": store, "DRYDOCK_OWNER": "tester"}

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
def cli(store_address: str) -> Cli:
    return Cli(store_address)


def pytest_configure(config: pytest.Config) -> None:
    """Of several processes that test together, the one that starts the others finds out whether they can."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        _started_postgres().close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start PostgreSQL if a test needs it. Where it cannot be had no test runs, and one sentence says why."""
    if any(map(_needs_postgres, session.items)) and not session.config.option.collectonly:
        server = session.config.stash[POSTGRES] = _started_postgres()
        session.config.add_cleanup(server.close)


def _started_postgres() -> Server:
    try:
        server = server_for_tests(GIVEN_POSTGRES)
        server.drop_database(server.new_database())
    except StoreError as error:
        raise pytest.UsageError(str(error)) from None
    return server


def _needs_postgres(item: pytest.Item) -> bool:
    chosen = getattr(getattr(item, "callspec", None), "params", {})
    return chosen.get("new_store") == "postgres" or "postgres" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Server:
    """A running PostgreSQL server."""
    return pytestconfig.stash[POSTGRES]


@pytest.fixture
def postgres_url(postgres: Server) -> Iterator[str]:
    """The URL of a fresh database for this test."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def _databases(postgres: Server) -> Iterator[Databases]:
    databases = Databases(postgres)
    yield databases
    databases.close()


@pytest.fixture
def new_postgres_store(_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Gives the URL of one more database with an empty store."""
    opened: list[PostgresStore] = []
    taken: list[str] = []
    opens = PostgresStore.open

    def noted(url: str, *, read_only: bool = False) -> PostgresStore:
        opened.append(opens(url, read_only=read_only))
        return opened[-1]

    monkeypatch.setattr(PostgresStore, "open", noted)

    def new() -> str:
        taken.append(_databases.take())
        return taken[-1]

    yield new
    for store in opened:
        store.close()
    # The leases of the others would keep them until this process ends.
    for store in [one for one in opened if not one._closed]:
        with store.write():
            store.run("DELETE FROM lease")
        store.close()
    for url in taken:
        _databases.give_back(url)


@pytest.fixture(scope="session")
def sshd() -> Iterator[ssh_server.Sshd]:
    """An ssh server on this machine, for all tests of this process; who wants to stop one starts one of his own."""
    with ssh_server.Sshd(program=GIVEN_SSHD) as server:
        yield server
