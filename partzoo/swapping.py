"""Swap parts between two images: drawn by PartFormer's decoder, or pasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from partzoo.errors import UsageError
from partzoo.features import loaded, model_input, name_of
from partzoo.images.opening import OpenedImage, open_image

if TYPE_CHECKING:
    from torch import nn

    from partzoo.parts.parts import Parts
    from partzoo.system.device import Device


def swap_parts(
    model: str | nn.Module,
    a: Any,
    b: Any,
    parts: Sequence[int] | None = None,
    *,
    paste: bool = False,
    classes: int | None = None,
    device: Device = None,
) -> np.ndarray:
    """Reconstruct an image with PartFormer's decoder, taking the appearance of some parts from another image.

    Args:
        model: name of a PartFormer model, or the module; with ``paste``, of any part model.
        a: image that keeps its shapes, its background and its other parts, in any form that
            :func:`partzoo.images.opening.open_image` accepts.
        b: image whose parts are taken.
        parts: numbers of the parts to take, 1..K; None takes all, and an empty sequence reconstructs ``a``.
        paste: whether to paste the pixels of ``b`` instead, aligned by the parts that both images have and without
            seams (:func:`partzoo.parts.pasting.paste_parts`); the shapes are then those of ``b``.
        classes: class of both images, for a model that has separate parts for each class.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        ``(H, W, 3)`` uint8, RGB. The longer side has ``config.reconstruction`` pixels, and the aspect ratio of ``a`` is
        kept as closely as whole patches allow. With ``paste`` it has the size of ``a``.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the model is not a PartFormer, a part or the class does not exist, or parts are to be pasted
            between images that have fewer than two in common.

    Source: PartFormer, section 4.5 and figure 11.
    """
    import torch

    from partzoo.models.partformer.model import PartFormer

    if paste:
        return _pasted(model, [open_image(image) for image in (a, b)], parts, classes, device)
    found = loaded(model, device)
    if not isinstance(found, PartFormer):
        raise UsageError(f"{name_of(found)} is not a PartFormer: only a PartFormer can decode parts.")
    count = found.config.parts
    rows = list(range(1, count + 1) if parts is None else parts)
    if any(row not in range(1, count + 1) for row in rows):
        raise UsageError(f"parts={rows}: this model's parts are 1..{count}.")
    shape, looks = (model_input(open_image(image), found) for image in (a, b))
    chosen = None if classes is None else torch.tensor([classes], device=shape.device)
    with torch.inference_mode():
        mixed = found.descriptors(shape, classes=chosen)
        mixed[:, rows] = found.descriptors(looks, classes=chosen)[:, rows]
        drawn = found.reconstruct(shape, mixed, classes=chosen)[0].float().cpu()
    levels = found.preprocess.denormalize(drawn).round().clamp(0, 255)
    return levels.byte().permute(1, 2, 0).numpy()


def _pasted(
    model: str | nn.Module,
    images: list[OpenedImage],
    parts: Sequence[int] | None,
    classes: int | None,
    device: Device,
) -> np.ndarray:
    """Find the parts of both images, and paste those of the second over those of the first."""
    from partzoo.discovery.pipeline import discover_parts
    from partzoo.parts.pasting import paste_parts

    first, second = cast("list[Parts]", discover_parts(images, model=model, classes=classes, device=device))
    return paste_parts(first, second, range(1, first.k + 1) if parts is None else parts)
