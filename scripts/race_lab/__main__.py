"""scripts/race-demo"""

import shutil
import signal
import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import click
from picture import WIDTH, frame, svg
from race import Lab, Race
from rich.console import Console
from rich.live import Live

from drydock.errors import StoreError
from drydock.testing import yard
from drydock.testing.explore import show
from drydock.testing.postgres import Server, server_for_tests

ATTEMPTS = 2
#: signals that came
asked: list[int] = []


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--delay", default=2.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0.1, 600),
              help="How long each process stops between choosing and allocating.")  # fmt: skip
@click.option("--store", default="sqlite", show_default=True, type=click.Choice(["sqlite", "postgres"]),
              help="A file, or a server that is started for it.")  # fmt: skip
@click.option("--tmux", is_flag=True, help="Type the commands into two panes of a tmux of its own.")
@click.option("--explore", "every", is_flag=True, help="Try every order of their SQL statements instead.")
@click.option("--svg", "picture", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Write how it ended to FILE.")  # fmt: skip
def main(delay: float, store: str, tmux: bool, every: bool, picture: Path | None) -> None:
    """Race two `drydock lease` processes for one host, without slot locks and with.

    Both choose the host before either allocates it. Without slot locks it is allocated twice, and `drydock doctor`
    says so; with them one is granted, the other's slot lock is lost, and it waits its turn. Each race has a store of its
    own in a temporary folder.

    With --explore nothing is left to time: two threads run every order in which their SQL statements can come. Without
    slot locks it finds the double allocation by itself, and shows the shortest way to it.

    \b
    scripts/race-demo
    scripts/race-demo --delay 10      long enough to do it by hand
    scripts/race-demo --store postgres
    scripts/race-demo --tmux
    scripts/race-demo --explore
    scripts/race-demo --svg race.svg

    Exit code 0 only if the unsafe race did allocate twice and the safe one did not; else 1, and it says which.
    """
    if every and store == "postgres":
        raise click.UsageError("--explore goes with --store sqlite: it stops between the statements of its threads")
    if every:
        sys.exit(explore())
    for command in ("drydock", *(["tmux"] if tmux else [])):
        if shutil.which(command) is None:
            raise click.UsageError(f"there is no {command} on the PATH")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    with ExitStack() as stack:
        server = None
        if store == "postgres":
            try:
                server = stack.enter_context(server_for_tests())
            except StoreError as error:
                raise click.ClickException(str(error)) from error
        races = [run(slot_locks, delay, tmux, server) for slot_locks in (False, True)]
    if picture:
        picture.write_text(svg(races))
    failed = False
    for race in races:
        name = "with slot locks" if race.slot_locks else "without slot locks"
        if race.wrong:
            failed = True
            click.echo(f"race-demo: FAILED {name}: {race.verdict}", err=True)
        else:
            click.echo(f"{name}: {race.verdict}")
    sys.exit(failed)


def explore() -> bool:
    """Explore the race, without slot locks and with, and show what was found; whether it is not what must be found."""
    failed = False
    for slot_locks in (False, True):
        with yard.race(slot_locks=slot_locks) as explorer:
            report = explorer.explore()
        name = "with slot locks" if slot_locks else "without slot locks"
        click.echo(f"{name}: {report.schedules:,} schedules, {report.runs} runs, {report.seconds:.1f}s")
        if report.shortest is None:
            click.echo("none of them breaks a promise")
        else:
            click.echo(f"the shortest that breaks a promise:\n\n{show(report.shortest)}\n")
        failed |= (report.shortest is None) != slot_locks
    return failed


def run(slot_locks: bool, delay: float, tmux: bool, server: Server | None) -> Race:
    """Run one race and show it. Where the machine was too slow for the delay there was no race: again, with four times the delay."""
    watched = sys.stdout.isatty()
    console = Console(width=None if watched else WIDTH, highlight=False)
    for attempt in range(ATTEMPTS):
        race = Race(slot_locks)
        live = Live(get_renderable=partial(frame, race), console=console) if watched and not tmux else nullcontext()
        with Lab(race, delay * 4**attempt, server=server, tmux=tmux, watched=watched, check=check) as lab, live:
            lab.run()
        check()
        if not watched or tmux:
            console.print(frame(race))
        if not race.late:
            break
    return race


def check() -> None:
    """End if a signal asked for it. Only here: between two waits no process can get lost that was just started."""
    if asked:
        sys.exit(128 + asked[0])


if __name__ == "__main__":
    main(prog_name="scripts/race-demo")
