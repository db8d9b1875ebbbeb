"""Pretraining by PART: predict how off-grid patches lie relative to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.models.part import Part, PartConfig
from partzoo.models.sampling import gather_patches, relative_targets, sample_pairs, sample_positions
from partzoo.train.loop import Task
from partzoo.train.losses.part import relative_position_loss


class PartTask(Task):
    """Relative positions of randomly sampled patches (PART, section 4).

    Args:
        model: encoder and relative encoder.
        pairs: ordered pairs of patches for each picture; 0 is all of them (PART, figure 8).
        continuous: sample at real positions instead of whole pixels.
    """

    CONFIG = PartConfig

    def __init__(self, model: Part, *, pairs: int = 2048, continuous: bool = False) -> None:
        super().__init__()
        self.model = model
        self.pairs = pairs
        self.continuous = continuous

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        patch, (height, width) = self.model.patch, pixels.shape[2:]
        draw = {"generator": generator, "device": pixels.device}
        count = height * width // patch**2
        positions = sample_positions(len(pixels), count, (height, width), patch, continuous=self.continuous, **draw)
        pairs = sample_pairs(len(pixels), count, self.pairs, **draw) if self.pairs else None
        normalize = self.model.preprocess.normalize
        if self.continuous:
            patches = gather_patches(normalize(pixels), positions, patch)
        else:
            patches = gather_patches(pixels, positions, patch)
            patches = normalize(patches.flatten(0, 1)).unflatten(0, (len(pixels), count))
        predicted = self.model.relate(patches, pairs)
        return {"loss": relative_position_loss(predicted, relative_targets(positions, patch, pairs))}
