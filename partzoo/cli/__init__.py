"""The ``partzoo`` command. Each module defines a few commands, which parse arguments, call the API and print."""

from __future__ import annotations

import click

from partzoo.cli.command import Group
from partzoo.cli.completion import completion
from partzoo.cli.convert import convert
from partzoo.cli.demo import demo
from partzoo.cli.discover import discover
from partzoo.cli.evaluation import evaluate
from partzoo.cli.export import export
from partzoo.cli.features import features
from partzoo.cli.fit import fit
from partzoo.cli.models import download, info, list_, publish, verify
from partzoo.cli.relate import relate
from partzoo.cli.report import report
from partzoo.cli.stages import stages
from partzoo.cli.suggest import suggest
from partzoo.cli.swap import swap
from partzoo.cli.system import bench, doctor
from partzoo.cli.training import train
from partzoo.cli.vocabulary import vocabulary


@click.group(
    cls=Group,
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


for command in (
    list_,
    info,
    download,
    verify,
    publish,
    convert,
    export,
    discover,
    fit,
    suggest,
    vocabulary,
    report,
    features,
    relate,
    swap,
    train,
    stages,
    evaluate,
    doctor,
    bench,
    demo,
    completion,
):
    main.add_command(command)
