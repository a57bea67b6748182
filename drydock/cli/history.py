"""How events are shown, wherever they are."""

import time
from collections.abc import Iterable

import click

from ..errors import ConfigError, quoted
from ..model import Event
from . import objects, show
from .app import App, parse_id


def events_about(app: App, about: str, most: int) -> list[Event]:
    """The newest events about `lease:N` or `resource:N`. Raises `ConfigError` for anything else."""
    kind = about.partition(":")[0] if ":" in about else "lease"
    if kind == "lease":
        return app.store.events.of_lease(parse_id(about, "lease"), most)
    if kind == "resource":
        return app.store.events.of_resource(parse_id(about, "resource"), most)
    raise ConfigError(f"cannot show events about {quoted(about)}; give lease:N or resource:N")


def print_events(app: App, events: Iterable[Event]) -> None:
    """One line each: when, what, about which, and the rest."""
    if app.json:
        show.json_lines(map(objects.event, events))
        return
    for event in events:
        click.echo(line(event))


def line(event: Event) -> str:
    about = [
        f"{kind}:{show.cell(value)}"
        for kind, value in (("lease", event.lease), ("resource", event.resource), ("blueprint", event.blueprint))
        if value is not None
    ]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    rest = show.cell(event.data) if event.data else ""
    return "  ".join(filter(None, (when, f"{show.cell(event.event):<20}", " ".join(about), rest))).rstrip()
