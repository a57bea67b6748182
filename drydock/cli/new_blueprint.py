"""drydock new-blueprint"""

import click

from .app import App, pass_app, shared_options


@click.command("new-blueprint")
@click.argument("name")
@click.option(
    "--pool",
    "template",
    flag_value="pool",
    default="pool",
    help="It hands out what is there already; so it is by itself.",
)
@click.option("--builder", "template", flag_value="builder", help="It builds what is asked for.")
@click.option("--folder", metavar="DIR", help="Where to write it, if not in ./drydock-NAME.")
@shared_options
@pass_app
def new_blueprint(app: App, name: str, template: str, folder: str | None) -> None:
    """Write a package with a kind of your own, which works already.

    It has a class, tests, an entry point and a README.

    \b
    drydock new-blueprint usb-boards
    drydock new-blueprint disk-image --builder --folder ~/src/disk-image
    """
    from pathlib import Path

    from .. import scaffold
    from . import show

    scaffold.check_kind_name(name)
    target = Path(folder if folder is not None else f"drydock-{name}").expanduser()
    written = scaffold.write(template, name, target)
    if app.json:
        show.json_lines([{"kind": name, "folder": str(target), "files": written}])
        return
    click.echo(f"{target}: {', '.join(written)}")
    click.echo(f"next: cd {target}; pip install -e '.[test]'; pytest")
