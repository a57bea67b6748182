"""drydock lease"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, DrydockError, Refused, quoted
from .app import App, end_on_signals, pass_app, shared_options
from .completing import blueprint_names, types

if TYPE_CHECKING:
    from ..allocator import Lab
    from ..model import Lease

RACE_LAB = "DRYDOCK_RACE_LAB"


@click.command()
@click.option("--type", "-t", "type_", metavar="TYPE", shell_complete=types, help="What to lease, such as host.")
@click.option("--blueprint", "-b", multiple=True, metavar="NAME", shell_complete=blueprint_names,
              help="Only from this blueprint. May be given several times.")  # fmt: skip
@click.option("--attributes", "-a", metavar="JSON|@FILE|-", help='It must have these, as in \'{"arch": "arm64"}\'.')
@click.option("--count", "-n", default="1", metavar="N", help="So many at once, or none.")
@click.option("--owner", metavar="NAME", help="Who asks. [default: $DRYDOCK_OWNER, else user@host]")
@click.option("--wait", metavar="DURATION", help="Give up after this long. [default: wait as long as it takes]")
@click.option("--no-wait", is_flag=True, help="Give up at once when nothing is free.")
@click.option("--race-delay", metavar="SECONDS", help="Race laboratory: stop between choosing and allocating.")
@click.option("--no-slot-locks", is_flag=True, help="Race laboratory: take no slot locks.")
@shared_options
@pass_app
def lease(
    app: App,
    type_: str | None,
    blueprint: Sequence[str],
    attributes: str | None,
    count: str,
    owner: str | None,
    wait: str | None,
    no_wait: bool,
    race_delay: str | None,
    no_slot_locks: bool,
) -> None:
    """Wait for a thing and hold it until it is released.

    While it waits it tells why. ^C before the grant leaves no lease behind.

    \b
    drydock lease --type host
    drydock lease --type host --attributes '{"arch": "arm64"}' --wait 10m
    drydock lease --type host --count 3 --no-wait --json
    """
    from ..attributes import check_text, parse, parse_duration
    from ..engine import checked_demand
    from ..model import Demand
    from ..owner import default_owner
    from . import objects, show

    wait_seconds = 0.0 if no_wait else None if wait is None else parse_duration(wait, "--wait")
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait exclude one another")
    number = _count(count)
    wanted = {} if attributes is None else parse(_given(attributes), "--attributes")
    asker = default_owner() if owner is None else check_text(owner, "owner")
    lab = _lab(race_delay, no_slot_locks)
    if type_ is None:
        raise click.UsageError(f"missing --type; known types: {_known_types(app)}")
    demand = checked_demand(Demand(type_, tuple(blueprint), wanted))
    end_on_signals()
    leases: list[Lease] = []
    try:
        with show.Progress() as progress:
            leases = app.engine.lease(
                demand,
                owner=asker,
                count=number,
                wait_seconds=wait_seconds,
                keep=True,
                progress=progress,
                lab=lab,
            )
        if app.json:
            show.json_lines(map(objects.lease, leases))
        else:
            for held in leases:
                _tell(held)
        sys.stdout.flush()
    except BaseException:
        # Nobody was told of the grant, so nobody would ever give it back.
        for held in leases:
            app.engine.release(held.id, "its requester could not be told")
        raise


def _tell(held: "Lease") -> None:
    from . import show

    assert held.resource is not None
    resource = held.resource
    about = f" ({show.cell(resource.attributes)})" if resource.attributes else ""
    name = show.cell(resource.name)
    click.echo(f"lease {held.id}: {resource.type} {name} from {resource.blueprint}{about}, fence {held.fence}")
    click.echo(f"give it back with: drydock release {held.id}", err=True)


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
