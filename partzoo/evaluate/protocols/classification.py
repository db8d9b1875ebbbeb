"""Protocols that ask frozen features for the class of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partzoo.train.data import PictureSet

# One linear layer, Adam at a constant 1e-3, no feature scaling, accuracy after the last epoch.
LINEAR_PROBE = {"epochs": 100, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"}


@dataclass(frozen=True)
class ClassProtocol:
    """Classes of pictures, by features that were learned elsewhere.

    Attributes:
        name: as ``partzoo eval --protocol`` takes it.
        load: ``(folder, split, limit)`` -> pictures with labels; ``limit`` is None or at most so many, a fair sample.
        classes: how many there are.
        side: height and width of the data's own pictures; a model sees them resized to its own size and normalized
            its own way.
        source: paper and section, or page, that data and rules are from.
        rules: the same rules in a few sentences, for the docs.
        get: what to download, and how the folder must look.
        train, test: the splits that probes are fitted on and figures reported on.
        probe: settings of the papers' trained probe, for :func:`partzoo.evaluate.linear.sgd_probe`.
    """

    name: str
    load: Callable[[Path, str, int | None], PictureSet]
    classes: int
    side: int
    source: str
    rules: str
    get: str
    train: str = "train"
    test: str = "test"
    probe: dict[str, Any] = field(default_factory=lambda: dict(LINEAR_PROBE))
