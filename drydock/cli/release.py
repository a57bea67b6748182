"""drydock release, release-resource, reclaim"""

from collections.abc import Sequence

import click

from .app import App, Id, end_on_signals, fence_option, for_each, one_with_a_fence, pass_app, shared_options
from .completing import lease_ids, resource_ids


@click.command()
@click.argument("ids", nargs=-1, required=True, type=Id("lease"), metavar="LEASE...", shell_complete=lease_ids)
@fence_option
@click.option("--broken", metavar="WHY", help="Nobody else gets its resource: that is torn down, after its cooldown.")
@shared_options
@pass_app
def release(app: App, ids: Sequence[int], fence: int | None, broken: str | None) -> None:
    """Give back leases. A request that still waits is taken back.

    Releasing twice is no error; with --fence it is (4), since the lease is not held any more. A resource that is given
    back as --broken takes no new lease, and is torn down when its last has ended and the cooldown of its blueprint is
    over. What a pool hands out can be had again from then on; "drydock disable binding:NAME" keeps it.

    \b
    drydock release 12
    drydock release 12 --fence 3
    drydock release 12 --broken "no link"
    """
    from . import objects, show

    one_with_a_fence(ids, fence)
    end_on_signals()

    def give_back(id: int) -> None:
        released = app.engine.release(id, fence=fence, broken=broken)
        lease = app.store.leases.get(id)
        assert lease is not None
        if app.json:
            show.json_lines([objects.lease(lease)])
        elif released:
            click.echo(f"lease {id}: released{f' {show.cell(lease.resource.name)}' if lease.resource else ''}")
        if not released:
            click.echo(f"drydock: lease {id} was released already, at {objects.moment(lease.ended_at)}", err=True)

    for_each(ids, give_back)


@click.command()
@click.argument("ids", nargs=-1, required=True, type=Id("resource"), metavar="RESOURCE...", shell_complete=resource_ids)
@shared_options
@pass_app
def release_resource(app: App, ids: Sequence[int]) -> None:
    """Take resources away: their leases end first, then they are torn down.

    \b
    drydock release-resource 3
    """
    from . import objects, show

    end_on_signals()

    def take_away(id: int) -> None:
        released = app.engine.release_resource(id)
        resource = app.store.resources.get(id)
        assert resource is not None
        if app.json:
            show.json_lines([objects.resource(resource)])
        else:
            already = "" if released else ", was released already"
            click.echo(f"resource {id} ({show.cell(resource.name)}): {resource.status}{already}")

    for_each(ids, take_away)


@click.command()
@shared_options
@pass_app
def reclaim(app: App) -> None:
    """Take away every resource that is idle past its grace.

    \b
    drydock reclaim
    """
    from . import show

    end_on_signals()
    results = app.engine.reclaim()
    if app.json:
        show.json_lines(result._asdict() for result in results)
        return
    for result in results:
        outcome = "reclaimed" if result.reclaimed else f"could not be reclaimed: {show.cell(result.reason)}"
        click.echo(f"resource {result.id} ({show.cell(result.name)}): {outcome}")
    if not results:
        click.echo("no resources", err=True)
