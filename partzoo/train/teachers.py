"""Teachers, which predict masks for images without any: a foreground model, or a prior not trained on masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize

from partzoo.discovery.colours import cielab
from partzoo.discovery.foreground import (
    background_and_contrast,
    colour_distance,
    group_mean,
    object_scores,
    optimize,
    spread,
    superpixels,
)
from partzoo.discovery.views import CELL
from partzoo.images.preprocess import working_size
from partzoo.models.efficientnet import STRIDE, EfficientNetLite
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load

Lesson = tuple[np.ndarray, float]  # a mask (H, W) of probabilities, and the teacher's confidence in it, at most 1
Teacher = Callable[[np.ndarray], Lesson]
PRIOR = "prior"
ENCODER, SIZE, LEVEL = (
    "efficientnet-lite0.in1k",
    320,
    3,
)  # encoder of the prior, longer side in pixels, and level of its features
FEATURES, COSINE = 0.3, 0.12  # weight of the features in a distance, and the value of 1 - cosine that is one sigma


def teacher_of(name: str) -> Teacher:
    """Return a function from an image ``(H, W, 3)`` uint8 to its foreground and the confidence in it.

    Args:
        name: name, folder or file of a foreground model; or ``"prior"``, the boundary prior over colours and the
            ImageNet-1k parent's features (:func:`prior`).

    Raises:
        UnknownModelError: the model does not exist.
    """
    if name == PRIOR:
        encoder = cast(EfficientNetLite, load(ENCODER, dtype="float32"))
        return lambda pixels: prior(pixels, encoder)
    model = cast(ForegroundModel, load(name, dtype="float32"))
    return lambda pixels: network(pixels, model)


def network(pixels: np.ndarray, model: ForegroundModel) -> Lesson:
    """Predict the foreground with a model and raise its contrast; doubtful pixels lower the confidence."""
    found = _at(model.probability(pixels), pixels.shape[:2])
    doubtful = ((found > 0.15) & (found < 0.85)).mean() / max((found > 0.5).mean(), 1e-3)
    return ((found - 0.5) * 1.6 + 0.5).clip(0, 1), 1 - doubtful


@torch.inference_mode()
def prior(pixels: np.ndarray, encoder: EfficientNetLite) -> Lesson:
    """Predict the foreground of an image ``(H, W, 3)`` uint8 without anything learned from masks.

    It uses the boundary prior, with distances that are seven tenths colour and three tenths features at stride 16. The
    confidence is the mean score inside the foreground minus the mean score outside.

    Source: Zhu, Liang, Wei and Sun, "Saliency optimization from robust background detection", CVPR 2014; weights and
    level chosen on dev splits (docs/discovery.md).
    """
    size = working_size(pixels.shape[:2], SIZE, STRIDE)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    x = interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 255)
    seen = encoder.preprocess.normalize(torch.cat([x, x.flip(3)]))
    maps = encoder.forward_intermediates(seen, [LEVEL])[0]
    features = (maps[0] + maps[1].flip(2)) / 2
    lab = cielab(avg_pool2d(x[0] / 255, CELL))
    regions = superpixels(lab.permute(1, 2, 0).numpy())
    grid = interpolate(normalize(features, dim=0)[None], lab.shape[1:], mode="bilinear")[0]
    means = group_mean(grid.flatten(1).T.numpy(), regions.labels.ravel(), len(regions.lab))
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
    distance = (1 - FEATURES) * colour_distance(regions) + FEATURES * (1 - means @ means.T).clip(0) / COSINE
    score = optimize(regions, distance, *background_and_contrast(regions, distance))
    inside = object_scores(regions, spread(score)) >= 0.5
    cells = score[regions.labels]
    sure = cells[inside].mean() - cells[~inside].mean() if 0 < inside.sum() < inside.size else 0.0
    return (_at(torch.from_numpy(inside).float(), pixels.shape[:2]) >= 0.5).astype(np.float32), float(sure)


def _at(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    return interpolate(maps[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
