"""Train MPAE to restore images from a few of their patches and their part descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, l1_loss

from partzoo.data.image_sets import Examples
from partzoo.data.warp import warp
from partzoo.errors import UsageError
from partzoo.models.base import Encoder
from partzoo.models.loading import load
from partzoo.models.mpae.masked_autoencoder import visible_patches
from partzoo.models.mpae.model import Mpae, MpaeConfig
from partzoo.train.augmentation.geometry import random_flip, similarity_matrices
from partzoo.train.first_parts import FirstParts, Start, started
from partzoo.train.losses.mpae import (
    background_loss,
    entropy_loss,
    foreground_loss,
    present_parts,
    region_features,
    semantic_loss,
    variation_loss,
)
from partzoo.train.losses.partformer import (
    anchor_loss,
    area_loss,
    concentration_loss,
    mask_loss,
    perceptual_loss,
    total,
)
from partzoo.train.part_images import PartOptions, read_part_images
from partzoo.train.perceptual import perceptual_levels
from partzoo.train.tasks.base import Task

VGG_WEIGHTS = (5 / 32, 5 / 16, 5 / 8, 5 / 4, 5)
DEGREES, SHIFT, SCALE = 15.0, 0.05, 0.05  # largest random rotation, shift and scaling of a view


class MpaeTask(Task):
    """A task that trains MPAE by descriptor-based masked restoration (section 3), with the published code's defaults.

    The paper's versions are ``pixels=0.5, perceptual=0.5, network_weights=(0, 0, 0, 0, 1)`` with VGG-19 (equation 3),
    ``pool=1`` (4 and 5) and ``over_regions=True`` (7). Its tables 4 to 6 vary a loss's weight to 0, ``mask_ratio``,
    ``presence``, ``concentration``, and the model's ``classes``.

    Args:
        model: model to train; the pretrained weights of its frozen encoder are loaded here.
        mask_ratio: share of the patches that is hidden (table 5); 1 hides them all.
        group: number of images in a mini-group.
        presence: loss that keeps foreground parts present: ``"group"`` is equation 4, ``"batch"`` PDiscoFormer's
            presence loss, ``"area"`` PartFormer's area loss (table 6).
        restoration, foreground, background, semantic, variation, entropy: weights of the losses; 0 leaves one out
            (table 4).
        concentration: weight of PartFormer's concentration loss, used instead of variation and entropy (table 6).
        network: encoder whose features are compared; the paper uses ``"timm/vgg19.tv_in1k"``.
        network_weights: weights of the network's levels (``VGG_WEIGHTS`` as published); None divides each level by the
            mean of its targets.
        pixels, perceptual: weights of the two terms of equation 3; if ``perceptual`` is 0, no network is needed.
        alpha: area in cells at which the area loss is one half.
        pool: side, in cells, of the neighbourhoods over which presence is averaged: 3 as published, 1 as in the paper.
        over_regions: whether to use equation 7 as in the paper rather than as in the published code.
        scale, margin: s and m of equation 7.
        augment: whether to flip, rotate, scale and shift the images at random.
        masks: weight of the cross-entropy between the foreground's map and the foreground that ``data.foreground``
            predicts.
        start, anchor: as in :class:`partzoo.train.tasks.partformer.PartFormerTask`; the model needs
            ``config.standardize``.
    """

    METHOD = "mpae"
    TITLE = "MPAE"
    RECIPE = "mpae-patchresnet14.faces-k8"
    CONFIG = MpaeConfig
    DATA = PartOptions
    model: Mpae

    def __init__(
        self,
        model: Mpae,
        *,
        mask_ratio: float = 0.9,
        group: int = 8,
        presence: Literal["group", "batch", "area"] = "group",
        restoration: float = 1.0,
        foreground: float = 1.0,
        background: float = 1.0,
        semantic: float = 0.25,
        variation: float = 0.5,
        entropy: float = 0.5,
        concentration: float = 0.0,
        network: str = "patchresnet14.tin",
        network_weights: Sequence[float] | None = None,
        pixels: float = 0.1,
        perceptual: float = 1.0,
        alpha: float = 2.0,
        pool: int = 3,
        over_regions: bool = False,
        scale: float = 20.0,
        margin: float = 0.5,
        augment: bool = True,
        masks: float = 0.0,
        start: Start = "random",
        anchor: float = 0.0,
    ) -> None:
        super().__init__()
        if presence not in ("group", "batch", "area"):
            raise UsageError(f"presence={presence!r}, but it must be 'group', 'batch' or 'area'.")
        if not 0 <= mask_ratio <= 1:
            raise UsageError(f"mask_ratio={mask_ratio} must be between 0 and 1.")
        self.model = model
        self.model.encoder = cast(Encoder, load(model.config.encoder, device="cpu", dtype="float32"))
        self.network = cast(Encoder, load(network, device="cpu", dtype="float32")) if perceptual else None
        self.network_weights = network_weights
        self.weights = {
            "restoration": restoration,
            "foreground": foreground,
            "background": background,
            "semantic": semantic,
            "variation": variation,
            "entropy": entropy,
            "concentration": concentration,
            "masks": masks,
            "anchor": anchor,
        }
        self.beginning = start
        self.first: FirstParts | None = None
        self.mask_ratio, self.group, self.presence = mask_ratio, group, presence
        self.pixels, self.perceptual = pixels, perceptual
        self.alpha, self.pool, self.augment = alpha, pool, augment
        self.semantics: dict[str, Any] = {"over_regions": over_regions, "scale": scale, "margin": margin}

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> Examples:
        return read_part_images(folder, options, config.size, seed=seed)

    def prepare(self, folder: str | Path, options: Any, examples: Examples) -> None:
        """Start the model with parts, if the task says so; see :func:`partzoo.train.first_parts.started`."""
        self.first = started(self.model, options, self.weights, self.beginning, examples)

    def train(self, mode: bool = True) -> MpaeTask:
        super().train(mode)
        if self.network is not None:
            self.network.eval()
        return self

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        several = self.model.config.classes > 1
        if several and labels is None:
            classes = self.model.config.classes
            raise UsageError(f"config.classes={classes}, but the images have no labels. Give labels, or 0 classes.")
        if self.augment:
            pixels = random_view(pixels.float(), generator)
        x = self.model.preprocess.normalize(pixels[:, :3])
        masks = pixels[:, 3:] / 255 if pixels.shape[1] > 3 else None
        patches = (x.shape[2] // self.model.patch) * (x.shape[3] // self.model.patch)
        noise = torch.rand(len(x), patches, generator=generator, device=x.device)
        return self.losses(x, visible_patches(noise, self.mask_ratio), labels if several else None, masks)

    def losses(
        self, x: Tensor, kept: Tensor, classes: Tensor | None = None, masks: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the terms of MPAE's loss.

        Args:
            x: normalized images ``(B, 3, H, W)`` of whole patches.
            kept: ``(B, n)``, numbers of the patches that stay visible.
            classes: ``(B,)`` int64, classes of the images, for a model with parts for each class; losses then treat
                the k-th parts of all classes as one part.
            masks: ``(B, 1, H, W)`` probabilities of the foreground, or None.

        Returns:
            ``"loss"``, the weighted sum; each term whose weight is not 0; and, for the log, ``"background_area"``, the
            mean of the background's map.
        """
        model, weights = self.model, self.weights
        encoded = model.encoded(x)
        parts, features = model.extractor(x, classes), model.compress(model.standardize(encoded))
        maps = model.match(parts, features)
        foreground = maps[:, 1:]
        compute = {
            "restoration": lambda: self._difference(model.restore(x, maps, parts, kept), x),
            "foreground": lambda: self._foreground(foreground),
            "background": lambda: background_loss(maps[:, 0], pool=self.pool),
            "semantic": lambda: self._semantic(foreground, features, parts[:, 1:]),
            "variation": lambda: variation_loss(maps),
            "entropy": lambda: entropy_loss(maps),
            "concentration": lambda: concentration_loss(foreground),
        }
        if masks is not None:
            compute["masks"] = lambda: mask_loss(maps, masks)
        if self.first is not None:
            labels = self.first.labels(encoded)
            compute["anchor"] = lambda: anchor_loss(maps, labels)
        terms = {name: term() for name, term in compute.items() if weights[name]}
        loss = total(weights[name] * term for name, term in terms.items())
        return {"loss": loss} | terms | {"background_area": maps[:, 0].mean().detach()}

    def _foreground(self, foreground: Tensor) -> Tensor:
        if self.presence == "area":
            return area_loss(foreground, self.alpha)
        grouped = self.presence == "group"
        return foreground_loss(foreground, self.group if grouped else None, pool=self.pool, every_image=grouped)

    def _semantic(self, foreground: Tensor, features: Tensor, descriptors: Tensor) -> Tensor:
        """Compute the semantic loss (equation 7) in the maps' precision: in bfloat16, logits are off by a tenth."""
        with torch.autocast(foreground.device.type, enabled=False):
            regions = region_features(foreground, features.to(foreground.dtype))
            descriptors, present = descriptors.to(foreground.dtype), present_parts(foreground)
            return semantic_loss(regions, descriptors, present, **self.semantics)

    def _difference(self, restored: Tensor, x: Tensor) -> Tensor:
        """Compute the restoration loss (equation 3) at the size of the restored images."""
        restored = restored.float()
        target = interpolate(x.float(), restored.shape[-2:], mode="bilinear", align_corners=False)
        difference = self.pixels * l1_loss(restored, target)
        if self.network is None:
            return difference
        with torch.no_grad():
            wanted = perceptual_levels(self.network, target, self.model.preprocess)
        found = perceptual_levels(self.network, restored, self.model.preprocess)
        return difference + self.perceptual * perceptual_loss(found, wanted, self.network_weights)


def random_view(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Flip, rotate, scale and shift images ``(B, 3, S, S)`` float at random, black outside.

    Source: MPAE's published training: up to 15 degrees, and 5 per cent of the side and of the scale, uniformly.
    """

    def draw(largest: float, *shape: int) -> Tensor:
        drawn = torch.rand(len(pixels), *shape, generator=generator, device=pixels.device)
        return largest * (2 * drawn - 1)

    pixels = random_flip(pixels, generator)
    angle, scale, shift = draw(DEGREES).deg2rad(), 1 + draw(SCALE), draw(SHIFT, 2)
    return warp(pixels, similarity_matrices(scale, angle, shift, pixels.shape[-1]))
