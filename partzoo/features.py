"""Images -> learned features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from partzoo.images.limits import MAX_BYTES, MAX_PIXELS
from partzoo.images.opening import OpenedImage, open_images
from partzoo.images.preprocess import to_tensor, working_size

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT_MODEL = "efficientnet-lite0.in1k"


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder sees in one image.

    Attributes:
        dense: ``(h, w, C)`` float32, one vector for each cell of the grid.
        pooled: ``(C,)`` float32, their mean.
        size: ``(H, W)`` of the image, in pixels.
        working: ``(height, width)`` at which the encoder saw it.
    """

    dense: np.ndarray
    pooled: np.ndarray
    size: tuple[int, int]
    working: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """``(rows, columns)`` of cells."""
        return self.dense.shape[:2]

    def centres(self) -> np.ndarray:
        """``(h, w, 2)`` float32: x, y of each cell's centre in the image's own pixels."""
        (rows, columns), (height, width) = self.grid, self.size
        x = (np.arange(columns, dtype=np.float32) + 0.5) * (width / columns) - 0.5
        y = (np.arange(rows, dtype=np.float32) + 0.5) * (height / rows) - 0.5
        return np.stack(np.meshgrid(x, y), axis=-1)


def extract_features(
    images: Any,
    *,
    model: str | nn.Module | None = None,
    size: int | None = None,
    layer: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Features | list[Features]:
    """Dense and pooled features of one image or many.

    Args:
        images: whatever :func:`partzoo.images.opening.open_images` takes.
        model: name or encoder; the bundled default if None.
        size: longer side at which the encoder sees the image, in pixels; by default the size it was trained on.
            The aspect is kept as nearly as its patches allow.
        layer: an intermediate layer (as ``forward_intermediates`` counts, -1 the last); None is the encoder's output.
        max_pixels, max_bytes: largest image to decode and largest file to read; see
            :func:`partzoo.images.opening.open_image`.

    Returns:
        Features; a list of them where many images were given, which holds all their dense maps: for memory that does
        not grow, load the model once and pass one image at a time.

    Raises:
        ImageError: an image cannot be read.
        UsageError: no such model or layer, or size below 1.
    """
    import torch

    encoder = encoder_of(model)
    opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    found = []
    for image in opened:
        x = model_input(image, encoder, size)
        with torch.inference_mode():
            maps = encoder.encode(x).maps() if layer is None else encoder.forward_intermediates(x, [layer])[0]
        dense = maps[0].float().permute(1, 2, 0).cpu().numpy().copy()
        found.append(Features(dense, dense.mean((0, 1)), image.size, tuple(x.shape[2:])))
    return found[0] if single else found


def model_input(image: OpenedImage, model: nn.Module, size: int | None = None) -> Tensor:
    """An image ``(1, 3, h, w)`` as a model takes it, on its device; ``size`` as for :func:`extract_features`."""
    working = working_size(image.size, size or model.preprocess.size, model.preprocess.multiple)
    return to_tensor(image, working, model.preprocess)[None].to(next(model.parameters()).device)


def encoder_of(model: str | nn.Module | None) -> nn.Module:
    """The module itself, or the one that a name stands for; the bundled default for None."""
    if model is None or isinstance(model, str):
        from partzoo.models.loading import load

        return load(model or DEFAULT_MODEL)
    return model.eval()
