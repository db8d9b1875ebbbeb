"""The command ``partzoo completion``."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from partzoo.cli.command import Command

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    cls=Command,
    short_help="Print a script for Tab completion.",
    epilog="""
    \b
    To turn it on:
      bash:  partzoo completion bash >> ~/.bashrc
      zsh:   partzoo completion zsh >> ~/.zshrc
      fish:  partzoo completion fish > ~/.config/fish/completions/partzoo.fish
    """,
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and model names with the Tab key."""
    click.echo(SHELLS[shell](context.find_root().command, {}, "partzoo", "_PARTZOO_COMPLETE").source())
