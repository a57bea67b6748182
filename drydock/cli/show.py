"""Everything that is printed: JSON lines and tabs for programs, tables for people. The only importer of rich.

What is shown came from outside, so it goes through `printable` first, and rich gets it as plain text, never as markup.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from ..attributes import canonical
from ..errors import printable, quoted
from .app import stdout_is_terminal
from .terminal import width

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from ..allocator import Lost
    from ..model import Resource
    from ..request import Chosen
    from ..waiting import Waiting

BETWEEN_COLUMNS = 3  # characters
#: the widest column of a drawn table is at least so wide, or as wide as what is in it
NARROWEST = 12
STATUS_STYLES = {
    "active": "green", "acquired": "cyan", "pending": "yellow", "released": "dim", "destroyed": "dim", "broken": "red",
}  # fmt: skip


def json_lines(objects: Iterable[Mapping[str, Any]], *, err: bool = False) -> None:
    """One JSON object per line, ASCII only; with `err` on stderr."""
    for item in objects:
        click.echo(json.dumps(item), err=err)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, spare: Sequence[str] = ()) -> None:
    """One line per row: a drawn table on a terminal, tab-separated elsewhere and where the terminal is too narrow.

    `empty` is said on stderr when there is none. The columns that can be spared are drawn only where they tell
    something, and as far as the terminal is wide enough, the first of them first to go.
    """
    shown = [[cell(value) for value in row] for row in rows]
    if not shown:
        click.echo(empty, err=True)
    elif not (stdout_is_terminal() and any(_draw(*some) for some in _narrower(columns, shown, spare))):
        for row in ([name.upper() for name in columns], *shown):
            click.echo("\t".join(row))


def _narrower(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str]
) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The table without the spare columns that tell nothing, then without one after the other of the rest."""
    telling = [name for name, *cells in zip(columns, *rows, strict=True) if not {"-", "0"}.issuperset(cells)]
    kept = [name for name in columns if name not in spare or name in telling]
    for gone in (None, *(name for name in spare if name in kept)):
        kept = [name for name in kept if name != gone]
        places = [columns.index(name) for name in kept]
        yield kept, [[row[place] for place in places] for row in rows]


def cell(value: object) -> str:
    """`value` as it stands in a table: on one line, and powerless."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return printable(" ".join(f"{k}={v if isinstance(v, str) else canonical(v)}" for k, v in value.items())) or "-"
    return printable(value)


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago, in the largest unit that tells enough: "12s", "5m", "3h", "2d"."""
    if moment is None:
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - moment)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def about(waiting: "Waiting") -> str:
    """How long it may take, if anybody knows."""
    seconds = waiting.estimate_seconds
    return "" if seconds is None else f"; about {roughly(seconds)}"


def roughly(seconds: float) -> str:
    """So many seconds, rounded in the largest unit that tells enough."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(1.0, seconds):.0f}s"


def left(moment: float | None) -> str:
    """How long until then, in the largest unit that tells enough."""
    now = time.time()
    return "-" if moment is None else ago(now, max(now, moment))


def note(resource: "Resource") -> str:
    """What is out of the ordinary with a resource."""
    notes = []
    if resource.failures:
        tried = "once" if resource.failures == 1 else f"{resource.failures} times"
        notes.append(f"its hook failed {tried}, next try in {left(resource.not_before)}")
    if resource.given_up and resource.used:
        notes.append("given up as broken, goes with its last lease")
    if resource.rests_until is not None:
        notes.append(f"cools down for {left(resource.rests_until)}")
    if resource.until is not None and resource.status == "active":
        notes.append(f"goes in {left(resource.until)}")
    return "; ".join(notes) or "-"


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Draw the table, if the terminal is wide enough for it."""
    # Only the widest column gives way where the terminal is narrow, onto more lines: an id that is cut short is no id.
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    widest = widths.index(max(widths))
    widths[widest] = min(widths[widest], NARROWEST)
    if sum(widths) + BETWEEN_COLUMNS * len(widths) > width():
        return False
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        drawn.add_column(Text(name), no_wrap=number != widest, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(value, style=STATUS_STYLES.get(value, "")) for value in row))
    console().print(drawn)
    return True


def console(*, stderr: bool = False) -> "Console":
    """A rich console that shows text as it is."""
    from rich.console import Console

    return Console(stderr=stderr, width=width(), markup=False, highlight=False, emoji=False)


class Progress:
    """Tells on stderr why a request waits: a line that lives on a terminal, elsewhere a new line when it changes."""

    def __init__(self) -> None:
        self._said = ""
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, news: "Waiting | Lost | Chosen") -> None:
        from ..allocator import Lost
        from ..request import Chosen

        if isinstance(news, Chosen):
            chosen = ", ".join(map(printable, news.names)) or "nothing, as nothing is free"
            click.echo(f"chose {chosen}; allocating in {news.delay_seconds:g}s", err=True)
        elif isinstance(news, Lost):
            click.echo(
                f"lease {news.lease}: slot lock {quoted(news.key)} lost, {printable(news.holder)} holds it", err=True
            )
        else:
            self._tell(news)

    def _tell(self, waiting: "Waiting") -> None:
        # A terminal that cannot move its cursor is shown no line that lives, and so nothing at all.
        if sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
            self._live(f"{what(waiting)}: {why(waiting, live=True)}{about(waiting)}")
            return
        said = f"{what(waiting)}: {why(waiting, live=False)}"
        if said != self._said:  # the estimate is another one each time, and no news
            click.echo(said + about(waiting), err=True)
            self._said = said

    def _live(self, text: str) -> None:
        from rich.text import Text

        if self._status is None:
            self._status = console(stderr=True).status(Text(text))
            self._status.start()
        self._status.update(Text(text))


def what(waiting: "Waiting") -> str:
    """What is waited for."""
    demand = waiting.demand
    number = f"{waiting.wanted} x " if waiting.wanted > 1 else ""
    wanted = f" with {cell(demand.attributes)}" if demand.attributes else ""
    ids = ", ".join(map(str, waiting.leases[:3])) + (" ..." if len(waiting.leases) > 3 else "")
    return f"waiting for {number}{printable(demand.type)}{wanted} (lease {ids})"


def why(waiting: "Waiting", *, live: bool) -> str:
    """Who stands in the way. `live`: with how long, which changes all the time."""
    parts = [
        f"{printable(holder.name)} held by lease {holder.lease} ({printable(holder.owner)})"
        + (f" for {ago(holder.since)}" if live else f" since {time.strftime('%H:%M:%S', time.localtime(holder.since))}")
        + (f", {left(holder.ends_at)} left" if live and holder.ends_at is not None else "")
        for holder in waiting.holders
    ]
    more = waiting.held - len(waiting.holders)
    parts += [f"{more} more held"] if more > 0 else []
    if waiting.free:
        kept = ", ".join(f"lease {one.lease} which wants {one.wants}" for one in waiting.kept_for)
        parts.append(
            f"{waiting.free} free, kept for {kept}" if kept else f"{waiting.free} free, {waiting.wanted} wanted"
        )
    parts += [f"{waiting.ahead} waiting ahead"] if waiting.ahead else []
    return "; ".join(parts) or "nothing is held; it is being built, torn down or switched off (see: drydock resources)"
