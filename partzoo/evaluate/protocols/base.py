"""What a protocol is: where its data lies, how an image is framed, which rules its figures follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from partzoo.data.reading import Example


@dataclass(frozen=True)
class LandmarkError:
    """How a protocol takes its normalized mean error.

    Attributes:
        scale: the length it is divided by: ``"inter-ocular"`` (points 0 and 1), ``"box"`` (x by the box's width and
            y by its height), ``"edge"`` (the frame's side) or ``"diagonal"`` (the box's).
        centroids: ``"hard"`` (mean place of the pixels that a part wins; an absent part takes its mean over the
            fitting split) or ``"soft"`` (mean place weighted by the part's probability).
        standardize: z-score features and targets on the fitting split and fit without intercept, as the published
            code does; otherwise least squares with intercept.
        active: a part whose highest probability does not exceed it counts as absent; None: none does.
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
        truths: how many true labels there are: landmarks, or classes of the mask with the background.
        grid: side of the square grid that maps are read on (the papers' 128); None: the frame's own pixels.
        readings: name -> the landmarks it takes ``(L, 2) -> (M, 2)``; figures of each get the name as suffix.
        error: rules of the normalized mean error, of the landmarks that the first reading takes; None where truth is
            masks.
        background: true label of the background in masks, which the FG- figures leave out.
        mirrored: also count how many labelled pixels keep their part in the mirror image.
        classes: how many classes parts are counted in apart, by ``Example.category``; 1: in all together.
        fit_images: how many images of ``fit`` are used; None: all.
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
