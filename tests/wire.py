"""A wire between a client and a PostgreSQL server that can be cut without a word, or at a commit: a small TCP proxy."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

COMMIT = b"COMMIT\x00"


class Wire:
    """Listens on loopback and passes on what is sent, both ways, until told otherwise. `url` is the way through it.

    `at_commit` says what becomes of the next commit that is sent: "lost" is cut before it is passed on, "unanswered"
    after the server has answered, "held" is kept, and all else with it, until `cut`; then `held` is set. `journeys` counts
    how often the server has answered what was sent before, of a client that has one connection.
    """

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        host, port = str(given["host"]), str(given.get("port", "5432"))
        self._server: str | tuple[str, int] = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        password = f":{quote(str(given['password']), safe='')}" if given.get("password") else ""
        here = self._listener.getsockname()[1]
        self.url = f"postgresql://{given['user']}{password}@127.0.0.1:{here}/{given['dbname']}"
        self.at_commit = ""
        self.journeys = 0
        self._asked = False
        self.held = threading.Event()
        self.silenced = threading.Event()  # something was sent while nothing was passed on
        self._passes = threading.Event()
        self._passes.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        self.go_on()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()

    def stall(self) -> None:
        """Pass on nothing, and close nothing."""
        self.silenced.clear()
        self._passes.clear()

    def go_on(self) -> None:
        self._passes.set()

    def cut(self) -> None:
        """Close every connection that there is."""
        if self.at_commit == "kept":
            self.at_commit = ""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                server.close()
                continue
            self._sockets += [client, server]
            self._start(self._pass, client, server, True)
            self._start(self._pass, server, client, False)

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._passes.is_set():
                    self.silenced.set()
                    self._passes.wait()
                if asks and self.at_commit in ("lost", "held") and COMMIT in data:
                    if self.at_commit == "held":
                        self.at_commit = "kept"
                        self.held.set()
                        continue
                    self.at_commit = ""
                    break
                if asks and self.at_commit == "kept":
                    continue
                if not asks and self.at_commit == "unanswered" and COMMIT in data:
                    self.at_commit = ""
                    break
                if not asks:
                    self.journeys += self._asked
                self._asked = asks
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
