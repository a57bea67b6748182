"""What every command gets: the store and the engine, opened when first asked for, and the options that all share.

Slow imports are late, and here: a command that needs no engine does not load one.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import ConfigError, DrydockError, Terminated, escaped, quoted

if TYPE_CHECKING:
    from ..engine import Engine
    from ..store.base import Store

LARGEST_ID = 2**63 - 1
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class App:
    """The context object of every command."""

    def __init__(self, store: str | None = None) -> None:
        self.address = store
        self.json = False

    @cached_property
    def store(self) -> "Store":
        from ..store import open_store

        return open_store(self.address)

    @cached_property
    def fresh_store(self) -> "Store":
        """The store, after what is over was recorded as such: a list tells nothing that is not true any more.

        No hook is run, and where the store cannot be written it is left as it is.
        """
        store = self.store
        with contextlib.suppress(DrydockError):
            if store.anything_over():
                self.bare_engine.reap()
        return store

    @cached_property
    def bare_engine(self) -> "Engine":
        """The engine, for what must not wait for anything else."""
        from ..engine import Engine
        from ..hooks import OwnProcess

        return Engine(self.store, hooks=OwnProcess())

    @cached_property
    def engine(self) -> "Engine":
        """The engine, after it has finished what others left."""
        self.bare_engine.tend()
        return self.bare_engine

    def close(self) -> None:
        """Let go of the store, and tell of rows that a list had to leave out."""
        if "bare_engine" in self.__dict__:
            self.bare_engine.close()
        if "store" in self.__dict__:
            self.store.close()
            for sentence in dict.fromkeys(map(str, self.store.damaged)):
                click.echo(f"drydock: {escaped(sentence)}", err=True)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--store` and `--json`, wherever on the line the user writes them."""

    def use_store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.find_object(App).address = value  # type: ignore[union-attr]

    def use_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.find_object(App).json = value  # type: ignore[union-attr]

    command = click.option(
        "--json", is_flag=True, expose_value=False, callback=use_json, help="One JSON object per line."
    )(command)
    return click.option(
        "--store", metavar="PATH", expose_value=False, callback=use_store, help="The store. [default: $DRYDOCK_STORE]"
    )(command)


class Id(click.ParamType[int]):
    """The id of a lease or resource: a whole number, or `lease:12`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return parse_id(str(value), self.kind)


def parse_id(text: str, kind: str) -> int:
    """The number in `text`, which may begin with "lease:". Raises `ConfigError`."""
    number = text.removeprefix(f"{kind}:")
    if not _ID.fullmatch(number) or int(number) > LARGEST_ID:
        raise ConfigError(f"not a {kind} id: {quoted(text)}; list them with: drydock {kind}s")
    return int(number)


class Fence(click.ParamType[int]):
    """The fence of a lease: a whole number, 1 or more."""

    name = "fence"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not _ID.fullmatch(str(value)) or int(value) > LARGEST_ID:
            raise ConfigError(f"--fence must be a whole number, 1 or more, not {quoted(value)}")
        return int(value)


fence_option = click.option(
    "--fence", metavar="N", type=Fence(), help="Only if this is its fence, as the grant told it."
)


def for_each(ids: Sequence[int], do: Callable[[int], None]) -> None:
    """Do it for all, also when one fails; then fail as the first one did."""
    first: DrydockError | None = None
    for id in ids:
        try:
            do(id)
        except DrydockError as error:
            if first is not None:
                click.echo(f"drydock: {escaped(str(error))}", err=True)
            first = first or error
    if first is not None:
        raise first


def one_with_a_fence(ids: Sequence[int], fence: int | None) -> None:
    """Each lease has a fence of its own: raise a usage error for one fence and several leases."""
    if fence is not None and len(ids) > 1:
        raise click.UsageError("--fence goes with one lease, since each has its own")


def end_on_signals() -> None:
    """From now on SIGTERM and SIGHUP unwind the command, as ^C does; one that we were told to ignore stays ignored."""

    import signal

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # once is enough; a second one must not interrupt the clean-up
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
            signal.signal(number, end)


def end_as_interrupted(app: App) -> None:
    """A command that we ran was ended by ^C: so are we, and whoever started us learns of it."""
    import os
    import signal

    app.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def tell(sentence: str) -> None:
    """Say it on stderr."""
    click.echo(f"drydock: {escaped(sentence)}", err=True)


def stdout_is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


pass_app = click.pass_obj
