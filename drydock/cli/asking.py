"""What `lease` and `run` have in common: the options that say what is wanted, by whom, and for how long."""

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import ConfigError, DrydockError, Refused, quoted
from .app import App
from .completing import blueprint_names, types

if TYPE_CHECKING:
    from ..allocator import Lab
    from ..model import Demand, Lease
    from ..request import Progress

RACE_LAB = "DRYDOCK_RACE_LAB"

_WHOLE = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


class Asking(NamedTuple):
    """A request, checked as far as that goes without a store."""

    demand: "Demand"
    owner: str
    number: int
    wait_seconds: float | None
    priority: int
    ttl: float | None
    until: float | None
    lab: "Lab | None"

    def lease(self, app: App, *, keep: bool, progress: "Progress") -> "list[Lease]":
        """Hold it; see `Engine.lease`."""
        return app.engine.lease(
            self.demand,
            owner=self.owner,
            count=self.number,
            wait_seconds=self.wait_seconds,
            keep=keep,
            priority=self.priority,
            ttl=self.ttl,
            until=self.until,
            progress=progress,
            lab=self.lab,
        )


_OPTIONS = (
    click.option("--type", "-t", "type_", metavar="TYPE", shell_complete=types, help="What to lease, such as host."),
    click.option("--blueprint", "-b", multiple=True, metavar="NAME", shell_complete=blueprint_names,
                 help="Only from this blueprint. May be given several times."),
    click.option("--attributes", "-a", metavar="JSON|@FILE|-", help='It must have these, as in \'{"arch": "arm64"}\'.'),
    click.option("--count", "-n", default="1", metavar="N", help="So many at once, or none."),
    click.option("--owner", metavar="NAME", help="Who asks. [default: $DRYDOCK_OWNER, else user@host]"),
    click.option("--priority", "-p", default="0", metavar="N", help="Larger is served first; 0 if not given."),
    click.option("--ttl", metavar="DURATION", help="It ends so long after the last renewal."),
    click.option("--until", metavar="WHEN", help="It ends then: 2030-01-31T18:00Z, or +90m from now."),
    click.option("--wait", metavar="DURATION", help="Give up after this long. [default: wait as long as it takes]"),
    click.option("--no-wait", is_flag=True, help="Give up at once when nothing is free."),
    click.option("--race-delay", metavar="SECONDS", help="Race laboratory: stop between choosing and allocating."),
    click.option("--no-slot-locks", is_flag=True, help="Race laboratory: take no slot locks."),
)  # fmt: skip


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a request. It is called with the app and, as `asking`, with what they say."""

    @wraps(command)
    def asked(
        app: App,
        *,
        type_: str | None,
        blueprint: tuple[str, ...],
        attributes: str | None,
        count: str,
        owner: str | None,
        priority: str,
        ttl: str | None,
        until: str | None,
        wait: str | None,
        no_wait: bool,
        race_delay: str | None,
        no_slot_locks: bool,
        **others: Any,
    ) -> Any:
        from ..attributes import check_text, parse, parse_duration
        from ..engine import checked_demand
        from ..model import Demand
        from ..owner import default_owner

        wait_seconds = 0.0 if no_wait else None if wait is None else parse_duration(wait, "--wait")
        if no_wait and wait is not None:
            raise click.UsageError("--wait and --no-wait exclude one another")
        number = _count(count)
        wanted = {} if attributes is None else parse(_given(attributes), "--attributes")
        asker = default_owner() if owner is None else check_text(owner, "owner")
        terms = parse_priority(priority), parse_ttl(ttl), parse_until(until)
        lab = _lab(race_delay, no_slot_locks)
        if type_ is None:
            raise click.UsageError(f"missing --type; known types: {_known_types(app)}")
        demand = checked_demand(Demand(type_, blueprint, wanted))
        return command(app, asking=Asking(demand, asker, number, wait_seconds, *terms, lab), **others)

    for option in reversed(_OPTIONS):
        asked = option(asked)
    return asked


def parse_ttl(text: str | None) -> float | None:
    """The seconds of `--ttl`. Raises `ConfigError`."""
    from ..attributes import parse_duration
    from ..engine import LEAST_TTL_SECONDS

    return None if text is None else parse_duration(text, "--ttl", least=LEAST_TTL_SECONDS)


def parse_until(text: str | None) -> float | None:
    """The moment meant by `--until`, as seconds since the epoch. Raises `ConfigError` also for one that has passed."""
    import time

    from ..attributes import duration, parse_duration
    from ..engine import LONGEST_SECONDS

    if text is None:
        return None
    now = time.time()
    if text.startswith("+"):
        moment = now + parse_duration(text[1:], "--until")
    elif _RFC_3339.fullmatch(text):
        from datetime import datetime

        try:
            moment = datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            raise ConfigError(f"--until: there is no such moment: {quoted(text)}") from None
    else:
        raise ConfigError(
            f"--until: not a moment: {quoted(text)}; write one with its zone, as 2030-01-31T18:00Z, or +90m from now"
        )
    if not now < moment <= now + LONGEST_SECONDS:
        longest = duration(LONGEST_SECONDS)
        raise ConfigError(f"--until must be in the future, at most {longest} away, not {quoted(text)}")
    return moment


def parse_priority(text: str) -> int:
    """The whole number of `--priority`. Raises `ConfigError`."""
    from ..engine import MOST_PRIORITY

    if not _WHOLE.fullmatch(text) or not -MOST_PRIORITY <= int(text) <= MOST_PRIORITY:
        raise ConfigError(f"--priority must be {-MOST_PRIORITY} to {MOST_PRIORITY}, not {quoted(text)}")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 10_000:
        raise ConfigError(f"--count must be 1 to 10000, not {quoted(text)}")
    return int(text)


def _given(attributes: str) -> str:
    from pathlib import Path

    from ..attributes import LARGEST_BYTES
    from ..config import decoded, read_text

    if attributes == "-":
        if sys.stdin is None or sys.stdin.closed:
            return ""
        return decoded(sys.stdin.buffer.read(LARGEST_BYTES + 1), LARGEST_BYTES, "--attributes")
    if attributes.startswith("@"):
        return read_text(Path(attributes[1:]), LARGEST_BYTES)
    return attributes


def _lab(race_delay: str | None, no_slot_locks: bool) -> "Lab | None":
    if race_delay is None and not no_slot_locks:
        return None
    if os.environ.get(RACE_LAB) != "1":
        raise Refused(
            f"--race-delay and --no-slot-locks hand out one thing twice; to do that on purpose, set {RACE_LAB}=1"
        )
    from ..allocator import Lab
    from ..attributes import parse_duration

    return Lab(0.0 if race_delay is None else parse_duration(race_delay, "--race-delay"), slot_locks=not no_slot_locks)


def _known_types(app: App) -> str:
    from ..errors import listed
    from ..store import open_store

    try:
        store = open_store(app.address, read_only=True)  # a command that was mistyped must not make a store
    except DrydockError:
        return "none"
    try:
        return listed(sorted({b.type for b in store.offers.blueprints()}))
    finally:
        store.close()
