"""Evaluate a model's features under a classification protocol."""

from __future__ import annotations

from typing import cast

from partzoo.errors import UsageError
from partzoo.evaluate.floors import FLOORS, floor_encoder
from partzoo.evaluate.measurement import Measurement, Request, Run, digest
from partzoo.evaluate.probes.classes import classify_figures
from partzoo.evaluate.probes.patches import patch_figures
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.features import encoder_of
from partzoo.models.base import Encoder
from partzoo.models.loading import load
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver


class ClassMeasurement(Measurement):
    """An evaluation of an encoder's features of images alone or, with ``patches``, of images and their patches."""

    OPTIONS = ("patches", "augment")

    def __init__(self, rules: ClassProtocol, request: Request) -> None:
        if request.augment and request.patches is None:
            raise UsageError("augment=True is an option of probes on patches. Give patches, or leave it out.")
        if request.split not in (None, rules.test):
            raise UsageError(
                f"{rules.name} is fitted on {rules.train} and reported on {rules.test}, not on {request.split!r}. "
                "Leave split out."
            )
        self.rules, self.request = rules, request
        model, device = request.model, request.device
        if model in FLOORS:
            self.encoder = cast(Encoder, floor_encoder(model, device))
        else:
            self.encoder = cast(Encoder, encoder_of(load(model, device=device, dtype="float32")))
        self.weights, self.identity = digest(self.encoder), {"seeds": request.seeds}
        if request.patches is not None:
            self.identity |= {"patches": list(request.patches), "augment": request.augment}

    @staticmethod
    def reported_split(rules: ClassProtocol) -> str:
        return rules.test

    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        asked, seeds = self.request, range(self.request.seeds)
        if asked.patches is None:
            return classify_figures(
                self.encoder, self.rules, asked.data, seeds=seeds, limit=asked.limit, progress=progress,
                pass_over=pass_over,
            )  # fmt: skip
        return patch_figures(
            self.encoder, self.rules, asked.data, patches=asked.patches, augment=asked.augment, seeds=seeds,
            limit=asked.limit, progress=progress, pass_over=pass_over,
        )  # fmt: skip
