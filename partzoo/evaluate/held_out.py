"""What a release's record says of its weights: figures on held-out pictures, beside their floors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from partzoo.encoders.base import Encoder
from partzoo.evaluate.probes import knn_accuracy, position_error
from partzoo.models.part import Part
from partzoo.models.sampling import gather_patches, relative_targets, sample_positions
from partzoo.train.data import PictureSet


def _batches(pictures: PictureSet, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for numbers in torch.arange(len(pictures)).split(size):
        yield numbers, pictures.batch(numbers)


@torch.inference_mode()
def part_positions(model: Part, pictures: PictureSet, *, seed: int = 0, batch_size: int = 50) -> dict[str, float]:
    """Errors of predicted translations over all ordered pairs of off-grid patches at real positions.

    Args:
        model: encoder and relative encoder.
        pictures: held out, of the model's size.
        seed: of the positions.
        batch_size: pictures at a time.

    Returns:
        ``mse_x``, ``mse_y``, ``distance`` in patches, the same of the constant predictor, and ``loss``.

    Source: PART, section 5.3, table 5.
    """
    generator = torch.Generator().manual_seed(seed)
    side, patch = pictures.side, model.patch
    totals: dict[str, float] = {}
    for _, pixels in _batches(pictures, batch_size):
        positions = sample_positions(
            len(pixels), (side // patch) ** 2, (side, side), patch, continuous=True, generator=generator
        )
        patches = gather_patches(model.preprocess.normalize(pixels), positions, patch)
        errors = position_error(model.relate(patches), relative_targets(positions, patch))
        for name, value in errors.items():
            totals[name] = totals.get(name, 0.0) + value * len(pixels) / len(pictures)
    return totals | {"loss": (totals["mse_x"] + totals["mse_y"]) / 2}


@torch.inference_mode()
def pooled_features(model: Encoder, pictures: PictureSet, *, batch_size: int = 100) -> Tensor:
    """Mean of the patch tokens of every picture, ``(N, C)``."""
    normalize = model.preprocess.normalize
    return torch.cat([model.encode(normalize(x)).patch.mean(1) for _, x in _batches(pictures, batch_size)])


def knn(model: Encoder, bank: PictureSet, queries: PictureSet, *, neighbours: int = 20) -> float:
    """Top-1 accuracy in per cent of a weighted vote of nearest neighbours on frozen pooled features."""
    return knn_accuracy(
        pooled_features(model, queries), queries.labels, pooled_features(model, bank), bank.labels,
        neighbours=neighbours,
    )  # fmt: skip


@torch.inference_mode()
def top1(model: Encoder, pictures: PictureSet, *, batch_size: int = 100) -> float:
    """Accuracy in per cent of the model's own classifier."""
    normalize = model.preprocess.normalize
    hits = sum(
        (model.classify(normalize(x)).argmax(1) == pictures.labels[numbers]).sum().item()
        for numbers, x in _batches(pictures, batch_size)
    )
    return 100 * hits / len(pictures)
