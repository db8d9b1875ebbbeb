"""Write one PNG file from a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from partzoo.errors import UsageError
from partzoo.locks import locked
from partzoo.places import check_apart, check_place

if TYPE_CHECKING:
    from PIL import Image


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
