"""drydock doctor"""

import click

from ..errors import escaped
from .app import App, pass_app, shared_options

BROKEN = 8


@click.command()
@shared_options
@pass_app
def doctor(app: App) -> int:
    """Check the store: is anything allocated twice, locked by the dead, miscounted?

    Opens the store for reading only. Exit code 8 if a promise is broken.

    \b
    drydock doctor
    """
    from .. import doctor as engine
    from ..store import open_store
    from . import show

    store = open_store(app.address, read_only=True)
    try:
        findings = engine.examine(store)
    finally:
        store.close()
    broken = sum(finding.broken for finding in findings)
    if app.json:
        show.json_lines(finding._asdict() for finding in findings)
    else:
        for finding in findings:
            click.echo(f"{'BROKEN' if finding.broken else 'note  '}  {finding.rule}: {escaped(finding.sentence)}")
        click.echo(f"{broken} broken promises" if broken else "all promises hold")
    return BROKEN if broken else 0
