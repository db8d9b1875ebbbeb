"""What the demo's page computes, without its widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from partzoo.errors import UsageError

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

SIDE = 1600  # longest side of an uploaded image in pixels; larger ones are reduced
AUTO = "as many as look different"
WHOLE = "the whole image"
BACKGROUNDS = {"find the object": "auto", WHOLE: None}
FACES = "partformer-resnet18.faces-k8"
MODELS = {"any object": None, "a cropped face (PartFormer)": FACES}


@dataclass(frozen=True)
class Result:
    """Parts of an image, as the page shows them.

    Attributes:
        overlay: the image with coloured, numbered parts.
        rows: number, share of the image in per cent and centre (x, y) in pixels, for each part that is present.
        remark: what the user should know about the result.
        files: files to download.
    """

    overlay: Image.Image
    rows: list[tuple]
    remark: str
    files: list[str]


def painted(drawing: Mapping[str, Any] | None) -> tuple[Image.Image, np.ndarray | None]:
    """Return the image of an editor and the area that was painted in it.

    Args:
        drawing: value of a gradio ``ImageEditor`` with PIL images: ``background`` and ``layers``.

    Returns:
        The image in RGB, and a boolean array of its size ``(H, W)``; None if nothing was painted.

    Raises:
        UsageError: there is no image.
    """
    if drawing is None or drawing.get("background") is None:
        raise UsageError("Choose an image first.")
    image = drawing["background"]
    mask = np.zeros((image.height, image.width), bool)
    for layer in drawing.get("layers", ()):
        mask |= np.asarray(layer.convert("RGBA").resize(image.size))[..., 3] > 0
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    image = flat.convert("RGB")
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        mask = np.asarray(Image.fromarray(mask).resize(image.size))
    return image, mask if mask.any() else None


def divide(drawing: Mapping[str, Any] | None, model: str, k: int, background: str, folder: Path) -> Result:
    """Find the parts of one image.

    Args:
        drawing: as in :func:`painted`; a painted area is the foreground.
        model: one of ``MODELS``.
        k: number of parts; 0 lets the image decide.
        background: one of ``BACKGROUNDS``.
        folder: folder for the files to download.

    Raises:
        UsageError: there is no image.
    """
    import partzoo

    image, mask = painted(drawing)
    options: dict[str, Any] = {"model": MODELS[model], "mask": mask, "k": k or None}
    if mask is None:
        options["background"] = BACKGROUNDS[background]
    parts = cast("Parts", partzoo.discover_parts(image, **options))
    return Result(parts.overlay(scale=_scale(parts)), _rows(parts), _remark(parts), _saved(parts, folder))


def divide_together(first: Image.Image | None, second: Image.Image | None, k: int) -> list[Image.Image]:
    """Find the same parts in two images, with the same numbers.

    Raises:
        UsageError: an image is missing.
    """
    import partzoo

    both = [_reduced(image) for image in (first, second)]
    found = cast("list[Parts]", partzoo.discover_parts(both, k))
    return [parts.overlay(scale=_scale(parts)) for parts in found]


def exchange(first: Image.Image | None, second: Image.Image | None, numbers: Sequence[str]) -> np.ndarray:
    """Paste some parts of a face into another face, ``(H, W, 3)`` uint8.

    Raises:
        UsageError: an image is missing, or the images have fewer than two parts in common.
    """
    import partzoo

    chosen = [int(number) for number in numbers]
    return partzoo.swap_parts(FACES, _reduced(first), _reduced(second), chosen, paste=True)


def _reduced(image: Image.Image | None) -> Image.Image:
    return painted({"background": image})[0]


def _scale(parts: Parts) -> int:
    return max(1, round(800 / max(parts.size)))


def _rows(parts: Parts) -> list[tuple]:
    shares = 100 * parts.areas / parts.labels.size
    return [
        (int(number), round(float(shares[number - 1]), 1), *map(round, map(float, parts.centroids[number - 1])))
        for number in parts.present
    ]


def _remark(parts: Parts) -> str:
    if not len(parts.present):
        return "No parts were found."
    if parts.quality < 0.7:
        return f"The foreground is doubtful ({parts.quality:.2f}). Paint the object, or divide the whole image."
    return f"Confidence in the foreground: {parts.quality:.2f}"


def _saved(parts: Parts, folder: Path) -> list[str]:
    names = ("parts.png", "parts.index.png", "parts.npz", "parts.json")
    for name in names:
        parts.save(folder / name)
    return [str(folder / name) for name in names]
