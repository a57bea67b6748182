"""drydock lease"""

import sys
from typing import TYPE_CHECKING

import click

from .app import App, end_on_signals, pass_app, shared_options
from .asking import Asking, request_options

if TYPE_CHECKING:
    from ..model import Lease


@click.command()
@shared_options
@pass_app
@request_options
def lease(app: App, asking: Asking) -> None:
    """Wait for a thing and hold it until it is released, or its time is over.

    While it waits it tells why. ^C before the grant leaves no lease behind.

    \b
    drydock lease --type host
    drydock lease --type host --attributes '{"arch": "arm64"}' --wait 10m
    drydock lease --type host --count 3 --no-wait --json
    drydock lease --type host --until +2h --priority 10
    """
    from . import objects, show

    end_on_signals()
    leases: list[Lease] = []
    try:
        with show.Progress() as progress:
            leases = asking.lease(app, keep=True, progress=progress)
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
