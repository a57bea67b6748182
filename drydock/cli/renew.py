"""drydock renew"""

from collections.abc import Sequence

import click

from .app import App, Id, fence_option, for_each, one_with_a_fence, pass_app, shared_options
from .asking import parse_ttl, parse_until
from .completing import lease_ids


@click.command()
@click.argument("ids", nargs=-1, required=True, type=Id("lease"), metavar="LEASE...", shell_complete=lease_ids)
@click.option("--ttl", metavar="DURATION", help="From now on it ends so long after the last renewal.")
@click.option("--until", metavar="WHEN", help="From now on it ends then: 2030-01-31T18:00Z, or +90m from now.")
@fence_option
@shared_options
@pass_app
def renew(app: App, ids: Sequence[int], ttl: str | None, until: str | None, fence: int | None) -> None:
    """Let the ttl of leases begin anew, and tell until when they last.

    Exit code 4 if a lease is not held any more, also if its time is over and nobody has ended it yet: stop using the
    thing.

    \b
    drydock renew 12
    drydock renew 12 --until +2h
    drydock renew "$DRYDOCK_LEASE" --fence "$DRYDOCK_FENCE" --ttl 5m
    """
    from . import objects, show

    one_with_a_fence(ids, fence)
    seconds, moment = parse_ttl(ttl), parse_until(until)

    def go_on(id: int) -> None:
        lease = app.bare_engine.renew(id, fence=fence, ttl=seconds, until=moment)
        item = objects.held_until(lease, app.bare_engine.ends_at(id))
        if app.json:
            show.json_lines([item])
        else:
            end = item["ends_at"]
            click.echo(f"lease {id}: {f'until {end}' if end else 'without end'}")

    for_each(ids, go_on)
