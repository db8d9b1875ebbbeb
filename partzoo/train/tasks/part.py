"""Pretrain PART to predict the relative positions of off-grid patches."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.errors import UsageError
from partzoo.models.layers import train_fast
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.part.sampling import SAMPLINGS, Sampling, sample
from partzoo.models.registry import Architecture
from partzoo.train.growth.grow import grown
from partzoo.train.losses.part import relative_position_loss
from partzoo.train.tasks.base import Task


class PartTask(Task):
    """A task that trains PART to predict relative positions (section 4) and sizes (section 5.1) of random patches.

    Sizes are predicted if the model's configuration has four targets.

    Args:
        model: PART model with encoder and relative encoder.
        pairs: number of ordered pairs of patches for each image; 0 means all of them (PART, figure 8).
        sampling: distribution of the patches; see :func:`partzoo.models.part.sampling.sample`.

    Raises:
        UsageError: the sampling is unknown, or the number of pairs is negative.
    """

    METHOD = "part"
    TITLE = "PART"
    RECIPE = "part-vitn8.tin"
    CONFIG = PartConfig
    START = "grow_from"
    ENDS = ("patch_embed", "relative_encoder")
    model: Part

    def __init__(self, model: Part, *, pairs: int = 2048, sampling: Sampling = "integer") -> None:
        super().__init__()
        if sampling not in SAMPLINGS or pairs < 0:
            raise UsageError(
                f"sampling={sampling!r}, pairs={pairs}: sampling must be one of {', '.join(SAMPLINGS)}, and "
                "pairs 0 or more."
            )
        self.model = model
        train_fast(model.blocks, (model.config.size // model.patch) ** 2)
        self.pairs = pairs
        self.sampling = sampling

    @classmethod
    def start(cls, entry: Architecture, config: PartConfig, parent: str | None) -> Part:
        """Return a model with random weights, or with weights grown from a smaller model."""
        return grown(parent, entry, config) if parent else super().start(entry, config, parent)

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        sizes = self.model.config.targets == 4
        drawn = sample(pixels, self.model.patch, self.sampling, pairs=self.pairs, sizes=sizes, generator=generator)
        patches = self.model.preprocess.normalize(drawn.patches.flatten(0, 1))
        predicted = self.model.relate(patches.unflatten(0, drawn.patches.shape[:2]), drawn.pairs)
        terms = {"loss": relative_position_loss(predicted, drawn.targets)}
        if sizes:
            terms["positions"] = relative_position_loss(predicted[..., :2], drawn.targets[..., :2])
            terms["sizes"] = relative_position_loss(predicted[..., 2:], drawn.targets[..., 2:])
        return terms
