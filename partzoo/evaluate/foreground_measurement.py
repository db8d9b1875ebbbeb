"""Evaluate a model under a foreground protocol."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from partzoo.discovery.factory import default_size, is_foreground_model
from partzoo.discovery.refine import follow_edges, strips
from partzoo.discovery.segmentation import segment
from partzoo.discovery.views import view_image
from partzoo.errors import require
from partzoo.evaluate.floors import BOX
from partzoo.evaluate.foreground import Scorer, box_scorer, finder_scorer, foreground_figures
from partzoo.evaluate.measurement import Measurement, Request, Run, digest
from partzoo.evaluate.parts.measurement import foreground_identity, requested_finder
from partzoo.evaluate.protocols.masks import ForegroundProtocol
from partzoo.images.opening import OpenedImage
from partzoo.models.folding import folded
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver


class ForegroundMeasurement(Measurement):
    """An evaluation of the foregrounds that a foreground model, an encoder with a method, or a floor finds."""

    OPTIONS = ("background", "size", "refine")

    def __init__(self, rules: ForegroundProtocol, request: Request) -> None:
        for module in ("scipy.ndimage", "sklearn.metrics"):  # the latter is needed at the end alone
            require(module, "eval")
        self.rules, self.request = rules, request
        self.weights, self.scorer, self.identity = _scorer(request)

    @staticmethod
    def reported_split(rules: ForegroundProtocol) -> str:
        return rules.split

    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        asked = self.request
        return foreground_figures(
            self.scorer, self.rules, asked.data, split=asked.split, limit=asked.limit, progress=progress,
            pass_over=pass_over,
        )  # fmt: skip


def _scorer(request: Request) -> tuple[str, Scorer, dict[str, str]]:
    """Return the digest of the model that finds the foreground, its scorer, and the other settings that identify it."""
    if request.model == BOX:
        return "", box_scorer, {}
    if is_foreground_model(request.model):
        weights = digest(load(request.model, device="cpu", dtype="float32"))
        network = cast(ForegroundModel, folded(load(request.model, device=request.device, dtype="float32")))
        return weights, model_scorer(network, request.size, request.refine), {}
    finder = requested_finder(request)
    weights = digest(finder.model)
    folded(finder.model)
    return weights, finder_scorer(finder), foreground_identity(finder)


def model_scorer(model: ForegroundModel, size: int | None = None, refine: bool = True) -> Scorer:
    """Return a scorer that runs a foreground model as :func:`partzoo.discover_parts` does, but without an encoder.

    Args:
        model: the foreground model.
        size: longer side, in pixels, of the image that guides refinement; by default the size of the model's encoder.
        refine: whether to align the foreground with the image's edges.
    """
    side = size or default_size(model.encoder)

    @torch.inference_mode()
    def score(pixels: np.ndarray) -> tuple[np.ndarray, float]:
        image = OpenedImage(pixels)
        view = view_image(image, model, side)
        found = segment(image, view, (), "", model, model)
        maps = follow_edges(found.score[None], view.pixels) if refine else found.score[None]
        return np.concatenate([strip[0].numpy() for strip in strips(maps, image.size)]), found.quality

    return score
