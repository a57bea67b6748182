"""drydock completion"""

import os

import click

from ..errors import ConfigError, quoted
from .app import App, pass_app, shared_options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@shared_options
@pass_app
def completion(app: App, shell: str | None) -> None:
    """Print the script that lets a shell complete drydock's words.

    Without a name it is for the shell in $SHELL.

    \b
    eval "$(drydock completion bash)"   in ~/.bashrc
    eval "$(drydock completion zsh)"    in ~/.zshrc
    drydock completion fish > ~/.config/fish/completions/drydock.fish
    """
    from click.shell_completion import get_completion_class

    from . import show

    name = os.path.basename(os.environ.get("SHELL", "")) if shell is None else shell  # noqa: PTH119 - as in the store
    known = get_completion_class(name) if name in SHELLS else None
    root = click.get_current_context().find_root().command
    if known is None:
        raise ConfigError(f"no completion for the shell {quoted(name)}; there is: {', '.join(SHELLS)}")
    script = known(root, {}, "drydock", "_DRYDOCK_COMPLETE").source()
    if app.json:
        show.json_lines([{"shell": name, "script": script}])
    else:
        click.echo(script)
