"""Pretrain PART to predict the relative positions of off-grid patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError
from partzoo.models.layers import train_fast
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.part.sampling import SAMPLINGS, Sampling, sample
from partzoo.models.registry import Architecture
from partzoo.train.growth.grow import grown
from partzoo.train.losses.part import relative_position_loss
from partzoo.train.part_images import PartOptions, read_part_images
from partzoo.train.tasks.base import Task


class PartTask(Task):
    """A task that trains PART to predict relative positions (section 4) and sizes (section 5.1) of random patches.

    Sizes are predicted if the model's configuration has four targets.

    Args:
        model: PART model with encoder and relative encoder.
        pairs: number of ordered pairs of patches for each image; 0 means all of them (PART, figure 8).
        sampling: distribution of the patches; see :func:`partzoo.models.part.sampling.sample`.
        focus: where the centres of the patches lie: anywhere in the ``"image"``, on the ``"object"`` or on the
            ``"background"``. The latter two have the density of the foreground that ``data.foreground`` predicts, or
            of its complement, which the paper's conclusion suggests, and are not for ``sampling="on-grid"``.

    Raises:
        UsageError: the sampling or the focus is unknown, or the number of pairs is negative.
    """

    METHOD = "part"
    TITLE = "PART"
    RECIPE = "part-vitn8.tin"
    CONFIG = PartConfig
    DATA = PartOptions
    START = "grow_from"
    ENDS = ("patch_embed", "relative_encoder")
    model: Part

    def __init__(
        self,
        model: Part,
        *,
        pairs: int = 2048,
        sampling: Sampling = "integer",
        focus: Literal["image", "object", "background"] = "image",
    ) -> None:
        super().__init__()
        if sampling not in SAMPLINGS or pairs < 0:
            raise UsageError(
                f"sampling={sampling!r}, pairs={pairs}: sampling must be one of {', '.join(SAMPLINGS)}, and "
                "pairs 0 or more."
            )
        if focus not in ("image", "object", "background"):
            raise UsageError(f"focus={focus!r} must be 'image', 'object' or 'background'.")
        if focus != "image" and sampling == "on-grid":
            raise UsageError(f"focus={focus!r} cannot move the patches of sampling='on-grid'. Choose another sampling.")
        self.model = model
        train_fast(model.blocks, (model.config.size // model.patch) ** 2)
        self.pairs = pairs
        self.sampling, self.focus = sampling, focus

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> Examples:
        return read_part_images(folder, options, config.size, seed=seed)

    def prepare(self, folder: str | Path, options: Any, examples: Any) -> None:
        """Raise a UsageError if the focus and the foreground of the images do not go together."""
        if (self.focus != "image") != bool(options.foreground):
            needs = f"focus={self.focus!r} needs data.foreground, the model that predicts the foreground."
            raise UsageError(
                needs if self.focus != "image" else "data.foreground needs focus='object' or 'background'."
            )

    @classmethod
    def start(cls, entry: Architecture, config: PartConfig, parent: str | None) -> Part:
        """Return a model with random weights, or with weights grown from a smaller model."""
        return grown(parent, entry, config) if parent else super().start(entry, config, parent)

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        sizes = self.model.config.targets == 4
        drawn = sample(
            pixels[:, :3], self.model.patch, self.sampling, pairs=self.pairs, sizes=sizes,
            weights=self._density(pixels), generator=generator,
        )  # fmt: skip
        patches = self.model.preprocess.normalize(drawn.patches.flatten(0, 1))
        predicted = self.model.relate(patches.unflatten(0, drawn.patches.shape[:2]), drawn.pairs)
        terms = {"loss": relative_position_loss(predicted, drawn.targets)}
        if sizes:
            terms["positions"] = relative_position_loss(predicted[..., :2], drawn.targets[..., :2])
            terms["sizes"] = relative_position_loss(predicted[..., 2:], drawn.targets[..., 2:])
        return terms

    def _density(self, pixels: Tensor) -> Tensor | None:
        """Return the density ``(B, H, W)`` of the patches' centres, from the fourth channel; None if it is even."""
        if self.focus == "image":
            return None
        return pixels[:, 3] if self.focus == "object" else 255 - pixels[:, 3]
