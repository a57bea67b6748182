"""A pooler in transaction mode, as small as can be, so that every machine runs the tests against pooling.

Like pgbouncer it answers the start of a client itself, with made-up keys; gives the client a connection of the server
from its first message until the server is ready and in no transaction; cleans up nothing in the session between two
clients; and drops what the server sends, such as notifications, while no client is there. Unlike pgbouncer it uses its
connections in turn, so that what a client left in a session is seldom there the next time; fails at once while the
server is away; hands on no request to cancel; and knows no passwords.
"""

import asyncio
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

PORT = 6432  # only a part of the socket's name
PROTOCOL_3 = 196608
#: what pgbouncer takes in a start, of all that PostgreSQL takes
KNOWN = {
    b"user", b"database", b"client_encoding", b"datestyle", b"timezone", b"standard_conforming_strings",
    b"application_name",
}  # fmt: skip
#: what the server answers with one ReadyForQuery each: Query, Sync, FunctionCall
ASKING = (b"Q", b"S", b"F")
READY_AND_IDLE = b"Z\0\0\0\5I"

GONE = (asyncio.IncompleteReadError, ConnectionError)


class Refused(Exception):
    """A client may not go on; `args[0]` is the message for it, in the protocol's bytes."""


def refusal(sentence: str) -> Refused:
    body = b"SFATAL\0VFATAL\0C08P01\0M" + sentence.encode() + b"\0\0"
    return Refused(b"E" + struct.pack("!i", len(body) + 4) + body)


async def read(reader: asyncio.StreamReader) -> bytes:
    """The next message: a letter, its length, its body."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


class Client:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.backend: Backend | None = None


class Backend:
    """One connection of the server, and the client that has it now."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.client: Client | None = None
        self.asked = 0
        self.parameters = b""

    async def start(self, parameters: bytes) -> None:
        self.writer.write(struct.pack("!ii", len(parameters) + 8, PROTOCOL_3) + parameters)
        while (message := await read(self.reader)) != READY_AND_IDLE:
            if message[:1] == b"E":
                self.writer.close()
                raise Refused(message)
            if message[:1] == b"S":
                self.parameters += message

    async def pump(self, when_free: Callable[["Backend"], None]) -> None:
        """Hand on to its client, and tell when it is free, for as long as there is a server."""
        try:
            while True:
                message = await read(self.reader)
                if self.client is None:
                    continue
                self.client.writer.write(message)
                self.asked -= message[:1] == b"Z"
                if message == READY_AND_IDLE and not self.asked:
                    self.client.backend = None
                    self.client = None
                    when_free(self)
        except GONE:
            if self.client is not None:
                self.client.writer.close()
        finally:
            self.writer.close()


class Pool:
    """`size` places, each empty or a backend; all that are in the queue are free."""

    def __init__(self, server: str, parameters: bytes, size: int) -> None:
        self.server, self.parameters = server, parameters
        self.places: asyncio.Queue[Backend | None] = asyncio.Queue()
        self.pumps: set[asyncio.Task[None]] = set()
        for _ in range(size):
            self.places.put_nowait(None)

    async def take(self) -> Backend:
        backend = await self.places.get()
        if backend is not None and not backend.writer.is_closing():
            return backend
        try:
            backend = Backend(*await asyncio.open_unix_connection(self.server))
            await backend.start(self.parameters)
        except (OSError, *GONE) as error:
            self.places.put_nowait(None)
            raise refusal("the server does not answer") from error
        except Refused:
            self.places.put_nowait(None)
            raise
        self.pumps.add(asyncio.create_task(backend.pump(self.places.put_nowait)))
        return backend


class Pooler:
    """Pools transactions on `size` connections for each database and user of the server that `url` names."""

    def __init__(self, url: str, *, size: int = 2) -> None:
        server = conninfo_to_dict(url)
        self._server = f"{server['host']}/.s.PGSQL.{server['port']}"
        self._size = size
        self._pools: dict[bytes, Pool] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="pooler-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{quote(database)}?host={quote(self._folder.name)}&port={PORT}"

    def __enter__(self) -> Self:
        self._thread.start()
        path = Path(self._folder.name) / f".s.PGSQL.{PORT}"
        begun = asyncio.run_coroutine_threadsafe(asyncio.start_unix_server(self._serve, path), self._loop)
        self._listener = begun.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    async def _end(self) -> None:
        self._listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the closed connections are let go of

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        pool = None
        try:
            pool = await self._greet(reader, writer)
            while (message := await read(reader))[:1] != b"X":
                if client.backend is None:
                    client.backend = await pool.take()
                    client.backend.client = client
                client.backend.asked += message[:1] in ASKING
                client.backend.writer.write(message)
        except Refused as refused:
            writer.write(refused.args[0])
        except GONE:
            pass
        finally:
            if pool is not None and client.backend is not None:  # in the midst of a transaction, which the server ends
                client.backend.client = None
                client.backend.writer.close()
                pool.places.put_nowait(None)
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Pool:
        size, protocol = struct.unpack("!ii", await reader.readexactly(8))
        words = (await reader.readexactly(size - 8)).split(b"\0")[:-2]
        if protocol != PROTOCOL_3:
            raise refusal("unsupported protocol")
        start = dict(zip(words[::2], words[1::2], strict=True))
        for name in start:
            if name.lower() not in KNOWN:
                raise refusal(f"unsupported startup parameter: {name.decode()}")
        parameters = b"user\0%b\0database\0%b\0\0" % (start[b"user"], start.get(b"database", start[b"user"]))
        pool = self._pools.setdefault(parameters, Pool(self._server, parameters, self._size))
        backend = await pool.take()
        pool.places.put_nowait(backend)
        writer.write(
            b"R\0\0\0\x08\0\0\0\0" + backend.parameters + struct.pack("!ciii", b"K", 12, -1, -1) + READY_AND_IDLE
        )
        return pool
