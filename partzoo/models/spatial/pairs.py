"""Pair views and patches of images and compute their true relations, the training targets of Spatial Reasoning.

The features of a batch are stacked group by group: view 0 of all M images, view 1, ..., view K - 1, then patch 0 of all
images, ..., patch N - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
from einops import rearrange
from torch import Tensor

from partzoo.data.views import (
    Draw,
    crop_resize,
    cut,
    enlarged_patches,
    patch_corners,
    place,
    random_boxes,
    random_colours,
)
from partzoo.errors import UsageError
from partzoo.models.spatial.model import Spatial
from partzoo.system.ranks import mine, whole


class PairSampler:
    """A sampler that draws views and patches of a batch of images, and pairs them (Spatial Reasoning, section 3).

    Args:
        model: the model, whose configuration gives the size of the patches and whether they are additive.
        views: number of views (augmentations) of each image, K, at least 2.
        patches: number of patches of each image, N; 0 means plain relational reasoning, without positions.
        patch_negatives: whether to pair patches of different images too, as the published code does, unlike the paper.
        apart: whether to keep the first two patches of an image from overlapping, as in the paper, for patches of
            up to half a side. Otherwise patches may overlap.

    Raises:
        UsageError: there are too few views or patches, or the patches do not fit.
    """

    def __init__(
        self, model: Spatial, *, views: int = 4, patches: int = 2, patch_negatives: bool = False, apart: bool = True
    ) -> None:
        config = model.config
        if views < 2 or patches < 0 or patches == 1:
            raise UsageError(
                f"views={views}, patches={patches}: use at least two views, and either no patches or at least two."
            )
        self.model = model
        self.views, self.patches, self.patch_negatives = views, patches, patch_negatives
        self.places = (config.size - config.patch_size if config.additive else config.enlarged - config.size) + 1
        self.side = config.patch_size if config.additive else config.size
        self.apart = self.side if apart else 0
        if patches and self.places <= self.apart:
            raise UsageError(
                f"patch_size={config.patch_size}: two patches do not fit side by side into {config.size} pixels. Use "
                "smaller ones, or apart=False."
            )

    def related(self, pixels: Tensor, generator: torch.Generator) -> tuple[Pairs, Tensor, Tensor]:
        """Draw pairs of views and patches of images ``(M, 3, S, S)`` uint8.

        Returns:
            The pairs, their relations as the model predicts them, ``(P, 3)``, and their true relations, ``(P, 3)``.
        """
        x, positions = self.batch(pixels, generator)
        # The pairs join images of all ranks that share the batch; each rank relates its share of them.
        features = whole(self.model.features(x.contiguous(memory_format=torch.channels_last)))
        positions, images = whole(positions), features.shape[0] // (self.views + self.patches)
        pairs = shifted_pairs(images, self.views, self.patches, self.patch_negatives, str(pixels.device))
        pairs = Pairs(mine(pairs.first), mine(pairs.second), mine(pairs.different), pairs.views)
        predicted = self.model.relation(features[pairs.first], features[pairs.second])
        return pairs, predicted, relation_targets(pairs, positions, signed=self.model.relation.ordered)

    @torch.no_grad()
    def batch(self, pixels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw views and patches of a batch of images.

        Args:
            pixels: ``(M, 3, S, S)`` uint8.
            generator: source of randomness, on the images' device.

        Returns:
            Normalized images ``((K + N) * M, 3, S, S)``, view by view and then patch by patch, and the positions
            ``(N * M, 2)`` of the patches, top and left, in :attr:`SpatialConfig.unit`.
        """
        draw: Draw = {"generator": generator, "device": pixels.device}
        config, count = self.model.config, pixels.shape[0]
        pixels = pixels.float()
        rows = self.views * count
        boxes = random_boxes(rows, (pixels.shape[2], pixels.shape[3]), **draw)
        flipped = torch.rand(rows, **draw) < 0.5
        views = crop_resize(pixels.repeat(self.views, 1, 1, 1), boxes, config.size, flipped)
        if not self.patches:
            return self._coloured(views, generator), pixels.new_zeros(0, 2)
        corners = patch_corners(count, self.patches, self.places, self.apart, **draw)
        corners = rearrange(corners, "m n c -> (n m) c")
        pixels = pixels.repeat(self.patches, 1, 1, 1)
        if config.additive:
            patches = self._coloured(cut(pixels, corners, self.side), generator)
            places = corners if config.in_place else torch.randint(self.places, corners.shape, **draw)
            patches = place(patches, places, config.size)
            return torch.cat([self._coloured(views, generator), patches]), corners / (self.places - 1)
        patches = enlarged_patches(pixels, corners, config.enlarged)
        positions = corners / (config.unit * config.enlarged)
        return self._coloured(torch.cat([views, patches]), generator), positions

    def _coloured(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        pixels = random_colours(pixels / 255, generator=generator)
        return self.model.preprocess.normalize(pixels * 255)


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows in a stack of features, and whether they come from different images.

    Attributes:
        first, second: ``(P,)`` int64, rows of each pair.
        different: ``(P,)`` float32, 1 if the rows come from different images, otherwise 0.
        views: number of rows that are views, which come first; the others are patches.
    """

    first: Tensor
    second: Tensor
    different: Tensor
    views: int


@cache
def shifted_pairs(
    images: int, views: int, patches: int, patch_negatives: bool = False, device: str | torch.device = "cpu"
) -> Pairs:
    """Return the pairs of a batch, with negatives made by shifting.

    For each two groups ``a < b``, every image's row in ``a`` is paired with its row in ``b`` and, as a negative, with
    the row of an image a few places later. That shift grows by one with every two groups and is never a multiple of M
    (except for M = 1, where negatives are positives).

    Args:
        images, views, patches: M, K and N.
        patch_negatives: whether to form negatives of patches too, as the published code does, unlike the paper.
        device: device of the pairs.

    Source: section 3.2, equation 2: ``M (K^2 - K)`` pairs of views, ``M (N^2 - N) / 2`` of patches.
    """
    with torch.inference_mode(False):  # the tensors are cached, so they must be usable in training too
        return _shifted_pairs(images, views, patches, patch_negatives, device)


def _shifted_pairs(images: int, views: int, patches: int, patch_negatives: bool, device: str | torch.device) -> Pairs:
    own = torch.arange(images)
    first, second, different = [], [], []
    for start, groups, negatives in ((0, views, True), (views, patches, patch_negatives)):
        shift = 1
        for a, b in combinations(range(start, start + groups), 2):
            first.append(a * images + own)
            second.append(b * images + own)
            different.append(torch.zeros(images))
            if negatives:
                first.append(a * images + own)
                second.append(b * images + (own - shift) % images)
                different.append(torch.ones(images))
                shift = shift % max(images - 1, 1) + 1
    rows, others, labels = (torch.cat(each).to(device) for each in (first, second, different))
    return Pairs(rows, others, labels, views=views * images)


def relation_targets(pairs: Pairs, positions: Tensor, *, signed: bool = True) -> Tensor:
    """Return the relation module's targets for pairs.

    Args:
        pairs: pairs of a batch.
        positions: ``(N * M, 2)`` top and left of the patches, in their order in the stack.
        signed: whether differences are signed; absolute differences are all that a relation module can learn if it
            does not distinguish the first of two features from the second.

    Returns:
        ``(P, 3)`` float32: the difference of positions, and 1 for different images, otherwise 0. For pairs of views (0)
        and pairs from different images (1), the first two numbers equal the third.

    Source: section 3.2, "pseudo targets".
    """
    placed = torch.cat([positions.new_zeros(pairs.views, 2), positions])
    apart = (placed[pairs.first] - placed[pairs.second]).float()
    apart = apart if signed else apart.abs()
    different = pairs.different[:, None]
    return torch.cat([torch.where(different > 0, different, apart), different], dim=1)
