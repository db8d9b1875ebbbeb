"""Train a foreground model on given masks, or on masks predicted by a teacher model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.models.foreground import ForegroundConfig, ForegroundModel
from partzoo.models.loading import build, load
from partzoo.models.registry import Architecture
from partzoo.train.augmentation.masked import random_colours, random_view
from partzoo.train.losses.foreground import pyramid_loss
from partzoo.train.masked_images import MaskedImages, MaskedOptions, read_masked
from partzoo.train.tasks.base import Task

STORED = 320  # side in pixels of the squares that examples are stored as
SIZES = (192, 224, 224, 256)  # sides of the views, one drawn for each step; multiples of 32
AVERAGED = 0.998  # share of the averaged weights that a step keeps, after the first steps


class ForegroundTask(Task):
    """A task that trains on random views of images and their masks; the encoder's first stages and norms are fixed.

    ``student`` is the network that the steps change; ``model``, which is saved, has the moving average of its weights.

    Args:
        model: model to train.
        frozen: number of the encoder's first stages that, with the stem, are not trained.
        encoder_rate: learning rate of the encoder, as a share of the pyramid's.
        teacher_weight: weight of an example whose mask was predicted by a teacher.
    """

    METHOD = "foreground"
    RECIPE = "foreground-lite0.masks"
    CONFIG = ForegroundConfig
    DATA = MaskedOptions
    SHARDS = False  # the average of the weights is moved in the forward pass, where they are gathered copies
    model: ForegroundModel
    steps: Tensor

    def __init__(
        self,
        model: ForegroundModel,
        *,
        frozen: int = 2,
        encoder_rate: float = 0.15,
        teacher_weight: float = 0.7,
    ) -> None:
        super().__init__()
        self.student = model.requires_grad_(True)
        still = [model.encoder.conv_stem, model.encoder.bn1, *model.encoder.blocks[:frozen]]
        for part in still:
            part.requires_grad_(False)
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.model.architecture = model.architecture
        self.encoder_rate, self.teacher_weight = encoder_rate, teacher_weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.examples: MaskedImages | None = None

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> MaskedImages:
        return read_masked(folder, options, STORED)

    @classmethod
    def start(cls, entry: Architecture, config: ForegroundConfig, parent: str | None) -> ForegroundModel:
        """Return a new model with the weights of its parent, which is a foreground model or an encoder."""
        model = cast(ForegroundModel, build(entry, config))
        if parent:
            state = load(parent, device="cpu", dtype="float32").state_dict()
            heir = model if "heads.0.weight" in state else model.encoder
            heir.load_state_dict({name: state[name] for name in heir.state_dict()})
        return model

    def prepare(self, folder: str | Path, options: Any, examples: MaskedImages) -> None:
        """Keep the examples: each step needs their aspect ratios, and whether a teacher predicted their masks."""
        self.examples = examples

    def rate_factor(self, name: str) -> float:
        return self.encoder_rate if name.startswith("student.encoder.") else 1.0

    def train(self, mode: bool = True) -> ForegroundTask:
        super().train(mode)
        self.student.encoder.eval()  # the statistics of small batches are worse than the parent's
        self.model.eval()
        return self

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        self._average()
        examples = self.examples
        assert examples is not None and labels is not None  # prepare comes before fit; labels are the examples' numbers
        aspects, taught = examples.aspects.to(labels.device)[labels], examples.taught.to(labels.device)[labels]
        side = SIZES[int(torch.randint(len(SIZES), (), generator=generator, device=pixels.device))]
        views = random_view(pixels.float() / 255, aspects, side, generator)
        images = random_colours(views[:, :3], generator)
        target = interpolate(views[:, 3:], scale_factor=0.5, mode="area")
        weights = torch.where(taught, self.teacher_weight, 1.0)
        levels = self.student.logits(self.student.preprocess.normalize(images * 255))
        return {"loss": pyramid_loss([level.float() for level in levels], target, weights)}

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the trained ones, further in the first steps."""
        self.steps += 1
        keep = min(AVERAGED, float((1 + self.steps) / (10 + self.steps)))
        for mine, theirs in zip(self.model.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - keep)
        for kept, trained in zip(self.model.buffers(), self.student.buffers(), strict=True):
            kept.lerp_(trained, 1 - keep) if kept.is_floating_point() else kept.copy_(trained)
