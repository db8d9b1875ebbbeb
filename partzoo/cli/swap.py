"""The command ``partzoo swap``."""

from __future__ import annotations

import click

from partzoo.cli.command import Command
from partzoo.cli.options import Numbers, device_option, limit_options
from partzoo.cli.png import part_model_option, png_file, png_option


@click.command(
    cls=Command,
    short_help="Draw an image with the parts of another.",
    epilog="""
    \b
    Examples:
      partzoo swap a.jpg b.jpg -o mixed.png
      partzoo swap a.jpg b.jpg --paste --parts 4,5 --model faces -o mixed.png
    """,
)
@click.argument("first", type=click.Path(), metavar="A")
@click.argument("second", type=click.Path(), metavar="B")
@png_option
@click.option("--parts", type=Numbers(), help="Parts to take from image B, for example 2,3.  [default: all]")
@click.option("--paste", is_flag=True, help="Paste the parts of image B without seams, instead of drawing them.")
@click.option("--class", "category", type=int, help="Class of both images, for a part model with several classes.")
@part_model_option("partformer-resnet18", "PartFormer model name, weights file or folder; with --paste, any part model")
@device_option
@limit_options
def swap(
    first: str,
    second: str,
    out: str,
    parts: list[int] | None,
    paste: bool,
    category: int | None,
    model: str,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
) -> None:
    """Draw image A as PartFormer reconstructs it, with parts that look like those of image B; or paste these parts."""
    from PIL import Image

    from partzoo.images.opening import open_image
    from partzoo.swapping import swap_parts

    with png_file(out, (first, second, model)) as write:
        a, b = (open_image(image, max_pixels=max_pixels, max_bytes=max_bytes) for image in (first, second))
        write(Image.fromarray(swap_parts(model, a, b, parts, paste=paste, classes=category, device=device)))
