"""Pretraining by Spatial Reasoning: are two views of one picture, and how far apart do two patches of it lie?"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from partzoo.errors import UsageError
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.train.augmentation.views import (
    crop_resize,
    cut,
    enlarged_patches,
    patch_corners,
    place,
    random_boxes,
    random_colours,
)
from partzoo.train.loop import Task
from partzoo.train.losses.spatial import Pairs, relation_loss, relation_targets, shifted_pairs


class SpatialTask(Task):
    """Relational reasoning on views, spatial reasoning on patches (Spatial Reasoning, section 3).

    Args:
        model: backbone and relation module; its configuration says how large patches are, and whether additive.
        views: augmentations of each picture, K, at least 2.
        patches: of each picture, N; 0 is plain relational reasoning, without positions.
        patch_negatives: pair patches of different pictures too, as the published code does; the paper does not.
        alpha: weight of the positions' error; 2 is the paper's sum over both coordinates, 1 the published code's.
        focus: gamma of the focal loss, 2 in relational reasoning as it was published; 0 is the plain cross-entropy.
        apart: the first two patches of a picture never overlap, as the paper says; patches up to half a side. Without
            it they lie anywhere, as nearly do those of the published code, whose test lets half of them overlap.
    """

    CONFIG = SpatialConfig

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
        config = model.config
        if views < 2 or patches < 0 or patches == 1:
            raise UsageError(f"views={views}, patches={patches}: pairs need two views, and no patch or two.")
        self.model = model
        self.views, self.patches, self.patch_negatives = views, patches, patch_negatives
        self.alpha, self.focus = alpha if patches else 0.0, focus
        self.places = (config.size - config.patch_size if config.additive else config.enlarged - config.size) + 1
        self.side = config.patch_size if config.additive else config.size
        self.apart = self.side if apart else 0
        if patches and self.places <= self.apart:
            raise UsageError(
                f"patch_size={config.patch_size}: two patches do not fit side by side into {config.size} pixels. Take "
                "smaller ones, or apart=False."
            )

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        _, predicted, targets = self.related(pixels, generator)
        right = (predicted[:, 2] > 0) == (targets[:, 2] > 0)
        return relation_loss(predicted, targets, self.alpha, self.focus) | {"accuracy": right.float().mean()}

    def related(self, pixels: Tensor, generator: torch.Generator) -> tuple[Pairs, Tensor, Tensor]:
        """Pairs of views and patches of pictures ``(M, 3, S, S)`` uint8, what the model says of them, and what is true.

        The last two are ``(P, 3)``.
        """
        x, positions = self.batch(pixels, generator)
        features = self.model.features(x.contiguous(memory_format=torch.channels_last))
        pairs = shifted_pairs(len(pixels), self.views, self.patches, self.patch_negatives, str(pixels.device))
        predicted = self.model.relation(features[pairs.first], features[pairs.second])
        return pairs, predicted, relation_targets(pairs, positions, signed=self.model.relation.ordered)

    @torch.no_grad()
    def batch(self, pixels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Views and patches of a batch of pictures.

        Args:
            pixels: ``(M, 3, S, S)`` uint8.
            generator: source of randomness, on the pictures' device.

        Returns:
            ``((K + N) * M, 3, S, S)`` normalized, view by view and then patch by patch; ``(N * M, 2)`` positions of
            the patches, top and left, in :attr:`SpatialConfig.unit`.
        """
        draw = {"generator": generator, "device": pixels.device}
        config, count = self.model.config, len(pixels)
        pixels = pixels.float()
        rows = self.views * count
        boxes = random_boxes(rows, tuple(pixels.shape[2:]), **draw)
        flipped = torch.rand(rows, **draw) < 0.5
        views = crop_resize(pixels.repeat(self.views, 1, 1, 1), boxes, config.size, flipped)
        if not self.patches:
            return self._coloured(views, generator), pixels.new_zeros(0, 2)
        corners = patch_corners(count, self.patches, self.places, self.apart, **draw)
        corners = rearrange(corners, "m n c -> (n m) c")
        pixels = pixels.repeat(self.patches, 1, 1, 1)
        if config.additive:
            patches = self._coloured(cut(pixels, corners, self.side), generator)
            patches = place(patches, torch.randint(self.places, corners.shape, **draw), config.size)
            return torch.cat([self._coloured(views, generator), patches]), corners / (self.places - 1)
        patches = enlarged_patches(pixels, corners, config.enlarged)
        positions = corners / (config.unit * config.enlarged)
        return self._coloured(torch.cat([views, patches]), generator), positions

    def _coloured(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        pixels = random_colours(pixels / 255, generator=generator)
        return self.model.preprocess.normalize(pixels * 255)
