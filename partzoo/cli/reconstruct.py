"""The command ``partzoo reconstruct``."""

from __future__ import annotations

import click

from partzoo.cli.command import Command
from partzoo.cli.options import device_option, limit_options, seed_range
from partzoo.cli.png import image_class_option, part_model_option, png_file, png_option


@click.command(
    cls=Command,
    short_help="Draw an image as a part model reconstructs it.",
    epilog="""
    \b
    Examples:
      partzoo reconstruct face.jpg -o restored.png
      partzoo reconstruct face.jpg --hidden 0.5 --seed 1 -o restored.png
      partzoo reconstruct face.jpg --model partformer-resnet18 -o drawn.png
    """,
)
@click.argument("image", type=click.Path(), metavar="IMAGE")
@png_option
@click.option("--hidden", type=float, help="Share of the patches that MPAE does not see.  [default: 0.9]")
@click.option("--seed", type=seed_range, default=0, show_default=True, help="Random seed of the hidden patches.")
@click.option("--side", type=click.IntRange(min=1), default=256, show_default=True, help="Longer side of each image.")
@image_class_option
@part_model_option("mpae-patchresnet14", "MPAE or PartFormer model name, weights file or folder")
@device_option
@limit_options
def reconstruct(
    image: str,
    out: str,
    hidden: float | None,
    seed: int,
    side: int,
    category: int | None,
    model: str,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
) -> None:
    """Draw IMAGE, what an MPAE sees of it, and what the model makes of it; or IMAGE as a PartFormer draws it."""
    from partzoo.images.opening import open_image
    from partzoo.reconstruction import reconstruct as reconstructed

    with png_file(out, (image, model)) as write:
        opened = open_image(image, max_pixels=max_pixels, max_bytes=max_bytes)
        found = reconstructed(opened, model=model, hidden=hidden, seed=seed, classes=category, device=device)
        write(found.draw(side=side))
