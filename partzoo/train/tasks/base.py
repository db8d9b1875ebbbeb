"""The base class of training tasks, with all methods that the training driver and its loop call."""

from __future__ import annotations

from collections.abc import Callable
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

    A subclass needs ``CONFIG`` or :meth:`trains`, a constructor whose options are keyword arguments, and ``forward``;
    the rest has defaults. :func:`partzoo.train.run.train` calls the other methods in the order in which they are
    defined here.

    Attributes:
        METHOD: name of the method in ``partzoo train``; empty if the task is only used from Python.
        TITLE: name of the method in the README; empty for the name of the architecture's family.
        RECIPE: recipe to train with if none is named.
        CONFIG: configuration class of the architectures that the method trains.
        DATA: dataclass of options for reading the method's data.
        START: argument of ``train`` that names the model which training starts from, instead of the recipe's parent;
            empty if only a recipe can name one.
        NEEDS_LABELS: whether every image needs a class; the model's configuration then gets their number.
        UNDECAYED: endings of the names of parameters that ``LoopOptions.decay`` counts as vectors.
        ENDS: names of the first and last modules. Muon leaves them to AdamW, as its authors advise.
        SHARDS: whether the processes of a training can share the parameters (``LoopOptions.shard``).
        model: model that is trained and saved.
    """

    METHOD: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    RECIPE: ClassVar[str] = ""
    CONFIG: ClassVar[type]
    DATA: ClassVar[type] = DataOptions
    START: ClassVar[Literal["", "model", "grow_from", "parent"]] = ""
    NEEDS_LABELS: ClassVar[bool] = False
    UNDECAYED: ClassVar[tuple[str, ...]] = ()
    ENDS: ClassVar[tuple[str, ...]] = ()
    SHARDS: ClassVar[bool] = True
    model: Model

    @classmethod
    def trains(cls, entry: Architecture) -> bool:
        """Return whether the method trains this architecture."""
        return type(entry.config) is cls.CONFIG

    @classmethod
    def inherit(cls, parent: str) -> tuple[str, dict[str, Any]] | None:
        """Return the architecture and the configuration values that a parent dictates, or None if it dictates none."""
        return None

    @staticmethod
    def read(folder: str | Path, options: Any, config: Any, seed: int) -> Examples:
        """Read the training data.

        Args:
            folder: folder of the data.
            options: options for reading, an instance of ``DATA``.
            config: configuration of the model, as far as it does not depend on the data.
            seed: random seed of the sampling from the data.
        """
        return read_images(folder, options, config.size, seed=seed)

    @classmethod
    def config_from(cls, examples: Examples) -> dict[str, Any]:
        """Return the configuration values of the model that the data dictates."""
        return {"classes": len(examples.classes)} if cls.NEEDS_LABELS else {}

    @classmethod
    def start(cls, entry: Architecture, config: Any, parent: str | None) -> Any:
        """Return the model that training starts with; by default it has random weights, even if there is a parent."""
        return build(entry, config)

    def prepare(self, folder: str | Path, options: Any, examples: Any) -> None:
        """Prepare for training on ``examples``, which :meth:`read` read from ``folder`` with ``options``."""

    def fit(
        self,
        examples: Any,
        options: loop.LoopOptions,
        out: str | Path,
        *,
        resume: bool = False,
        progress: bool = True,
        record: Callable[[], None] | None = None,
        device: Device = None,
    ) -> loop.Progress:
        """Train, by default with :func:`partzoo.train.loop.fit`, which has the same arguments."""
        return loop.fit(self, examples, options, out, resume=resume, progress=progress, record=record, device=device)

    def finish(self, out: str | Path) -> None:
        """Measure the trained model, once the budget is spent, and write its figures to the run's folder."""

    def rate_factor(self, name: str) -> float:
        """Return the factor by which the learning rate of the parameter with this name is multiplied."""
        return 1.0

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        With several processes, each computes the loss of its share of the images, in a
        :class:`partzoo.system.ranks.SharedBatch`; the mean over the processes must equal the loss of the whole batch. A
        term that combines several images must use the functions in :mod:`partzoo.system.ranks`.

        Args:
            pixels: uint8 images ``(B, 3, S, S)``, or batches of whatever data :meth:`read` returns.
            labels: ``(B,)`` int64, or None.
            done: share of the budget that is spent, 0..1.
            generator: source of random numbers on the images' device.

        Returns:
            The terms of the loss; ``"loss"`` is minimized, the others are logged.
        """
        raise NotImplementedError
