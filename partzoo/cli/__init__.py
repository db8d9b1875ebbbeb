"""The ``partzoo`` command. Each module defines a few commands, which parse arguments, call the API and print.

A command's module is imported when the command is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import cast

import click

from partzoo.cli.command import Group

MODULES = {
    "list": "models",
    "info": "models",
    "download": "models",
    "verify": "models",
    "publish": "models",
    "convert": "convert",
    "export": "export",
    "discover": "discover",
    "fit": "fit",
    "suggest": "suggest",
    "vocabulary": "vocabulary",
    "report": "report",
    "features": "features",
    "relate": "relate",
    "swap": "swap",
    "reconstruct": "reconstruct",
    "attention": "attention",
    "train": "training",
    "stages": "stages",
    "eval": "evaluation",
    "doctor": "system",
    "bench": "system",
    "demo": "demo",
    "completion": "completion",
}


class Commands(Mapping[str, click.Command]):
    """The commands by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        found = vars(import_module(f"partzoo.cli.{MODULES[name]}")).values()
        return next(each for each in found if isinstance(each, click.Command) and each.name == name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


@click.group(
    cls=Group,
    commands=cast("MutableMapping[str, click.Command]", Commands()),
    epilog="""
    \b
    Start here:
      partzoo discover photo.jpg -k 8 -o parts.png    colour the parts of a photograph
      partzoo list                                    list the models
      partzoo doctor                                  check the installation
    """,
)
@click.version_option(package_name="partzoo", message="partzoo %(version)s")
def main() -> None:
    """Find parts in images, and use models of how parts make up wholes.

    Every command explains itself: partzoo COMMAND --help
    """
