"""Pretrain Spatial Reasoning to predict whether two views share an image, and the distance between two patches."""

from __future__ import annotations

import torch
from torch import Tensor

from partzoo.models.registry import Architecture
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.models.spatial.pairs import PairSampler
from partzoo.train.growth.grow import grown
from partzoo.train.losses.spatial import relation_loss
from partzoo.train.tasks.base import Task


class SpatialTask(Task):
    """A task that trains a model to relate views and patches of images (Spatial Reasoning, section 3).

    Args:
        model: Spatial Reasoning model with backbone and relation module.
        views, patches, patch_negatives, apart: arguments of :class:`partzoo.models.spatial.pairs.PairSampler`.
        alpha: weight of the position error: 2 gives the sum over both coordinates, as in the paper, and 1 their mean,
            as in the published code.
        focus: gamma of the focal loss: 2 in published relational reasoning, 0 for plain cross-entropy.
    """

    METHOD = "spatial"
    TITLE = "Spatial Reasoning"
    RECIPE = "spatial-resnet8.tin"
    CONFIG = SpatialConfig
    START = "grow_from"
    model: Spatial

    def __init__(
        self,
        model: Spatial,
        *,
        views: int = 4,
        patches: int = 2,
        patch_negatives: bool = False,
        alpha: float = 2.0,
        focus: float = 0.0,
        apart: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.sampler = PairSampler(model, views=views, patches=patches, patch_negatives=patch_negatives, apart=apart)
        self.alpha, self.focus = alpha if patches else 0.0, focus

    @classmethod
    def start(cls, entry: Architecture, config: SpatialConfig, parent: str | None) -> Spatial:
        """Return a model with random weights, or with weights grown from a smaller model."""
        return grown(parent, entry, config) if parent else super().start(entry, config, parent)

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        _, predicted, targets = self.sampler.related(pixels, generator)
        right = (predicted[:, 2] > 0) == (targets[:, 2] > 0)
        return relation_loss(predicted, targets, self.alpha, self.focus) | {"accuracy": right.float().mean()}
