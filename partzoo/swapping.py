"""Two images -> the first one with parts of the second: what PartFormer's representations hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from partzoo.errors import UsageError
from partzoo.features import encoder_of, model_input
from partzoo.images.opening import open_image

if TYPE_CHECKING:
    from torch import nn


def swap_parts(
    model: str | nn.Module, a: Any, b: Any, parts: Sequence[int] | None = None, *, classes: int | None = None
) -> np.ndarray:
    """An image as PartFormer's decoder draws it, some parts looking like those of another image.

    Args:
        model: a PartFormer: name or module.
        a: the image whose shapes, background and other parts stay, as :func:`partzoo.images.opening.open_image`
            takes it.
        b: the image whose parts are taken.
        parts: their numbers, 1..K; None is all of them, none at all draws ``a`` with its own.
        classes: number of the class that both show, of a model with several.

    Returns:
        ``(H, W, 3)`` uint8, RGB, at the decoder's size: where the model was trained on images of ``config.size``
        pixels, ``config.reconstruction`` pixels for the longer side of ``a``, the aspect being kept as nearly as
        patches allow.

    Raises:
        ImageError: an image cannot be read.
        UsageError: the model is no PartFormer, it has no such part or class.

    Source: PartFormer, section 4.5 and figure 11.
    """
    import torch

    from partzoo.models.partformer.model import PartFormer

    found = encoder_of(model)
    if not isinstance(found, PartFormer):
        raise UsageError(f"{found.architecture} is no PartFormer: only PartFormers draw images from their parts.")
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
