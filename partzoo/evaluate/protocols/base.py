"""Protocols of parts: where the data lies, how an image is framed, which rules the figures follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from partzoo.data.reading import Example


@dataclass(frozen=True)
class LandmarkError:
    """How a protocol measures its normalized mean error.

    Attributes:
        scale: the length by which errors are divided: ``"inter-ocular"`` (points 0 and 1), ``"box"`` (x by the box's
            width and y by its height), ``"edge"`` (the frame's side) or ``"diagonal"`` (the box's).
        centroids: ``"hard"`` (mean place of the pixels that a part wins; an absent part takes its mean over the
            fitting split) or ``"soft"`` (mean place weighted by the part's probability).
        standardize: z-score features and targets on the fitting split and fit without intercept, as the published
            code does; otherwise least squares with intercept.
        active: a part whose highest probability does not exceed this value counts as absent; None: no part does.
    """

    scale: Literal["inter-ocular", "box", "edge", "diagonal"]
    centroids: Literal["hard", "soft"] = "hard"
    standardize: bool = False
    active: float | None = None


@dataclass(frozen=True)
class PartProtocol:
    """Parts against landmarks or masks.

    Attributes:
        name: as ``partzoo eval --protocol`` takes it.
        load: folder and split -> a sequence of examples, read when asked for.
        fit, report: the splits that regressions are fitted on and figures reported on; ``dev`` is for choices.
        truths: number of true labels: landmarks, or classes of the mask with the background.
        grid: side of the square grid that maps are read on (the papers' 128); None: the frame's own pixels.
        readings: name -> function ``(L, 2) -> (M, 2)`` that chooses landmarks; its figures get the name as suffix.
        error: rules of the normalized mean error, of the landmarks that the first reading takes; None where truth is
            masks.
        background: true label of the background in masks, which the FG- figures leave out.
        mirrored: also count how many labelled pixels keep their part in the mirror image.
        classes: number of classes, by ``Example.category``, in which parts are counted apart; 1 counts them together.
        fit_images: number of images of ``fit`` to use; None: all.
        source: paper and section, or code, that the rules are from.
        rules: the same rules in a few sentences, for the docs.
        get: what to download, and how the folder must look.
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
    fit_images: int | None = None
