"""drydock apply"""

import click

from .app import App, pass_app, shared_options


@click.command()
@click.argument("file", type=click.Path(readable=False))
@click.option("--plan", is_flag=True, help="Only show what would change.")
@click.option("--prune", is_flag=True, help="Disable what the file no longer has.")
@shared_options
@pass_app
def apply(app: App, file: str, plan: bool, prune: bool) -> None:
    """Offer what the pool file FILE says.

    Applying a file twice changes nothing. What live leases stand on is drained, not dropped.

    \b
    drydock apply --plan pool.toml      see first what would change
    drydock apply pool.toml
    """
    from pathlib import Path

    from ..config import read_pool_file
    from . import show

    pool = read_pool_file(Path(file))  # first: a bad file must not make a store
    changes = app.engine.apply(pool, prune=prune, plan=plan)
    if app.json:
        show.json_lines(change._asdict() for change in changes)
        return
    verb = "would be " if plan else ""
    for change in changes:
        where = f" in {change.blueprint}" if change.blueprint else ""
        live = f" ({change.leases} live leases go on)" if change.leases else ""
        click.echo(f"{change.kind} {show.cell(change.name)}{where}: {verb}{change.change}{live}")
    if not changes:
        click.echo("nothing to change", err=True)
