"""The base class of tasks: what the training driver and its loop ask of a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from partzoo.data.image_sets import Examples
from partzoo.models.base import Model
from partzoo.models.loading import build
from partzoo.models.registry import Architecture
from partzoo.system.device import Device
from partzoo.train import loop
from partzoo.train.datasets import DataOptions, read_images


class Task(nn.Module):
    """A model together with its training objective.

    A subclass needs ``CONFIG``, a constructor whose options are named arguments, and ``forward``; the rest has
    defaults. :func:`partzoo.train.run.train` calls the other methods in the order in which they stand here.

    Attributes:
        METHOD: name of the method in ``partzoo train``; empty where a task is used from Python alone.
        RECIPE: recipe to train by where none is named.
        CONFIG: configuration class of the architectures that the method trains.
        DATA: dataclass that says how the method's data is read.
        START: argument of ``train`` that names the model which training starts from, in place of the recipe's parent;
            empty where only a recipe can name one.
        NEEDS_LABELS: whether every image needs a class; the model's configuration then gets their number.
        UNDECAYED: endings of the names of parameters that ``LoopOptions.decay`` counts as vectors.
        ENDS: names of the first and last modules. Muon leaves them to AdamW, as its authors advise.
        model: what is trained and saved.
    """

    METHOD: ClassVar[str] = ""
    RECIPE: ClassVar[str] = ""
    CONFIG: ClassVar[type]
    DATA: ClassVar[type] = DataOptions
    START: ClassVar[Literal["", "model", "grow_from", "parent"]] = ""
    NEEDS_LABELS: ClassVar[bool] = False
    UNDECAYED: ClassVar[tuple[str, ...]] = ()
    ENDS: ClassVar[tuple[str, ...]] = ()
    model: Model

    @classmethod
    def inherit(cls, parent: str) -> tuple[str, dict[str, Any]] | None:
        """Architecture and configuration values that a parent dictates; None where it dictates none."""
        return None

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> Examples:
        """Read the training data.

        Args:
            folder: where the data is.
            options: how it is read, an instance of ``DATA``.
            config: configuration of the model, as far as it does not depend on the data.
            seed: random seed of the sampling from the data.
        """
        return read_images(folder, options, config.size, seed=seed)

    @classmethod
    def config_from(cls, examples: Examples) -> dict[str, Any]:
        """Configuration values of the model that the data dictates."""
        return {"classes": len(examples.classes)} if cls.NEEDS_LABELS else {}

    @classmethod
    def start(cls, entry: Architecture, config: Any, parent: str | None) -> Any:
        """The model that training starts with; by default random weights, whatever the parent."""
        return build(entry, config)

    def prepare(self, folder: str | Path, options: Any, examples: Any) -> None:
        """Get ready for training on ``examples``, which :meth:`read` read from ``folder`` by ``options``."""

    def fit(
        self,
        examples: Any,
        options: loop.LoopOptions,
        out: str | Path,
        *,
        resume: bool = False,
        progress: bool = True,
        device: Device = None,
    ) -> loop.Progress:
        """Train; by default in :func:`partzoo.train.loop.fit`, whose arguments these are."""
        return loop.fit(self, examples, options, out, resume=resume, progress=progress, device=device)

    def finish(self, out: str | Path) -> None:
        """Measure the trained model, once the budget is spent, and write figures to the run's folder."""

    def rate_factor(self, name: str) -> float:
        """Factor of the learning rate for the parameter of this name."""
        return 1.0

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            pixels: uint8 images ``(B, 3, S, S)``, or whatever else :meth:`read` brings.
            labels: ``(B,)`` int64, or None.
            done: part of the budget that is spent, 0..1.
            generator: source of random numbers on the images' device.

        Returns:
            The terms of the loss; ``"loss"`` is minimized, the others are logged.
        """
        raise NotImplementedError
