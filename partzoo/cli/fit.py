"""The command ``partzoo fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from partzoo.cli.command import Command
from partzoo.cli.finding import show_progress
from partzoo.cli.options import device_option, images_argument, limit_options, model_option
from partzoo.errors import counted
from partzoo.places import check_apart, check_place


@click.command(
    cls=Command,
    short_help="Teach parts from a few labelled images.",
    epilog="""
    \b
    Examples:
      partzoo fit images/ --labels labels/ -o mine.parts.safetensors
      partzoo fit images/ --labels labels.json --sided -o mine.parts.safetensors    one COCO file
      partzoo fit a.jpg b.jpg --labels labels/ --names beak,wing,leg -o birds.parts.safetensors
      partzoo discover new/ --vocabulary mine.parts.safetensors -o out/
    \b
    LABELS is a folder of files named as the images are: index PNGs, or files of LabelMe, COCO, YOLO or GeoJSON.
    Images without a file there are left out. Of index PNGs, 0 is background, 1, 2, ... are parts, and 255 is unknown,
    so that a few strokes for each part are enough.
    """,
)
@images_argument
@click.option("--labels", required=True, type=click.Path(), help="Folder of label files, or one COCO file.")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), help="File to save the parts to.")
@click.option("--names", metavar="NAME,...", help="Names of the parts 1, 2, ...  [default: those in the label files]")
@click.option("--sided", is_flag=True, help="Keep left parts from right ones: parts named left and right, or l and r.")
@model_option
@click.option("--size", type=int, help="Longer side of the image that the encoder receives, in pixels.")
@click.option("--refine/--no-refine", default=True, show_default=True, help="Align the parts with the image's edges.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of the cells to learn from.")
@device_option
@limit_options
def fit(images: tuple[str, ...], labels: str, out: str, names: str | None, **options: Any) -> None:
    """Teach parts: learn from labelled images what each part looks like, for --vocabulary of other commands."""
    from tqdm import tqdm

    from partzoo.discovery.pipeline import fit_parts

    check_place(Path(out))
    check_apart([out], [*images, labels])
    named = images[0] if len(images) == 1 else list(images)
    listed = [name.strip() for name in names.split(",")] if names else None
    with tqdm(desc="learning the parts", unit="image", disable=None) as bar:
        words = fit_parts(named, labels=labels, names=listed, progress=partial(show_progress, bar), **options)
    words.save(out)
    parts = ", ".join(words.names)
    click.echo(f"{counted(words.k, 'part')}: {parts}")
    click.echo(f"Written: {out}")
