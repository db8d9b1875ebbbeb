"""The command ``partzoo fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partzoo.cli.collection import learned, only
from partzoo.cli.command import Command, print_json, show_progress
from partzoo.cli.finding import fitting_options
from partzoo.cli.options import images_argument, json_option, one_or_many
from partzoo.errors import UsageError, counted
from partzoo.locks import locked
from partzoo.places import check_apart, check_place

if TYPE_CHECKING:
    from partzoo.discovery.vocabulary import PartVocabulary


@click.command(
    cls=Command,
    short_help="Learn a vocabulary of parts, or teach parts of your own.",
    epilog="""
    \b
    Examples:
      partzoo fit images/ -k 6 -o six.parts.safetensors
      partzoo fit "train-*.tar" -k 6 -o six.parts.safetensors
      partzoo discover "train-*.tar" --vocabulary six.parts.safetensors -o out/ --format parquet
    \b
    At most 500 images are used, drawn by their keys: their order does not matter.
    \b
    To teach parts of your own:
      partzoo fit images/ --labels labels/ -o mine.parts.safetensors
      partzoo fit images/ --labels labels.json --sided -o mine.parts.safetensors    one COCO file
      partzoo fit a.jpg b.jpg --labels labels/ --names beak,wing,leg -o birds.parts.safetensors
      partzoo discover new/ --vocabulary mine.parts.safetensors -o out/
    \b
    --labels names a folder of files named as the images are: index PNGs, or files of LabelMe, COCO, YOLO or GeoJSON.
    Images without a file there are left out. Of index PNGs, 0 is background, 1, 2, ... are parts, and 255 is unknown,
    so that a few strokes for each part are enough. Every image must be readable.
    """,
)
@images_argument
@click.option("-o", "--out", type=click.Path(dir_okay=False), required=True, help="File to write: .safetensors.")
@click.option("--labels", type=click.Path(), help="Folder of label files, or one COCO file: teach the parts in them.")
@click.option("--names", metavar="NAME,...", help="Names of the labels 1, 2, ...  [default: those in the label files]")
@click.option("--sided", is_flag=True, help="Keep left parts from right ones: labels named left and right, or l and r.")
@fitting_options
@json_option
def fit(
    images: tuple[str, ...],
    out: str,
    labels: str | None,
    names: str | None,
    sided: bool,
    k: int | str | None,
    strict: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn a vocabulary of parts from a collection: a folder, a pattern, a list, COCO, tars or Parquet files.

    With --labels, learn from labelled images what each of your own parts looks like.
    """
    check_place(Path(out))
    check_apart([out], [*images, labels, options["model"], options["background"]])
    for option, given in (("--names", names), ("--sided", sided)):
        if given and labels is None:
            raise UsageError(f"{option} is for --labels: leave it out, or pass --labels too.")
    with locked(out):
        if labels is None:
            source = only(images, "A vocabulary is learned from the images of")
            words = learned(source, k, options, strict=strict, quiet=as_json)
        else:
            words = _taught(images, labels, names, quiet=as_json, sided=sided, k=k, **options)
        words.save(out)
    if as_json:
        print_json({"output": out, "k": words.k, "names": words.names})
    else:
        taught = f"from {counted(len(words.examples), 'labelled image')}"
        named = f" {taught}: {', '.join(words.names)}" if labels else ""
        click.echo(f"{counted(words.k, 'part')}{named}. Written: {out}")


def _taught(images: tuple[str, ...], labels: str, names: str | None, *, quiet: bool, **options: Any) -> PartVocabulary:
    """Return the parts that labelled images show."""
    from tqdm import tqdm

    from partzoo.discovery.pipeline import fit_parts

    given = one_or_many(images)
    listed = [name.strip() for name in names.split(",")] if names else None
    with tqdm(desc="learning the parts", unit="image", disable=True if quiet else None) as bar:
        return fit_parts(given, labels=labels, names=listed, progress=partial(show_progress, bar), **options)
