"""How events are shown, wherever they are."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import click

from ..errors import ConfigError, quoted
from ..model import Event
from . import objects, show
from .app import App, parse_id


class Subject(NamedTuple):
    """What events may be about: `lease` or `resource`, and its id."""

    kind: str
    id: int


def parse_subject(about: str) -> Subject:
    """The subject meant by `lease:N`, `resource:N` or a lease's bare number. Raises `ConfigError` for anything else."""
    kind = about.partition(":")[0] if ":" in about else "lease"
    if kind not in ("lease", "resource"):
        raise ConfigError(f"cannot show events about {quoted(about)}; give lease:N or resource:N")
    return Subject(kind, parse_id(about, kind))


def events_about(app: App, subject: Subject, most: int) -> list[Event]:
    """The newest events about it, oldest of them first."""
    if subject.kind == "lease":
        return app.store.events.of_lease(subject.id, most)
    return app.store.events.of_resource(subject.id, most)


def is_about(event: Event, subject: Subject) -> bool:
    """Whether `events_about` would name it."""
    if subject.kind == "lease":
        return event.lease == subject.id
    return event.resource == subject.id and event.event.startswith("resource.")


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
