"""The command ``partzoo export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from partzoo.cli.command import Command, megabytes
from partzoo.cli.options import background_option, complete_weights

if TYPE_CHECKING:
    from partzoo.export.export import Format, Task


@click.command(
    cls=Command,
    short_help="Export a model or a part pipeline to ONNX.",
    epilog="""
    \b
    Examples:
      partzoo export part-vitn8 -o encoder.onnx                          features of images
      partzoo export partformer-resnet18.faces-k8 -o faces.onnx          an image to its parts
      partzoo export --vocabulary my.parts.safetensors -o parts.onnx     the same, with fitted parts
      partzoo export -o default.onnx                                     foreground and descriptors
      partzoo export part-vitn8 --format openvino -o encoder.xml
    \b
    NAME: as in 'partzoo list', or a weights file or folder; by default, the encoder of
    'partzoo discover', or that of the vocabulary. docs/export.md describes the files.
    """,
)
@click.argument("name", required=False, shell_complete=complete_weights)
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), help="File to write.")
@click.option(
    "--format", type=click.Choice(["onnx", "torch-export", "openvino"]), default="onnx", show_default=True,
    help="Format of the file: its name ends in .onnx, .pt2 or .xml.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(["features", "descriptors", "labels", "parts", "foreground"]),
    help="What the file computes.  [default: parts of a part model or a vocabulary, foreground of a foreground model, "
    "otherwise features]",
)  # fmt: skip
@click.option("--vocabulary", type=click.Path(dir_okay=False), metavar="FILE", help="Fitted parts to export.")
@background_option
@click.option("--size", type=click.IntRange(1), help="Longer side of the image at its working size, in pixels.")
@click.option(
    "--resize/--no-resize", default=True, show_default=True,
    help="Whether the program of the task descriptors resizes images itself.",
)  # fmt: skip
def export(
    name: str | None,
    out: str,
    format: str,
    task: str | None,
    vocabulary: str | None,
    background: str,
    size: int | None,
    resize: bool,
) -> None:
    """Export the model NAME, or the whole way from an image to its parts, to a file that runs without partzoo.

    The file takes images of any size, in batches of any number; signals have any length.
    """
    from partzoo.export.export import export_model, files_of

    path = export_model(
        name,
        out,
        format=cast("Format", format),
        task=cast("Task | None", task),
        vocabulary=vocabulary,
        background=background,
        size=size,
        resize=resize,
    )
    files = files_of(path)
    written = " and ".join(map(str, files))
    click.echo(f"{megabytes(sum(each.stat().st_size for each in files))}. Written: {written}")
