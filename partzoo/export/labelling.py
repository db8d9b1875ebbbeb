"""The second half of discovery as a program: from descriptors and the centres of parts to labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partzoo.discovery.clustered import SHARPNESS, ClusteredFinder
from partzoo.discovery.descriptors import Descriptors
from partzoo.discovery.labels import contest
from partzoo.discovery.refine import follow_edges
from partzoo.discovery.views import CELL
from partzoo.export.graphs import DescriptorGraph
from partzoo.export.resizing import int_of
from partzoo.tracing.graph import BATCH, Axis, Graph, Input, Output

CELLS, GRID, PARTS = (12, 18), (3, 5), 3  # sizes of the example that is traced
SIZE, ROWS = (51, 73), 17  # of its image, and how many of its rows are labelled


class LabelGraph(Graph):
    """What is left after clustering: outputs of :class:`DescriptorGraph` and centres to labels at the image's size.

    It labels the rows that it is asked for, so that a large image need not be labelled at once.

    Args:
        finder: finder whose descriptors were clustered.
    """

    task = "labels"
    facts: Mapping[str, Any] = {}

    def __init__(self, finder: ClusteredFinder) -> None:
        super().__init__()
        self.settings = finder.settings
        self.before = DescriptorGraph(finder).outputs
        self.outputs = {
            "labels": Output("0 for the background, otherwise the part, 1 to parts", ("batch", "labelled", "width")),
            "confidences": Output("how clearly each part stands out, as Parts.confidences", ("batch", "parts")),
        }

    def inputs(self) -> dict[str, Input]:
        generator = torch.Generator().manual_seed(0)
        channels = self.before["descriptors"].shape[1]
        layers = [f"layer{number}" for number in range(len(self.settings.layers))]

        def given(name: str) -> Input:
            about, shape = self.before[name].about, self.before[name].shape
            cells = {"foreground": CELLS, "pixels": [CELL * side for side in CELLS]}.get(name, GRID)
            sizes = [BATCH, *(size for size in shape if isinstance(size, int)), *cells]
            free = tuple(Axis(size) if isinstance(size, str) else size for size in shape)
            return Input(about, free, torch.rand(sizes, generator=generator))

        centres = torch.rand(PARTS, int(channels), generator=generator)
        return {
            **{name: given(name) for name in ("foreground", "pixels", "colour", "position")},
            "centres": Input("unit vectors, one for each part", (Axis("parts"), int(channels)), centres),
            "size": Input("height and width of the image, in pixels", (2,), torch.tensor(SIZE)),
            "rows": Input("numbers of the image's rows to label", (Axis("labelled"),), torch.arange(ROWS)),
            **{name: given(name) for name in layers},
        }

    def forward(
        self,
        foreground: Tensor,
        pixels: Tensor,
        colour: Tensor,
        position: Tensor,
        centres: Tensor,
        size: Tensor,
        rows: Tensor,
        layer0: Tensor,
        layer1: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        layers = (layer0,) if layer1 is None else (layer0, layer1)
        described = Descriptors(layers, colour, position, foreground.squeeze(1))
        cosines = described.similarities(centres, self.settings.weights)
        maps = torch.cat([foreground, (SHARPNESS * cosines).softmax(1)], dim=1)
        confidences = confidence(contest(maps))
        fine = follow_edges(maps, pixels) if self.settings.refine else maps
        height, width = size.unbind()
        across = torch.arange(int_of(width, 1))
        fine = along(along(fine, 2, rows, height), 3, across, width)
        inside, shares = fine[:, 0] >= 0.5, fine[:, 1:]
        return torch.where(inside, shares.argmax(1) + 1, 0).int(), confidences


def confidence(scores: Tensor) -> Tensor:
    """Compute ``Parts.confidences`` of each image, ``(B, K)``, from scores ``(B, K + 1, h, w)``."""
    scores = (scores / scores.sum(1, keepdim=True))[:, 1:]
    return scores.square().sum((2, 3)) / scores.sum((2, 3)).clamp(min=1e-6)


def along(maps: Tensor, dim: int, places: Tensor, length: Tensor) -> Tensor:
    """Upsample maps bilinearly in one dimension to ``length``, at some places of the result, as ``refine.strips``."""
    last = maps.shape[dim] - 1
    before = torch.scalar_tensor(maps.shape[dim], dtype=torch.float32)
    at = ((places + 0.5) * (before / length) - 0.5).clamp(min=0)
    lower = at.long().clamp(max=last)
    share = (at - lower).view([-1 if axis == dim else 1 for axis in range(maps.ndim)])
    return torch.lerp(maps.index_select(dim, lower), maps.index_select(dim, (lower + 1).clamp(max=last)), share)
