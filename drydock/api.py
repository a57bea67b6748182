"""The Python API: `connect()` a store, `lease()` a thing, use it, and it is given back.

    with drydock.connect() as dock:
        with dock.lease("host", attributes={"arch": "arm64"}, wait=60) as lease:
            deploy(lease.resource.attributes["address"], fence=lease.fence)

A lease ends with the process that took it, also when that is killed, unless `detach=True`. A connection belongs to the
thread that opened it.

On a server, a thread of each connection that holds leases tells every ten seconds that its process lives. When the
server has not heard of it for thirty, others may be granted what it held. So who cannot reach the server must stop in
time: nothing stops a Python program from outside, as `drydock run` stops its command. `verify` and `renew` tell: they
raise `StoreError` while the lease is still good, and `LeaseLost` once it may be somebody else's, though no server said so.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, overload

from .applying import Change
from .config import parse_pool, read_pool_file
from .engine import Engine
from .errors import CommandFailed, ConfigError, LeaseLost, NotFound, StoreError
from .hooks import OwnProcess
from .interfaces import LOOK_SECONDS, Done, Interface, Words, check_argv, failed, get_file, put_file, run
from .model import Demand, LeaseStatus, Resource, SlotLockRow
from .model import Lease as LeaseRow
from .owner import default_owner
from .request import Progress
from .store import open_store
from .uptime import uptime


def connect(store: str | None = None) -> "Connection":
    """Open the store at this path or URL; None: `DRYDOCK_STORE`, else the default. Raises `StoreError` and its kin."""
    return Connection(Engine(open_store(store), hooks=OwnProcess()))


class Connection:
    """An open store. A context manager that closes it; leases taken through it are not ended by that."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        engine.tend()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<drydock.Connection {self._engine.store.address}>"

    def close(self) -> None:
        """Let go of the store. Leases that were taken through it go on until this process ends. May be called twice."""
        self._engine.close()

    def apply(self, pool: str | os.PathLike[str] | Mapping[str, Any], *, prune: bool = False) -> list[Change]:
        """Offer what a pool file says: its path, or its content as a dict. Returns what changed."""
        given = parse_pool(pool, "pool") if isinstance(pool, Mapping) else read_pool_file(Path(pool))
        return self._engine.apply(given, prune=prune)

    @overload
    def lease(
        self,
        type: str,
        *,
        blueprint: str | Sequence[str] | None = ...,
        attributes: Mapping[str, Any] | None = ...,
        owner: str | None = ...,
        priority: int = ...,
        wait: float | None = ...,
        ttl: float | None = ...,
        until: float | datetime | None = ...,
        detach: bool = ...,
        progress: Progress | None = ...,
    ) -> "Lease": ...
    @overload
    def lease(
        self,
        type: str,
        *,
        blueprint: str | Sequence[str] | None = ...,
        attributes: Mapping[str, Any] | None = ...,
        owner: str | None = ...,
        priority: int = ...,
        wait: float | None = ...,
        ttl: float | None = ...,
        until: float | datetime | None = ...,
        count: int,
        detach: bool = ...,
        progress: Progress | None = ...,
    ) -> "Lease | Leases": ...
    def lease(
        self,
        type: str,
        *,
        blueprint: str | Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        owner: str | None = None,
        priority: int = 0,
        wait: float | None = None,
        ttl: float | None = None,
        until: float | datetime | None = None,
        count: int = 1,
        detach: bool = False,
        progress: Progress | None = None,
    ) -> "Lease | Leases":
        """Hold a thing of `type`; with `count` over 1, so many of them or none.

        `blueprint`: only from this one, or these. `attributes`: it must have these pairs. `wait`: seconds; None waits
        as long as it takes, 0 not at all. `priority`: larger is served first. `ttl`: it ends so many seconds after it
        was granted or last renewed. `until`: it ends at this moment, seconds since the epoch or a `datetime` with a
        zone. `detach`: the lease outlives this process. `progress`: called with why it waits, each time that changes.

        Raises `NothingFree` when time is up; `NoBlueprint`, `NotFound`, `NeverPossible` when waiting cannot help;
        `ConfigError` for what cannot be meant; `BlueprintError` when what should be built cannot be.
        """
        names = () if blueprint is None else (blueprint,) if isinstance(blueprint, str) else tuple(blueprint)
        granted = self._engine.lease(
            Demand(type, names, attributes or {}),
            owner=default_owner() if owner is None else owner,
            count=count,
            wait_seconds=wait,
            keep=detach,
            priority=priority,
            ttl=ttl,
            until=_seconds(until),
            progress=progress,
        )
        leases = [Lease(self._engine, row, detached=detach) for row in granted]
        return leases[0] if count == 1 else Leases(leases)

    def leases(self) -> list[LeaseRow]:
        """Every lease that is not over, oldest first."""
        return self._engine.store.leases.live()

    def resources(self) -> list[Resource]:
        """Every resource that is not destroyed."""
        return self._engine.store.resources.live()

    def locks(self) -> list[SlotLockRow]:
        """Every slot lock that is held."""
        return self._engine.store.slot_locks.all()

    def release(self, id: int, *, fence: int | None = None, broken: str | None = None) -> bool:
        """Give back the lease `id`. False if it was over already. Raises `NotFound` if there never was one.

        With `fence`, raises `LeaseLost` unless the lease is held with that fence. `broken`: see `Lease.release`.
        """
        return self._engine.release(id, fence=fence, broken=broken)

    def renew(
        self,
        id: int,
        *,
        fence: int | None = None,
        ttl: float | None = None,
        until: float | datetime | None = None,
    ) -> LeaseRow:
        """Let the ttl of the lease `id` begin anew, and give it another `ttl` or `until` if one is named.

        Raises `LeaseLost` when it is not held any more or has another fence, `NotFound` if there never was one.
        """
        return self._engine.renew(id, fence=fence, ttl=ttl, until=_seconds(until))

    def verify(self, id: int, *, fence: int | None = None) -> LeaseRow:
        """The lease `id`, if it is held, with this `fence` if one is given. Raises as `renew` does."""
        return self._engine.verify(id, fence=fence)


class Lease:
    """A lease that is held. A context manager that releases it."""

    def __init__(self, engine: Engine, row: LeaseRow, *, detached: bool = False) -> None:
        self._engine, self._row, self._detached = engine, row, detached
        self._given_back = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<drydock.Lease {self.id} {self.resource.type} {self.resource.name} fence {self.fence}>"

    @property
    def id(self) -> int:
        return self._row.id

    @property
    def fence(self) -> int:
        """A number that grows with every grant of this resource."""
        return self._row.fence or 0

    @property
    def resource(self) -> Resource:
        """What is held, as it was when it was granted."""
        assert self._row.resource is not None
        return self._row.resource

    @property
    def status(self) -> LeaseStatus:
        """Where the lease stands now."""
        now = self._engine.store.leases.ending(self.id)
        if now is None:
            raise NotFound("lease", self.id)
        return now.status

    @property
    def seconds_left(self) -> float | None:
        """How long it lasts unless it is renewed; None: without end. Not more than 0: it is over."""
        return self._engine.seconds_left(self.id)

    @property
    def given_back(self) -> bool:
        """Whether `release` was called."""
        return self._given_back

    def release(self, *, broken: str | None = None) -> bool:
        """Give it back. False if it was over already. May be called twice.

        `broken` says what is wrong with its resource, which then nobody else gets: it takes no new lease and is torn
        down after its last, once it has rested for the `cooldown` of its blueprint. What a pool hands out can be had
        again from then on.
        """
        self._given_back = True
        return self._engine.release(self.id, broken=broken)

    def renew(self) -> None:
        """Let its ttl begin anew. Raises `LeaseLost` if it is not held any more: stop using the thing; `StoreError` if
        that cannot be told now."""
        with self._unless_others_may_have_it():
            self._row = self._engine.renew(self.id, fence=self.fence)

    def verify(self) -> None:
        """Raise `LeaseLost` unless it is still held; `StoreError` if that cannot be told now."""
        with self._unless_others_may_have_it():
            self._engine.verify(self.id, fence=self.fence)

    def command(
        self,
        argv: Words,
        *,
        input: bytes | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        capture_output: bool = False,
        check: bool = False,
        seconds: float | None = None,
    ) -> Done:
        """Run a command on what is held, here or over ssh as its blueprint says, and return how it ended.

        The words of `argv` arrive as they are; no shell reads them. `input` is for its stdin; the streams are otherwise those
        of `subprocess.run`. `check`: raise `CommandFailed` when its exit code is not 0. `seconds`: it may take at most so
        long. Meanwhile the lease is renewed every third of its ttl, and when it is lost the command is ended.

        Raises `LeaseLost` when it is not held (any more); `ConfigError` when its kind knows no way to run a command;
        `Unreachable` when there is no way there now; `CommandFailed` when it cannot be started or takes too long.
        """
        from subprocess import PIPE

        if capture_output:
            stdout = stderr = PIPE
        words = check_argv(argv)
        with self._on_it() as (interface, meanwhile):
            self._engine.command_started(self._row)
            code: int | None = None
            try:
                done = run(interface, words, input=input, stdin=stdin, stdout=stdout, stderr=stderr, seconds=seconds,
                           meanwhile=meanwhile)  # fmt: skip
                code = done.code
            except CommandFailed as error:
                code = error.code
                raise
            finally:
                with suppress(StoreError):  # how it went is told here, also when it cannot be told there
                    self._engine.command_ended(self._row, code)
        if check and done.code:
            raise failed(interface, words, done)
        return done

    def put(
        self, local: str | os.PathLike[str], remote: str | os.PathLike[str], *, seconds: float | None = None
    ) -> None:
        """Copy the file `local` of this machine to `remote`, there, where it appears, or replaces what is there, whole
        and with its permissions, or not at all. No path is expanded. Raises `OSError` for `local`, else as `command`."""
        with self._on_it() as (interface, meanwhile):
            put_file(interface, local, remote, seconds=seconds, meanwhile=meanwhile)

    def get(
        self, remote: str | os.PathLike[str], local: str | os.PathLike[str], *, seconds: float | None = None
    ) -> None:
        """Copy the file `remote` from there to `local`, on this machine; otherwise as `put`."""
        with self._on_it() as (interface, meanwhile):
            get_file(interface, remote, local, seconds=seconds, meanwhile=meanwhile)

    @contextmanager
    def _on_it(self) -> Iterator[tuple[Interface, Callable[[], None]]]:
        """Where commands run, and what is to be called while one does: it raises `LeaseLost`."""
        self.verify()
        interface = self._engine.interface(self._row)
        with self._engine.while_a_command_runs():
            yield interface, _Keeping(self)

    @contextmanager
    def _unless_others_may_have_it(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            left = None if self._detached else self._engine.store.life_left()
            if left is None or left > 0:
                raise
            raise LeaseLost(
                self.id, f"others may have it, since the server has not heard of us for long: {error}"
            ) from error


class _Keeping:
    """Called again and again, it keeps a lease that has a ttl, and raises `LeaseLost` when the lease is not held."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.renewed_at: float | None = None
        self.deadline: float | None = None

    def __call__(self) -> None:
        now, ttl = uptime(), self.lease._row.ttl
        try:
            if ttl is not None and (self.renewed_at is None or now >= self.renewed_at + ttl / 3):
                self.lease.renew()
                self.renewed_at = now
            else:
                self.lease.verify()
            left = self.lease.seconds_left
            self.deadline = None if left is None else now + left
        except StoreError as error:  # nothing is known now, and that is no reason to stop before the time that is known
            if self.deadline is not None and uptime() >= self.deadline - LOOK_SECONDS:
                raise LeaseLost(self.lease.id, f"its time is over: {error}") from error


class Leases(Sequence[Lease]):
    """Several leases that were granted together. A context manager that releases them all."""

    def __init__(self, leases: Sequence[Lease]) -> None:
        self._leases = tuple(leases)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases)

    @overload
    def __getitem__(self, index: int) -> Lease: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Lease, ...]: ...
    def __getitem__(self, index: int | slice) -> Lease | tuple[Lease, ...]:
        return self._leases[index]

    def __repr__(self) -> str:
        return f"<drydock.Leases {', '.join(str(lease.id) for lease in self._leases)}>"

    def release(self) -> None:
        """Give them all back; the first error is raised after all were tried."""
        errors = []
        for lease in self._leases:
            try:
                lease.release()
            except Exception as error:  # noqa: BLE001 - the others must be released all the same
                errors.append(error)
        if errors:
            raise errors[0]


def _seconds(until: float | datetime | None) -> float | None:
    if not isinstance(until, datetime):
        return until
    if until.tzinfo is None:
        raise ConfigError("until must have a time zone")
    return until.timestamp()
