"""The command ``partzoo attention``."""

from __future__ import annotations

import click

from partzoo.cli.command import Command
from partzoo.cli.options import complete_weights, device_option, limit_options
from partzoo.cli.png import png_file


@click.command(
    cls=Command,
    short_help="Draw the attention of each part of a part model.",
    epilog="""
    \b
    Examples:
      partzoo attention face.jpg -o attention.png
      partzoo attention face.jpg --model partformer-lite0.faces-k8 --layer -1 -o attention.png
    """,
)
@click.argument("image", type=click.Path(), metavar="IMAGE")
@click.option("-o", "--out", type=click.Path(dir_okay=False), required=True, help="PNG file to write.")
@click.option("--layer", type=int, help="Layer of the part transformer, -1 for the last.  [default: mean over all]")
@click.option("--side", type=click.IntRange(min=1), default=256, show_default=True, help="Longer side of each copy.")
@click.option("--class", "category", type=int, help="Class of the image, for a part model with several classes.")
@click.option(
    "--model",
    metavar="NAME",
    default="partformer-resnet18",
    show_default=True,
    shell_complete=complete_weights,
    help="PartFormer or MPAE model name, weights file or folder. See 'partzoo list'.",
)
@device_option
@limit_options
def attention(
    image: str,
    out: str,
    layer: int | None,
    side: int,
    category: int | None,
    model: str,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
) -> None:
    """Draw how much each part embedding attends to each patch of IMAGE: one copy for each map, background first."""
    from partzoo.attention import draw_attention, part_attention
    from partzoo.images.opening import open_image

    with png_file(out, (image, model)) as write:
        opened = open_image(image, max_pixels=max_pixels, max_bytes=max_bytes)
        maps = part_attention(opened, model=model, layer=layer, classes=category, device=device)
        write(draw_attention(opened, maps, side=side))
