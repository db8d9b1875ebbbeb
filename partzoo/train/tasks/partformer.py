"""Train PartFormer to reconstruct each of two views of an image with the other view's part representations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError
from partzoo.models.base import Encoder
from partzoo.models.loading import load
from partzoo.models.partformer.model import PartFormer, PartFormerConfig
from partzoo.train.augmentation.geometry import random_flip, random_similarity
from partzoo.train.first_parts import FirstParts, Start, started
from partzoo.train.losses.partformer import (
    anchor_loss,
    area_loss,
    concentration_loss,
    consistency_loss,
    mask_loss,
    perceptual_loss,
    total,
)
from partzoo.train.part_images import PartOptions, read_part_images
from partzoo.train.perceptual import perceptual_levels
from partzoo.train.tasks.base import Task


class PartFormerTask(Task):
    """A task that trains PartFormer by aligning two representations (sections 3.1 to 3.3; equation 9).

    Args:
        model: model to train; the pretrained weights of a frozen encoder are loaded here.
        exchange: whether to reconstruct each view with the other's part representations (table 7 omits this).
        reconstruction: what to compare: features of ``network``, pixels (``"mse"``, table 10), or nothing (``"none"``,
            table 6).
        network: encoder of the zoo or of timm whose features are compared; the paper uses ``"timm/vgg19.tv_in1k"``.
        network_weights: weights of its levels (:func:`partzoo.train.perceptual.perceptual_levels`), such as the
            published ``VGG_WEIGHTS``; None divides each level by the mean activation of its targets.
        concentration, area, consistency: weights of the losses; 0 leaves one out (table 6).
        alpha: area in cells at which the area loss is one half (table 9).
        background_area: whether the background is among the parts that should not vanish, as in the paper's equation 6;
            the published code does so for several classes only.
        degrees: standard deviation of the views' rotation in degrees, which is clipped at twice that angle.
        masks: weight of the cross-entropy between the foreground's map and the foreground that ``data.foreground``
            predicts.
        start: what the maps are at the start of training (:mod:`partzoo.train.first_parts`): ``"clusters"`` of the
            frozen encoder's features inside that foreground, the parts ``"discovered"`` by
            :func:`partzoo.discover_parts`, or ``"random"``. Parts need a model with ``config.compress="linear"``.
        anchor: weight of the cross-entropy between the maps and these first parts during training.

    In a model with parts for each class (``model.config.classes``), the label of an image selects its parts.
    """

    METHOD = "partformer"
    TITLE = "PartFormer"
    RECIPE = "partformer-resnet18.faces-k8"
    CONFIG = PartFormerConfig
    DATA = PartOptions
    model: PartFormer

    def __init__(
        self,
        model: PartFormer,
        *,
        exchange: bool = True,
        reconstruction: Literal["perceptual", "mse", "none"] = "perceptual",
        network: str = "patchresnet14.tin",
        network_weights: Sequence[float] | None = None,
        concentration: float = 0.3,
        area: float = 0.5,
        consistency: float = 0.01,
        alpha: float = 2.0,
        background_area: bool = False,
        degrees: float = 15.0,
        masks: float = 0.0,
        start: Start = "random",
        anchor: float = 0.0,
    ) -> None:
        super().__init__()
        if reconstruction not in ("perceptual", "mse", "none"):
            raise UsageError(f"reconstruction={reconstruction!r} must be 'perceptual', 'mse' or 'none'.")
        self.model = model
        if model.frozen:
            model.encoder = cast(Encoder, load(model.config.encoder, device="cpu", dtype="float32"))
        perceptual = reconstruction == "perceptual"
        self.network = cast(Encoder, load(network, device="cpu", dtype="float32")) if perceptual else None
        self.network_weights = network_weights
        classes = max(model.config.classes, 1)
        self.prototypes = nn.Parameter(torch.empty(classes, model.config.parts, model.dim))
        nn.init.xavier_uniform_(self.prototypes.view(-1, model.dim))
        self.exchange = exchange
        self.weights = {
            "reconstruction": float(reconstruction != "none"),
            "concentration": concentration,
            "area": area,
            "consistency": consistency,
            "masks": masks,
            "anchor": anchor,
        }
        self.beginning = start
        self.first: FirstParts | None = None
        self.alpha, self.background_area = alpha, background_area
        self.degrees = degrees

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> Examples:
        return read_part_images(folder, options, config.size, seed=seed)

    def prepare(self, folder: str | Path, options: Any, examples: Examples) -> None:
        """Start the model with parts, if the task says so; see :func:`partzoo.train.first_parts.started`."""
        self.first = started(self.model, options, self.weights, self.beginning, examples)
        if self.first is not None:
            self.prototypes.data[0] = torch.eye(self.model.dim)[1 : 1 + self.model.config.parts]

    def train(self, mode: bool = True) -> PartFormerTask:
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
        pixels = random_flip(pixels.float(), generator)
        turn: dict[str, Any] = {"degrees": self.degrees, "max_degrees": 2 * self.degrees, "generator": generator}
        views = [random_similarity(pixels, **turn) for _ in range(2)]
        first, second = (self.model.preprocess.normalize(view[:, :3]) for view in views)
        masks = torch.cat([view[:, 3:] for view in views]) / 255 if pixels.shape[1] > 3 else None
        return self.losses(first, second, labels if several else None, masks)

    def losses(
        self,
        first: Tensor,
        second: Tensor,
        classes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of PartFormer's loss (equation 9), each averaged over both directions.

        Args:
            first, second: normalized views of the same images, ``(B, 3, S, S)``.
            classes: ``(B,)`` int64, classes of the images, for a model with parts for each class.
            masks: ``(2 B, 1, S, S)`` probabilities of the foreground in the first and the second views, or None.

        Returns:
            ``"loss"``, the weighted sum; each term whose weight is not 0; and, for the log, ``"background"``, the share
            of the background.
        """
        model = self.model
        views, classes = torch.cat([first, second]), None if classes is None else classes.repeat(2)
        # With parts exchanged between the views, a part must describe what both have in common.
        parts = model.transformer(model.view(views), classes)
        parts = parts.roll(len(first), dims=0) if self.exchange else parts
        encoded = [model.encoded(view) for view in (first, second)]
        features = torch.cat([model.compress(each) for each in encoded])  # separately, for batch statistics
        maps = model.match(parts, features)
        compute = {
            "reconstruction": lambda: self._difference(model.decode(maps, parts), model.view(views)),
            "concentration": lambda: concentration_loss(maps[:, 1:]),
            "area": lambda: area_loss(maps if self.background_area else maps[:, 1:], self.alpha),
            "consistency": lambda: consistency_loss(parts[:, 1:], self.prototypes[0 if classes is None else classes]),
        }
        if masks is not None:
            compute["masks"] = lambda: mask_loss(maps, masks)
        if self.first is not None:
            labels = self.first.labels(torch.cat(encoded))
            compute["anchor"] = lambda: anchor_loss(maps, labels)
        terms = {name: term() for name, term in compute.items() if self.weights[name]}
        loss = total(self.weights[name] * term for name, term in terms.items())
        return {"loss": loss} | terms | {"background": maps[:, 0].mean().detach()}

    def _difference(self, found: Tensor, view: Tensor) -> Tensor:
        found = found.float()
        height, width = found.shape[-2:]
        target = adaptive_avg_pool2d(view, (height, width))
        if self.network is None:
            return mse_loss(found, target)
        with torch.no_grad():
            wanted = perceptual_levels(self.network, target, self.model.preprocess)
        levels = perceptual_levels(self.network, found, self.model.preprocess)
        return perceptual_loss(levels, wanted, self.network_weights)
