"""drydock command"""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..errors import DrydockError, Unreachable
from .app import App, Id, end_as_interrupted, fence_option, pass_app, shared_options, tell
from .completing import lease_ids

if TYPE_CHECKING:
    from ..engine import Engine
    from ..interfaces import Interface
    from ..model import Lease
    from ..running import Ended


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--lease", "-l", "id", required=True, type=Id("lease"), metavar="LEASE", shell_complete=lease_ids,
    help="Run it on what this lease holds.",
)  # fmt: skip
@fence_option
@shared_options
@pass_app
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
def command(app: App, id: int, fence: int | None, argv: tuple[str, ...]) -> int:
    """Run COMMAND on what a lease holds: here, or over ssh.

    \b
    drydock command --lease 12 -- uname -a
    drydock command --lease 12 -- tar -c results > results.tar
    drydock command --lease 12 -- sh -c 'cd /srv && make test' < /dev/null

    COMMAND and its arguments arrive as they are, whatever is in them; no shell reads them. Its input, output and exit code
    are passed on, byte for byte. The lease must be active (4 if not, 5 if there is none), and its kind must know a way (2 if
    not). Of a host's ssh the system's client is used, with your configuration; host keys are checked, and nobody is asked
    anything. When ssh itself fails, one sentence says why, and the exit code is 7; 255 is COMMAND's own, or a connection that
    was lost while it ran.

    If the lease ends before COMMAND does, COMMAND gets SIGTERM, then SIGKILL, and the exit code is 124. Nobody renews
    the lease meanwhile. Signals are passed on; over ssh they end ssh (255). The end of ssh ends COMMAND within
    seconds. A COMMAND that runs here finds in its environment what `drydock run` tells its own, and what it leaves running is
    ended; over ssh neither.

    stdout is COMMAND's alone: --json writes the lease to stderr.
    """
    from .. import interfaces, running
    from . import objects, show

    if not argv:
        raise click.UsageError("missing COMMAND; write it after --, as in: drydock command --lease 12 -- uname -a")
    words = interfaces.check_argv(argv)
    engine = app.bare_engine
    lease = engine.verify(id, fence=fence)
    interface = engine.interface(lease)
    engine.command_started(lease)
    code: int | None = None
    try:
        if app.json:
            show.json_lines([objects.lease(lease)], err=True)
        ended = _run(app, lease, interface, words)
        code = ended.code
    except running.NotStarted as error:
        if isinstance(interface, interfaces.Ssh):
            raise Unreachable(interface.address, str(error)) from error
        tell(str(error))
        code = error.code
        return code
    finally:
        try:
            engine.command_ended(lease, code)
        except DrydockError as error:
            tell(f"its end could not be recorded: {error}")
    if ended.interrupted:
        end_as_interrupted(app)
    return code


def _run(app: App, lease: "Lease", interface: "Interface", argv: list[str]) -> "Ended":
    from .. import interfaces, running
    from ..attributes import parse_duration
    from .run_one import DEFAULT_GRACE, environment

    variables = dict(os.environb)
    if isinstance(interface, interfaces.Local):
        variables = environment([lease], app.store.url)
        if interface.folder:
            try:
                os.chdir(interface.folder)  # the store's own files are open, or have full names
            except OSError as error:
                raise running.NotStarted(interface.folder, error.errno or 0) from error
    with app.bare_engine.while_a_command_runs(), interfaces.ssh_log(interface) as log, running.Signals() as signals:
        ended = running.Running(
            interfaces.command_line(interface, argv, log), variables, _Held(app.bare_engine, lease), signals,
            tell=tell, grace=parse_duration(DEFAULT_GRACE, "grace"),
        ).run()  # fmt: skip
        if not ended.lost:
            interfaces.check_reached(interface, ended.code, log)
    return ended


class _Held:
    """A lease as `running` sees it that is somebody else's to renew."""

    ttl = None

    def __init__(self, engine: "Engine", lease: "Lease") -> None:
        self.engine, self.lease = engine, lease

    def seconds_left(self) -> float | None:
        return self.engine.seconds_left(self.lease.id)

    def seconds_fixed(self) -> float | None:
        return None

    def verify(self) -> None:
        self.engine.verify(self.lease.id, fence=self.lease.fence)

    renew = verify

    def wait(self, seconds: float, wake: int) -> None:
        from select import select

        with suppress(OSError):
            select([wake], [], [], seconds)
