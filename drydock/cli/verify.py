"""drydock verify"""

import click

from .app import App, Id, fence_option, pass_app, shared_options
from .completing import lease_ids


@click.command()
@click.argument("id", type=Id("lease"), metavar="LEASE", shell_complete=lease_ids)
@fence_option
@shared_options
@pass_app
def verify(app: App, id: int, fence: int | None) -> None:
    """Check that a lease is held. Says nothing if it is.

    Exit code 4 if it is not held any more, also if its time is over and nobody has ended it yet, or if it has another
    fence; 5 if there is no such lease.

    \b
    drydock verify 12
    drydock verify "$DRYDOCK_LEASE" --fence "$DRYDOCK_FENCE" && flash-the-board
    """
    from . import objects, show

    lease = app.bare_engine.verify(id, fence=fence)
    if app.json:
        show.json_lines([objects.held_until(lease, app.bare_engine.ends_at(id))])
