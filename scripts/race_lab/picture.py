"""How a race looks: two terminals side by side, and below them what the store says."""

import io
import re
from collections.abc import Iterable

from race import Race, Seen
from rich.box import ROUNDED
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from terminals import GRANTED, Terminal

WIDTH = 120
TITLE = "drydock: the race, both ways"
FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
THEME = TerminalTheme(
    (22, 24, 33),
    (205, 210, 222),
    [(22, 24, 33), (243, 105, 118), (140, 205, 115), (236, 190, 110), (110, 165, 245), (198, 146, 233), (96, 200, 212), (205, 210, 222)],
    [(95, 100, 118), (255, 120, 132), (160, 222, 135), (250, 208, 130), (135, 185, 255), (215, 170, 245), (120, 218, 228), (235, 238, 245)],
)  # fmt: skip


def frame(race: Race) -> RenderableType:
    """The race as it stands now."""
    fine = race.wrong == []
    colour = "yellow" if race.wrong is None else "green" if fine and race.slot_locks else "red"
    way = "with slot locks" if race.slot_locks else "without slot locks"
    heading = Text.assemble((f" {way} ", f"bold black on {colour}"), "  ", (race.verdict, f"bold {colour}"))
    terminals = Table(box=ROUNDED, expand=True, border_style="bright_black", header_style="bright_black")
    for terminal in race.terminals:
        terminals.add_column(terminal.name, ratio=1)
    terminals.add_row(*(_terminal(race, terminal) for terminal in race.terminals))
    store = Panel(_store(race), title="the store", title_align="left", box=ROUNDED, border_style=colour)
    return Padding(Group(heading, terminals, store), (0, 0, 1, 0))


def _terminal(race: Race, terminal: Terminal) -> RenderableType:
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(justify="right", style="bright_black", width=5, no_wrap=True)
    lines.add_column(overflow="fold")
    for at, text in terminal.lines:
        lines.add_row(f"{max(0.0, at - race.started):.1f}s", Text(text, _style(race, text)))
    return lines


def _style(race: Race, text: str) -> str:
    if text.startswith("$"):
        return "bold"
    if text.startswith("chose "):
        return "cyan"
    if GRANTED.match(text):
        return "bold green" if race.slot_locks else "bold red"
    if "slot lock" in text:
        return "bold yellow"
    return "" if "waiting for" in text else "bright_black"


def _store(race: Race) -> RenderableType:
    if race.seen is None:
        return Text("nothing is allocated yet", "bright_black")
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="bright_black", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, text in _told(race.seen):
        rows.add_row(name, text)
    if race.after:
        rows.add_row("afterwards", Text(race.after, "green"))
    return rows


def _told(seen: Seen) -> Iterable[tuple[str, Text]]:
    twice = len(seen.resources) > 1
    names = Text("  ").join(Text(f"resource:{r['id']} = {r['name']}") for r in seen.resources)
    yield (
        "resources",
        Text.assemble(names, "   the same host twice" if twice else "", style="bold red" if twice else ""),
    )
    held = Text("\n").join(Text(f"{lock['key']} held by {lock['holder']}") for lock in seen.locks)
    yield "slot locks", held or Text("none")
    for event in seen.lost:
        data = event["data"]
        text = f"slot-lock.lost  lease:{event['lease']}  key={data['key']}  holder={data['holder']}"
        yield "log", Text(text, "bold yellow")
    if seen.doctor == 0:
        yield "doctor", Text("all promises hold", "green")
    else:
        first, others = seen.broken[0], len(seen.broken) - 1
        more = f" (and {others} more findings)" if others else ""
        yield "doctor", Text(f"exit {seen.doctor}  BROKEN  {first['sentence']}{more}", "bold red")


def svg(races: Iterable[Race]) -> str:
    """All races as one picture that needs nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for race in races:
        console.print(frame(race))
    drawn = console.export_svg(title=TITLE, theme=THEME, unique_id="race")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # rich's points to a font on the web
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", FONTS)
    return drawn.replace("font-size: 20px", "font-size: 20.3px")  # these are a little narrower than rich's
