"""PartFormer's training: two views of a picture, each reconstructed with the other's part representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from partzoo.errors import UsageError
from partzoo.loading import load
from partzoo.models.partformer import PartFormer, PartFormerConfig
from partzoo.train.augment import random_flip, random_similarity
from partzoo.train.loop import Task
from partzoo.train.losses.partformer import area_loss, concentration_loss, consistency_loss, perceptual_loss


class PartFormerTask(Task):
    """Dual representation alignment (PartFormer, sections 3.1 to 3.3; equation 9).

    Args:
        model: what is trained; of a frozen encoder, the pretrained weights are brought.
        exchange: reconstruct each view with the other's part representations (off: table 7).
        reconstruction: compare features of ``network``, or pixels (table 10).
        network: encoder whose features are compared, all levels of it.
        network_weights: of its levels; None divides each by its targets' mean activation.
        concentration, area, consistency: weights of the losses; 0 leaves one out (table 6).
        alpha: area in cells at which the area loss is one half (table 9).
        background_area: count the background among the parts that should not vanish, as in the paper's equation 6;
            the published code does so for several classes only.
        degrees: standard deviation of the views' rotation; it is cut at twice as much.
    """

    CONFIG = PartFormerConfig

    def __init__(
        self,
        model: PartFormer,
        *,
        exchange: bool = True,
        reconstruction: Literal["perceptual", "mse"] = "perceptual",
        network: str = "patchresnet14.tin",
        network_weights: Sequence[float] | None = None,
        concentration: float = 0.3,
        area: float = 0.5,
        consistency: float = 0.01,
        alpha: float = 2.0,
        background_area: bool = False,
        degrees: float = 15.0,
    ) -> None:
        super().__init__()
        if reconstruction not in ("perceptual", "mse"):
            raise UsageError(f"reconstruction={reconstruction!r}: it is 'perceptual' or 'mse'.")
        self.model = model
        if model.frozen:
            model.encoder = load(model.config.encoder, device="cpu", dtype="float32")
        self.network = load(network, device="cpu", dtype="float32") if reconstruction == "perceptual" else None
        self.network_weights = network_weights
        classes = max(model.config.classes, 1)
        self.prototypes = nn.Parameter(torch.empty(classes, model.config.parts, model.dim))
        nn.init.xavier_uniform_(self.prototypes.view(-1, model.dim))
        self.exchange = exchange
        self.weights = {"concentration": concentration, "area": area, "consistency": consistency}
        self.alpha, self.background_area = alpha, background_area
        self.degrees = degrees

    def train(self, mode: bool = True) -> PartFormerTask:
        super().train(mode)
        if self.network is not None:
            self.network.eval()
        return self

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        pixels = random_flip(pixels.float(), generator)
        turn = {"degrees": self.degrees, "max_degrees": 2 * self.degrees, "generator": generator}
        views = [self.model.preprocess.normalize(random_similarity(pixels, **turn)) for _ in range(2)]
        return self.losses(*views, labels if self.model.config.classes else None)

    def losses(self, first: Tensor, second: Tensor, classes: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of equation 9, each the mean of both directions, for two normalized views ``(B, 3, S, S)``.

        ``"loss"`` is their weighted sum; ``"background"``, the share of the background, is for the log.
        """
        model = self.model
        seen = [model.view(x) for x in (first, second)]
        parts = [model.transformer(x, classes) for x in seen]
        features = [model.features(x) for x in (first, second)]
        prototypes = self.prototypes[0 if classes is None else classes]
        directions = []
        for target, at in enumerate(features):
            looks = parts[1 - target if self.exchange else target]
            maps = model.match(looks, at)
            directions.append(
                {
                    "reconstruction": self._difference(model.decode(maps, looks), seen[target]),
                    "concentration": concentration_loss(maps[:, 1:]),
                    "area": area_loss(maps if self.background_area else maps[:, 1:], self.alpha),
                    "consistency": consistency_loss(looks[:, 1:], prototypes),
                    "background": maps[:, 0].mean().detach(),
                }
            )
        terms = {name: (term + directions[1][name]) / 2 for name, term in directions[0].items()}
        return {"loss": terms["reconstruction"] + sum(w * terms[name] for name, w in self.weights.items())} | terms

    def _difference(self, found: Tensor, view: Tensor) -> Tensor:
        target = adaptive_avg_pool2d(view, found.shape[-2:])
        if self.network is None:
            return mse_loss(found.float(), target)
        with torch.no_grad():
            wanted = self.network.forward_intermediates(target)
        return perceptual_loss(self.network.forward_intermediates(found), wanted, self.network_weights)
