"""``partzoo features``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import click

from partzoo.cli.command import Command, check_place, print_json
from partzoo.cli.options import images_argument, json_option, limit_options, model_option
from partzoo.errors import UsageError

FORMAT = 1  # of the file


@click.command(
    cls=Command,
    short_help="Write a model's features of images.",
    epilog="""
    \b
    Examples:
      partzoo features photo.jpg -o photo.npz
      partzoo features photos/ --pooled -o photos.safetensors
      partzoo features photo.jpg --model dinov2-vits14 -o photo.npz
    \b
    Arrays in the file, for N images:
      pooled  (N, C)        one vector for each image
      size    (N, 2)        height and width of each image
      dense.0 (h, w, C)     one vector for each cell of the first image's grid; dense.1, ...
      names                 the images' paths (safetensors: JSON in the metadata)
      format                1 (safetensors: partzoo_format in the metadata)
    """,
)
@images_argument
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False), required=True, help="File to write: .npz or .safetensors."
)
@model_option
@click.option("--size", type=int, help="Longer side that the model sees, in pixels.")
@click.option("--layer", type=int, help="An intermediate layer; -1 is the last.  [default: the model's output]")
@click.option("--pooled", is_flag=True, help="Leave the dense features out.")
@limit_options
@json_option
def features(
    images: tuple[str, ...],
    out: str,
    model: str | None,
    size: int | None,
    layer: int | None,
    pooled: bool,
    max_pixels: int,
    max_bytes: int,
    as_json: bool,
) -> None:
    """Write a model's features of images to a file, for use elsewhere."""
    if Path(out).suffix.lower() not in (".npz", ".safetensors"):
        raise UsageError(f"Unknown ending of {out!r}. Use .npz or .safetensors.")
    check_place(Path(out))
    import numpy as np
    from tqdm import tqdm

    from partzoo.features import Features, encoder_of, extract_features
    from partzoo.images.opening import open_images

    opened, _ = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    encoder = encoder_of(model)
    vectors, sizes = [], []
    arrays: dict[str, np.ndarray] = {}
    for index in tqdm(range(len(opened)), unit="image", disable=True if as_json or len(opened) == 1 else None):
        found = cast(Features, extract_features(opened[index], model=encoder, size=size, layer=layer))
        vectors.append(found.pooled)
        sizes.append(found.size)
        if not pooled:
            arrays[f"dense.{index}"] = found.dense
    arrays |= {"pooled": np.stack(vectors), "size": np.array(sizes)}
    names = [opened.name(index) for index in range(len(opened))]
    _write_arrays(out, arrays, names)
    about = {"output": out, "images": len(opened), "channels": arrays["pooled"].shape[1]}
    if as_json:
        print_json(about | {"names": names})
    else:
        count = "1 image" if len(opened) == 1 else f"{len(opened)} images"
        click.echo(f"{about['channels']} channels of {count}. Written: {out}")


def _write_arrays(out: str, arrays: dict[str, Any], names: list[str]) -> None:
    import numpy as np
    from safetensors.numpy import save

    from partzoo.files import write_aside

    with write_aside(out) as file:
        if out.lower().endswith(".npz"):
            np.savez_compressed(file, format=np.array(FORMAT), names=np.array(names), **arrays)
        else:
            file.write(save(arrays, {"partzoo_format": str(FORMAT), "names": json.dumps(names)}))
