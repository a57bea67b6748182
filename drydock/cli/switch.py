"""drydock disable, enable"""

import click

from .app import App, pass_app, shared_options
from .completing import targets


@click.command()
@click.argument("target", metavar="blueprint:NAME|binding:NAME", shell_complete=targets)
@shared_options
@pass_app
def disable(app: App, target: str) -> None:
    """Give out no new leases of a blueprint or binding. Those that are there stay.

    \b
    drydock disable binding:build001
    drydock disable blueprint:lab
    """
    _switch(app, target, enabled=False)


@click.command()
@click.argument("target", metavar="blueprint:NAME|binding:NAME", shell_complete=targets)
@shared_options
@pass_app
def enable(app: App, target: str) -> None:
    """Give out leases of a blueprint or binding again.

    \b
    drydock enable binding:build001
    """
    _switch(app, target, enabled=True)


def _switch(app: App, target: str, *, enabled: bool) -> None:
    from . import show

    app.engine.switch(target, enabled=enabled)
    if app.json:
        show.json_lines([{"target": target, "enabled": enabled}])
    else:
        click.echo(f"{show.cell(target)}: {'enabled' if enabled else 'disabled'}")
