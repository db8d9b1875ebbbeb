"""Swap parts between two images, to show what PartFormer's part representations encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from partzoo.errors import UsageError
from partzoo.features import loaded, model_input, name_of
from partzoo.images.opening import open_image

if TYPE_CHECKING:
    from torch import nn

    from partzoo.system.device import Device


def swap_parts(
    model: str | nn.Module,
    a: Any,
    b: Any,
    parts: Sequence[int] | None = None,
    *,
    classes: int | None = None,
    device: Device = None,
) -> np.ndarray:
    """Reconstruct an image with PartFormer's decoder, taking the appearance of some parts from another image.

    Args:
        model: name of a PartFormer model, or the module.
        a: image that keeps its shapes, its background and its other parts, in any form that
            :func:`partzoo.images.opening.open_image` accepts.
        b: image whose parts are taken.
        parts: numbers of the parts to take, 1..K; None takes all, and an empty sequence reconstructs ``a``.
        classes: class of both images, for a model that has separate parts for each class.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        ``(H, W, 3)`` uint8, RGB. The longer side has ``config.reconstruction`` pixels, and the aspect ratio of ``a`` is
        kept as closely as whole patches allow.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the model is not a PartFormer, or a part or the class does not exist.

    Source: PartFormer, section 4.5 and figure 11.
    """
    import torch

    from partzoo.models.partformer.model import PartFormer

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
