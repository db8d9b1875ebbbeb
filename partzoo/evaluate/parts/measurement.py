"""Evaluate a model under a part protocol."""

from __future__ import annotations

from dataclasses import replace

from partzoo.discovery.clustered import ClusteredFinder
from partzoo.discovery.factory import make_finder
from partzoo.discovery.finder import Finder
from partzoo.discovery.taught import TaughtFinder
from partzoo.errors import UsageError
from partzoo.evaluate.floors import FLOORS, floor_finder
from partzoo.evaluate.measurement import Measurement, Request, Run, digest
from partzoo.evaluate.parts.figures import part_figures
from partzoo.evaluate.protocols.base import PartProtocol
from partzoo.models.folding import folded
from partzoo.models.loading import load
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

PARTS = (4, 8, 16)  # numbers of parts to look for by default


class PartMeasurement(Measurement):
    """An evaluation of the parts that a model finds; see :func:`partzoo.evaluate.parts.figures.part_figures`."""

    OPTIONS = ("background", "size", "refine", "rotate", "category")

    def __init__(self, rules: PartProtocol, request: Request) -> None:
        self.rules, self.request = rules if request.category is None else of_category(rules, request.category), request
        self.finder = requested_finder(request)
        self.k = default_numbers(self.finder) if request.k is None else list(request.k)
        if None in self.k and not self.finder.learned:
            raise UsageError(f"k=None is for part models, and {request.model} is an encoder: name numbers of parts.")
        # The record names the weights as they are stored, but folding the batch norms changes them.
        self.weights = digest(self.finder.model)
        folded(self.finder.model)
        self.identity = {"k": self.k, "seeds": request.seeds} | foreground_identity(self.finder)

    @staticmethod
    def reported_split(rules: PartProtocol) -> str:
        return rules.report

    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        asked = self.request
        return part_figures(
            self.finder, self.rules, asked.data, k=self.k, seeds=range(asked.seeds), split=asked.split,
            limit=asked.limit, rotate=asked.rotate, progress=progress, pass_over=pass_over,
        )  # fmt: skip


def of_category(rules: PartProtocol, category: str) -> PartProtocol:
    """Return the rules of a protocol for the images of one class alone.

    Raises:
        UsageError: the protocol cannot be restricted to one class.
    """
    load, select = rules.load, rules.of_category
    if select is None:
        raise UsageError(f"category={category!r}: {rules.name} cannot be restricted to one class. Leave it out.")
    return replace(rules, load=lambda data, split: select(load(data, split), category))


def requested_finder(request: Request) -> Finder:
    """Make the finder of the model or floor that a request names."""
    background, size, device = request.background, request.size, request.device
    if request.model in FLOORS:
        finder = floor_finder(request.model, None if background == "auto" else background, size, device)
    else:
        finder = make_finder(load(request.model, device=device, dtype="float32"), background, size, device=device)
    return finder.with_settings(model=request.model, refine=request.refine)


def foreground_identity(finder: Finder | TaughtFinder) -> dict[str, str]:
    """Return the digest of a finder's foreground model, which a record must state in addition to the encoder's.

    It is empty if there is no such model.
    """
    if isinstance(finder, ClusteredFinder | TaughtFinder) and finder.network is not None:
        return {"foreground_sha256": digest(load(finder.settings.background, device="cpu", dtype="float32"))}
    return {}


def default_numbers(finder: Finder) -> list[int | None]:
    """Return the default numbers of parts: 4, 8 and 16; for a learned part model, its number and smaller ones."""
    if not finder.learned:
        return [*PARTS]
    return [*(k for k in PARTS if k < finder.own and not finder.classes), finder.own]
