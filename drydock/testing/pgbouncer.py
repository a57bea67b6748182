"""The real pgbouncer, pooling whole transactions, before a PostgreSQL server; for measurements and tests.

No wheel brings it: it is the package `pgbouncer` of most systems. Tests that must run everywhere have a small pooler
of their own.
"""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..errors import StoreError
from .supervised import Served, Supervised, give, new_folder, who_serves

SECONDS_TO_START = 60.0
PORT = 6432  #: only a part of the socket's name


def program() -> str | None:
    """Where pgbouncer is; None when it is not there."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class Pgbouncer(Served):
    """Pools transactions on `size` connections for each database of the server that `url` names.

    It is reached through a Unix socket in a private folder, as whatever user; the server sees the user of `url`. Use
    it as a context manager; when this process ends, it ends.
    """

    def __init__(
        self, url: str, *, size: int = 20, settings: Mapping[str, str] | None = None, where: Path | None = None
    ) -> None:
        from psycopg.conninfo import conninfo_to_dict

        found = program()
        if found is None:
            raise StoreError("pgbouncer is not there: install it as a package of your system")
        user = who_serves()
        self.folder = new_folder(user, where)
        server = conninfo_to_dict(url)
        asked = {
            "pool_mode": "transaction",
            "default_pool_size": str(size),
            "max_client_conn": "1000",
            "unix_socket_dir": str(self.folder),
            "unix_socket_mode": "0700",
            "listen_port": str(PORT),
            "auth_type": "any",
            "server_login_retry": "1",
            **(settings or {}),
        }
        keys = [key for key in ("host", "port", "user", "password") if key in server]
        target = " ".join("{}='{}'".format(key, str(server[key]).replace("'", "''")) for key in keys)
        lines = ["[databases]", f"* = {target}", "[pgbouncer]", *(f"{k} = {v}" for k, v in asked.items()), ""]
        configuration = self.folder / "pgbouncer.ini"
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(lines))
        give(configuration, user)
        self._supervised = Supervised(self.folder, user, [found, str(configuration)])
        try:
            self._supervised.start()
            self._supervised.wait_until(self._answers, SECONDS_TO_START, "pgbouncer")
        except BaseException:
            self.close()
            raise

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self.folder))}&port={PORT}"

    def close(self) -> None:
        self._supervised.close()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as tried:
            return tried.connect_ex(f"{self.folder}/.s.PGSQL.{PORT}") == 0
