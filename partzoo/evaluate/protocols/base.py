"""Base classes for part protocols: data layout, image framing and how each figure is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from partzoo.data.reading import Example


@dataclass(frozen=True)
class LandmarkError:
    """The rules that define how a protocol computes its normalized mean error.

    Attributes:
        scale: length that divides the errors: ``"inter-ocular"`` (points 0 and 1), ``"box"`` (x by the box's
            width and y by its height), ``"edge"`` (the frame's side) or ``"diagonal"`` (the box's).
        centroids: ``"hard"`` (mean position of the pixels that a part wins; an absent part takes its mean over the
            fitting split) or ``"soft"`` (mean position weighted by the part's probability).
        standardize: whether to z-score features and targets on the fitting split and fit without intercept, as the
            published code does; otherwise least squares with intercept.
        active: probability that a part must exceed somewhere to count as present; None counts all as present.
    """

    scale: Literal["inter-ocular", "box", "edge", "diagonal"]
    centroids: Literal["hard", "soft"] = "hard"
    standardize: bool = False
    active: float | None = None


@dataclass(frozen=True)
class PartProtocol:
    """A protocol that compares parts with landmarks or masks.

    Attributes:
        name: name for ``partzoo eval --protocol``.
        load: function from folder and split to a sequence of examples that are read on demand.
        fit, report: splits for fitting regressions and for reporting figures; ``dev`` is for choosing options.
        truths: number of true labels: landmarks, or classes of the mask with the background.
        grid: side of the square grid on which maps are compared (128 in the papers); None uses the frame's pixels.
        readings: functions ``(L, 2) -> (M, 2)`` by name that choose landmarks; their figures get the name as suffix.
        error: rules of the normalized mean error, for the landmarks of the first reading; None if the ground truth is
            masks.
        background: true label of the background in masks, which the FG- figures leave out.
        mirrored: whether to also count how many labelled pixels keep their part in the mirror image.
        classes: number of classes, by ``Example.category``, whose parts are counted separately; 1 counts them together.
        of_category: function from examples and a class, by its name or number, to the examples of this class alone;
            None if the protocol cannot be restricted to one class.
        fit_images: number of images of ``fit`` to use; None uses all.
        source: paper and section, or code, that defines the rules.
        rules: the same rules in a few sentences, for the docs.
        get: instructions for the download, and the expected layout of the folder.
    """

    name: str
    load: Callable[[Path, str], Sequence[Example]]
    truths: int
    source: str
    rules: str
    get: str
    fit: str = "train"
    report: str = "test"
    dev: str | None = None
    grid: int | None = None
    readings: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=lambda: {"": np.asarray})
    error: LandmarkError | None = None
    background: int | None = None
    mirrored: bool = False
    classes: int = 1
    of_category: Callable[[Any, str], Sequence[Example]] | None = None
    fit_images: int | None = None
