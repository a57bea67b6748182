"""The command line: one small file for each command, and here what all have in common: names, and how it ends."""

import errno
import gc
import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import click

from .. import errors
from .app import App
from .terminal import help_width

#: what a program may rely on; a class that is not named here counts as its nearest base
EXIT_CODES: dict[type[BaseException], int] = {
    errors.DrydockError: 1,
    errors.ConfigError: 2,
    errors.NothingFree: 3,
    errors.NeverPossible: 3,
    errors.Conflict: 4,
    errors.NotFound: 5,
    errors.NoBlueprint: 5,
    errors.BlueprintError: 6,
    errors.CommandFailed: 6,
    errors.Unreachable: 7,
    errors.StoreError: 7,
    errors.StoreDamaged: 8,
    errors.Refused: 9,
}
CANNOT_WRITE_OUTPUT = 74
OUT_OF_MEMORY = 71
INTERRUPTED = 130

EPILOG = """\b
Exit codes: 0 done, 2 bad usage or input, 3 nothing free in time or never possible, 4 lease lost or
conflict, 5 not found, 6 a blueprint failed, 7 store, file or host unavailable, 8 store damaged or of another
version, 9 refused for safety, 128+n ended by signal n. `run` and `command` give their command's own;
124 lease lost, 126 cannot be executed, 127 no such command."""


class ReaderIsGoneError(Exception):
    """Whoever read our output has closed it."""


#: each command: the module in this folder and the function in it, and what it does, short enough for a list of all
COMMANDS = {
    "apply": ("apply.apply", "Offer what the pool file FILE says."),
    "lease": ("lease.lease", "Wait for a thing and hold it."),
    "run": ("run_one.run", "Run COMMAND while holding a thing."),
    "renew": ("renew.renew", "Let the ttl of leases begin anew."),
    "verify": ("verify.verify", "Check that a lease is held."),
    "command": ("command.command", "Run COMMAND on what a lease holds: here, or over ssh."),
    "release": ("release.release", "Give back leases."),
    "release-resource": ("release.release_resource", "Take resources away, their leases first."),
    "reclaim": ("release.reclaim", "Take away what is idle past its grace."),
    "leases": ("lists.leases", "List leases: who holds what, and who waits."),
    "resources": ("lists.resources", "List resources: what is under management."),
    "blueprints": ("lists.blueprints", "List blueprints, or what they can be made of."),
    "new-blueprint": ("new_blueprint.new_blueprint", "Write a package with a kind of your own."),
    "bindings": ("lists.bindings", "List bindings: the real things that pools hand out."),
    "locks": ("lists.locks", "List the slot locks that are held, and by whom."),
    "log": ("lists.log", "Show what happened: every decision."),
    "show": ("show_one.show", "Show one lease, resource or blueprint."),
    "disable": ("switch.disable", "Give out no new leases of a blueprint or binding."),
    "enable": ("switch.enable", "Give out leases of a blueprint or binding again."),
    "worker": ("worker.worker", "Do on time what no other command came by to do."),
    "doctor": ("doctor.doctor", "Check the store for what must never be."),
    "copy-store": ("copy_store.copy_store", "Copy a whole store to another one."),
    "completion": ("completion.completion", "Print what lets a shell complete drydock's words."),
}


class OnDemand(MutableMapping[str, click.Command]):
    """Commands by name, each loaded when it is first asked for, since few commands need another."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            where, in_short = COMMANDS[name]
            module, _, function = where.partition(".")
            self._loaded[name] = getattr(import_module(f"{__name__}.{module}"), function)
            self._loaded[name].short_help = in_short
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("no command is ever taken away")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS | self._loaded)

    def __len__(self) -> int:
        return len(COMMANDS | self._loaded)


class Commands(click.Group):
    """A group that lists its commands from `COMMANDS`, and guesses what a mistyped one was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {errors.quoted(close[0])}?" if close else ""
            raise click.UsageError(f"unknown command {errors.quoted(args[0])}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without loading them, as click does: that would take as long as all the rest of `--help`.
        with formatter.section("Commands"):
            formatter.write_dl([(name, in_short) for name, (_, in_short) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderIsGoneError from error  # click would end with 1


@click.group(
    cls=Commands,
    commands=OnDemand(),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--store", metavar="PATH", help="The store. [default: $DRYDOCK_STORE, else below ~/.local/state]")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=lambda c, _, v: _version(c, v),
              help="Show the version and exit.")  # fmt: skip
@click.pass_context
def drydock(ctx: click.Context, store: str | None) -> None:
    """Hand each process exactly one of your shared things, never the same one twice.

    \b
    drydock apply pool.toml             offer what the pool file says
    drydock run --type host -- CMD      run a command while holding a host
    drydock lease --type host           wait for a host and hold it
    drydock leases                      who holds what
    drydock release 12                  give it back
    """
    ctx.obj = App(store)
    ctx.call_on_close(ctx.obj.close)


def main(arguments: list[str] | None = None) -> None:
    """The console script: run one command and exit with its code. No traceback reaches a user without DRYDOCK_DEBUG."""
    _occupy_closed_streams()
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        code = _cannot_write(error)
    # The interpreter would look through all that was loaded once more as it ends, for rubbish that ends with it anyway: that
    # takes a seventh of what a short command takes.
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; what went wrong is told on stderr."""
    try:
        result = drydock.main(args=arguments, prog_name="drydock", standalone_mode=False, terminal_width=help_width())
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.ClickException as error:
        return _fail(_usage(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except errors.Terminated as ended:
        return 128 + ended.signal
    except errors.DrydockError as error:
        return _told(error)
    except ReaderIsGoneError:
        return _reader_is_gone()
    except MemoryError:
        return _fail("out of memory", OUT_OF_MEMORY)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return _fail("too many open files; raise the limit with: ulimit -n 256", EXIT_CODES[errors.StoreError])
        if error.filename is not None:  # a file that a path names; our output has none
            what = f"cannot use {errors.quoted(error.filename)}: {error.strerror}"
            return _fail(what, EXIT_CODES[errors.StoreError])
        return _cannot_write(error)
    except Exception as error:
        if os.environ.get("DRYDOCK_DEBUG") == "1":
            raise
        what = errors.printable(f"{type(error).__name__}: {error}")
        return _fail(f"a bug in drydock: {what}; run again with DRYDOCK_DEBUG=1 and report what it prints", 1)


def _told(error: errors.DrydockError) -> int:
    if os.environ.get("DRYDOCK_DEBUG") == "1":
        raise error
    code = next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    return _fail(str(error), code)


def _usage(error: click.ClickException) -> str:
    """What click complains of, as one sentence of ours."""
    said, guess, meant = error.format_message().partition("Did you mean")
    said = said.rstrip(" .(")
    said = errors.printable(said[:1].lower() + said[1:])
    if guess:
        return f"{said}; did you mean{errors.printable(meant.rstrip(')'))}"
    context = getattr(error, "ctx", None)
    return said if said.endswith("?") else f"{said}; see: {context.command_path if context else 'drydock'} --help"


def _fail(sentence: str, code: int) -> int:
    try:
        click.echo(f"drydock: {errors.escaped(sentence)}", err=True)
    except (OSError, ValueError):
        return code
    return code


def _cannot_write(error: OSError | ValueError) -> int:
    if isinstance(error, BrokenPipeError):
        return _reader_is_gone()
    _silence_stdout()
    return _fail(f"cannot write output: {getattr(error, 'strerror', None) or error}", CANNOT_WRITE_OUTPUT)


def _reader_is_gone() -> int:
    _silence_stdout()
    return 128 + 13


def _occupy_closed_streams() -> None:
    """Give the numbers of closed standard streams to something harmless, or the store's files would get them."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (fd := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - writing to it fails, as it should


def _silence_stdout() -> None:
    # The interpreter flushes stdout once more when it exits, and would complain about the same thing again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version(ctx: click.Context, wanted: Any) -> None:
    if wanted and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"drydock {__version__}")
        ctx.exit()
