"""The command ``partzoo suggest``."""

from __future__ import annotations

from functools import partial

import click

from partzoo.cli.command import Command, print_json, show_progress, table
from partzoo.cli.options import (
    device_option,
    images_argument,
    json_option,
    limit_options,
    model_option,
    one_or_many,
    strict_option,
)


@click.command(
    cls=Command,
    short_help="Name the images whose labels would teach a vocabulary most.",
    epilog="""
    \b
    Examples:
      partzoo suggest images/ --vocabulary mine.parts.safetensors
      partzoo suggest images/ --vocabulary mine.parts.safetensors -n 3 --json
    """,
)
@images_argument
@click.option("--vocabulary", required=True, type=click.Path(dir_okay=False), help="File of taught or fitted parts.")
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="Number of images to name.")
@model_option
@device_option
@limit_options
@strict_option
@json_option
def suggest(
    images: tuple[str, ...],
    vocabulary: str,
    count: int,
    model: str | None,
    device: str | None,
    max_pixels: int,
    max_bytes: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Name the images about whose parts a vocabulary has most doubt: label these next."""
    from tqdm import tqdm

    from partzoo.cli.failures import Failures
    from partzoo.discovery.judging import suggest_images
    from partzoo.images.opening import open_images

    opened, single = open_images(one_or_many(images), max_pixels=max_pixels, max_bytes=max_bytes)
    failures: Failures[int] = Failures(len(opened), opened.name, what="images", strict=strict or single)
    with tqdm(desc="looking at images", unit="image", disable=True if as_json else None) as bar:
        chosen = suggest_images(
            opened, vocabulary, count=count, model=model, device=device, progress=partial(show_progress, bar),
            pass_over=failures.pass_over,
        )  # fmt: skip
    if as_json:
        print_json({"images": [{"source": name, "doubt": round(doubt, 4)} for name, doubt in chosen]})
    else:
        table([(name, f"{doubt:.3f}") for name, doubt in chosen], ("image", "doubt"))
    failures.check()
