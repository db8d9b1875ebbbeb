"""Commands that draw what a part model makes of images, and write one PNG file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from partzoo.cli.options import complete_weights
from partzoo.errors import UsageError
from partzoo.locks import locked
from partzoo.places import check_apart, check_place

if TYPE_CHECKING:
    from PIL import Image


png_option = click.option("-o", "--out", type=click.Path(dir_okay=False), required=True, help="PNG file to write.")
image_class_option = click.option(
    "--class", "category", type=int, help="Class of the image, for a part model with several classes."
)


def part_model_option(default: str, which: str) -> Callable:
    """Return the option ``--model`` for the name of a part model, of which the help says ``which``."""
    return click.option(
        "--model",
        metavar="NAME",
        default=default,
        show_default=True,
        shell_complete=complete_weights,
        help=f"{which}. See 'partzoo list'.",
    )


@contextmanager
def png_file(out: str, read: Sequence[str]) -> Iterator[Callable[[Image.Image], None]]:
    """Return a context manager that provides a function which writes an image to a PNG file.

    Args:
        out: the PNG file.
        read: images and models that the command reads, which the file must not replace.

    Raises:
        UsageError: the file cannot be written, would replace what is read, or is being written by another process.
    """
    from partzoo.files import write_aside

    if Path(out).suffix.lower() != ".png":
        raise UsageError(f"-o {out} must end in .png.")
    check_place(Path(out))
    check_apart([out], read)

    def write(image: Image.Image) -> None:
        with write_aside(out) as file:
            image.save(file, "png")
        click.echo(f"{image.height} x {image.width} pixels. Written: {out}")

    with locked(out):
        yield write
