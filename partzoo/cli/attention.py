"""The command ``partzoo attention``."""

from __future__ import annotations

import click

from partzoo.cli.command import Command
from partzoo.cli.options import device_option, limit_options
from partzoo.cli.png import image_class_option, part_model_option, png_file, png_option


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
@png_option
@click.option("--layer", type=int, help="Layer of the part transformer, -1 for the last.  [default: mean over all]")
@click.option("--side", type=click.IntRange(min=1), default=256, show_default=True, help="Longer side of each copy.")
@image_class_option
@part_model_option("partformer-resnet18", "PartFormer or MPAE model name, weights file or folder")
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
