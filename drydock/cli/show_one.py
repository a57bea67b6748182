"""drydock show"""

from typing import Any

import click

from ..errors import ConfigError, NotFound, quoted
from .app import App, parse_id, pass_app, shared_options

EVENTS_SHOWN = 20


@click.command()
@click.argument("id", metavar="ID")
@shared_options
@pass_app
def show(app: App, id: str) -> None:
    """Show one lease, resource or blueprint, and what happened to it.

    \b
    drydock show 12
    drydock show resource:3
    drydock show blueprint:lab
    """
    from . import history
    from . import show as screen

    kind, colon, name = id.partition(":")
    if not colon:
        kind, name = "lease", id
    item, events = _find(app, kind, name, id)
    if app.json:
        screen.json_lines([item])
        return
    width = max(map(len, item))
    for key, value in item.items():
        click.echo(f"{key:<{width}}  {screen.cell(list(value) if isinstance(value, tuple) else value)}")
    for event in events:
        click.echo(f"  {history.line(event)}")


def _find(app: App, kind: str, name: str, id: str) -> tuple[dict[str, Any], list[Any]]:
    from . import objects

    if kind not in ("lease", "resource", "blueprint"):
        raise ConfigError(f"cannot show {quoted(id)}; give lease:N, resource:N or blueprint:NAME")
    number = 0 if kind == "blueprint" else parse_id(name, kind)
    store = app.fresh_store
    if kind == "lease":
        lease = store.leases.get(number)
        if lease is None:
            raise NotFound("lease", number)
        end = store.leases.ends([lease.id]).get(lease.id)
        carries = {} if lease.carries is None else {"carries": f"resource:{lease.carries}"}
        return {**objects.held_until(lease, end), **carries}, store.events.of_lease(lease.id, EVENTS_SHOWN)
    if kind == "resource":
        resource = store.resources.get(number)
        if resource is None:
            raise NotFound("resource", number)
        under = store.leases.under(resource.id)
        stands_on = {} if under is None else {"stands_on": f"lease:{under}"}
        return {**objects.resource(resource), **stands_on}, store.events.of_resource(resource.id, EVENTS_SHOWN)
    blueprint = store.offers.blueprint(name)
    if blueprint is None:
        raise NotFound("blueprint", name)
    return {**objects.blueprint(blueprint), "settings": store.offers.settings(blueprint.id)}, []
