"""Train encoders that have a classifier on class labels."""

from __future__ import annotations

from dataclasses import fields
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from partzoo.models.base import Model
from partzoo.models.registry import Architecture
from partzoo.train.augmentation.geometry import random_crop_flip
from partzoo.train.tasks.base import Task


class Classifier(Protocol):
    """The interface of an encoder with a classifier, whose configuration has ``classes`` and ``size``."""

    def classify(self, x: Tensor) -> Tensor:
        """Compute the logits ``(B, classes)`` of normalized images ``(B, 3, H, W)``."""


class ClassifyTask(Task):
    """A task that trains on class labels, with label smoothing and randomly cropped and flipped images.

    Args:
        model: encoder to train, with the method of :class:`Classifier`.
        smoothing: label smoothing.
        small_side, small_until: images have ``small_side`` pixels until this share of the budget is spent, which makes
            the early steps cheaper, and afterwards the model's size.
    """

    METHOD = "classify"
    TITLE = "classifier"
    RECIPE = "patchresnet14.tin"
    NEEDS_LABELS = True

    def __init__(self, model: Model, *, smoothing: float = 0.1, small_side: int = 48, small_until: float = 0.6) -> None:
        super().__init__()
        self.model = model
        self.smoothing = smoothing
        self.small_side, self.small_until = small_side, small_until

    @classmethod
    def trains(cls, entry: Architecture) -> bool:
        return entry.family == "encoder" and {"classes", "size"} <= {each.name for each in fields(entry.config)}

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        preprocess = self.model.preprocess
        side = self.small_side if done < self.small_until else preprocess.size
        x = random_crop_flip(preprocess.normalize(pixels), side, generator=generator)
        assert labels is not None  # guaranteed by NEEDS_LABELS
        logits = cast(Classifier, self.model).classify(x.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == labels).float().mean()}
