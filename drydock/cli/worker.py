"""drydock worker"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import click

from ..errors import Terminated, escaped
from .app import App, pass_app, shared_options

if TYPE_CHECKING:
    from ..model import Event


@click.command()
@click.option("--once", is_flag=True, help="Do what is due now, and end: for cron.")
@shared_options
@pass_app
def worker(app: App, once: bool) -> None:
    """Do on time what no other command came by to do, until ^C or SIGTERM.

    It ends leases whose time is over or whose process died, hands what they held to whoever waits, builds up and tears
    down what was left half done, tries again what failed, and forgets what was over 30 days ago (DRYDOCK_KEEP: another
    duration, or "forever"). Without one this is done by the next command that comes by. Start as many as you like.

    Each thing that it did is one line on stderr, with --json an event on stdout. It ends at once, after the hook of a
    blueprint that is running; a second signal interrupts that too.

    \b
    drydock worker
    drydock worker --once
    """
    from ..worker import Worker
    from . import history, objects, show

    def tell(event: "Event") -> None:
        if app.json:
            show.json_lines([objects.event(event)])
        else:
            click.echo(history.line(event), err=True)

    def complain(sentence: str) -> None:
        click.echo(f"drydock: {escaped(sentence)}; trying again", err=True)

    worker = Worker(app.bare_engine, tell=tell, complain=complain)
    _stop_on_signals(worker.stop)
    if once:
        worker.run_once()
        return
    click.echo(f"drydock: at work on {show.cell(app.store.address)}", err=True)
    worker.run()


def _stop_on_signals(stop: Callable[[], None]) -> None:
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise Terminated(number)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` means it
            signal.signal(number, on_signal)
