"""`postgres-database` and `process` pass the kit that strangers use."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from drydock_blueprints.postgres_database import PostgresDatabase
from drydock_blueprints.process import Process
from drydock_blueprints.scratch_dir import MARKER
from ports import free_ports

from drydock.blueprint import Support
from drydock.testing import BlueprintContract
from drydock.testing.postgres import Server


class TestPostgresDatabase(BlueprintContract):
    kind = PostgresDatabase
    most_crashes = 10
    most_hostile = 5

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.url, self.prefix = postgres.url(), f"kit_{secrets.token_hex(4)}_"
        monkeypatch.setenv("PASSWORD_OF_THE_KIT", urlsplit(self.url).password or "")
        yield
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name in self.leftovers(Path()):
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def settings(self, folder: Path) -> dict[str, Any]:
        server = self.url.replace(f":{urlsplit(self.url).password}@", "@")
        return {
            "server": server, "prefix": self.prefix, "password_from": "PASSWORD_OF_THE_KIT", "template": "template0",
        }  # fmt: skip

    def leftovers(self, folder: Path) -> Iterable[str]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix])
            return [name for (name,) in found]


class TestProcess(BlueprintContract):
    kind = Process
    most_crashes = 10
    most_hostile = 5
    one_of_its_own_for_each_blueprint = True  # the folder of a service has the blueprint's name in it

    def settings(self, folder: Path) -> dict[str, Any]:
        (folder / MARKER).touch()
        return {"command": ["sleep", "600"], "folder": str(folder), "port_type": "port", "ready": {"command": ["true"]}}

    def support(self, type: str, attributes: Mapping[str, Any]) -> Support:
        [port] = free_ports(1)
        return Support(str(port), type, {"port": port, "address": "127.0.0.1"}, None)

    def leftovers(self, folder: Path) -> Iterable[str]:
        return [path.name for path in folder.iterdir() if path.name != MARKER]
