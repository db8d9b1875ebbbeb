"""The programs that can be exported: modules whose inputs and outputs are tensors with names and free sizes.

They call the functions that the rest of partzoo calls, so that an exported program computes the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, normalize

from partzoo.discovery.cluster import APART, ITERATIONS, MORE, MOST, RESTARTS, SMALL, TOLERANCE
from partzoo.discovery.clustered import SHARPNESS, ClusteredFinder
from partzoo.discovery.colours import cielab
from partzoo.discovery.descriptors import Descriptors, describe
from partzoo.discovery.labels import contest, grouped
from partzoo.discovery.learned import LearnedFinder, joined
from partzoo.discovery.refine import finer, follow_edges, resize
from partzoo.discovery.taught import TaughtFinder, blocks_of, shares_of
from partzoo.discovery.views import CELL
from partzoo.discovery.vocabulary import Network, PartVocabulary
from partzoo.errors import UsageError
from partzoo.export.resizing import at_working_size
from partzoo.export.segmenting import certainty, scored
from partzoo.models.base import Encoder
from partzoo.models.efficientnet import STRIDE
from partzoo.models.engines.graphs import normalized_input
from partzoo.models.foreground import ForegroundModel
from partzoo.tracing.graph import BATCH, Axis, Graph, Input, Output

IMAGE = "RGB pixels, 0 to 255, of the whole image at any size"
EXAMPLE = (101, 147)  # height and width of that example
MAP = ("batch", 1, "height", "width")
FOREGROUND = Output("score of each pixel, 0 to 1; from 0.5 it is foreground", MAP)
QUALITY = Output("certainty of the result, 0 to 1, as Parts.quality", ("batch",))


class ImageGraph(Graph):
    """A program that takes images at their own size. Its task is a key of ``partzoo.export.export.TASKS``."""

    def inputs(self) -> dict[str, Input]:
        """Return the inputs by name."""
        example = torch.randint(0, 256, (BATCH, 3, *EXAMPLE), generator=torch.Generator().manual_seed(0))
        shape = (Axis("batch"), 3, Axis("height"), Axis("width"))
        return {"image": Input(IMAGE, shape, example.to(torch.uint8))}


class FeatureGraph(Graph):
    """An encoder of images or signals: normalized input to dense and pooled features."""

    task = "features"
    facts: Mapping[str, Any] = {}

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.outputs = {
            "dense": Output("features of each cell of the grid", ("batch", encoder.dim, "rows", "columns")),
            "pooled": Output("the mean of dense over the grid", ("batch", encoder.dim)),
        }
        with torch.inference_mode():
            prefix = encoder.encode(self.inputs()["x"].example[:1]).prefix
        if prefix.shape[1]:
            self.outputs["prefix"] = Output("class and register tokens", ("batch", *prefix.shape[1:]))

    def inputs(self) -> dict[str, Input]:
        return {"x": normalized_input(self.encoder)}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens = self.encoder.encode(x)
        dense = tokens.maps()
        found = dense, dense.mean((2, 3)), tokens.prefix
        return found[: len(self.outputs)]


class ForegroundGraph(ImageGraph):
    """A foreground model: image to foreground at the image's size."""

    task = "foreground"
    facts: Mapping[str, Any] = {}

    def __init__(self, network: ForegroundModel) -> None:
        super().__init__()
        self.network = network
        self.outputs = {"foreground": FOREGROUND}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = probability(self.network, image.float())
        return (_at(found, image),)


class LearnedGraph(ImageGraph):
    """A part model: image to foreground and parts at the image's size.

    Args:
        finder: finder that uses the part model.
        vocabulary: vocabulary that joins parts; None keeps all.
    """

    task = "parts"

    def __init__(self, finder: LearnedFinder, vocabulary: PartVocabulary | None = None) -> None:
        super().__init__()
        self.settings, self.model, self.classes = finder.settings, finder.model, finder.classes
        self.vocabulary = vocabulary or finder.fit([], finder.own, 0)
        self.outputs = of_parts(self.vocabulary.k)
        self.facts = part_facts(self.vocabulary, self.settings.size)

    def inputs(self) -> dict[str, Input]:
        found = super().inputs()
        if self.classes:
            about = f"class of each image, 0 to {self.classes - 1}"
            found["classes"] = Input(about, (Axis("batch"),), torch.arange(BATCH) % self.classes)
        return found

    def forward(self, image: Tensor, classes: Tensor | None = None) -> tuple[Tensor, ...]:
        preprocess = self.model.preprocess
        working = at_working_size(image.float(), self.settings.size, preprocess, lcm(preprocess.multiple, CELL))
        _, at = self.model.descriptors_and_maps(preprocess.normalize(working), classes)
        own = at(None)
        maps = joined(own, self.vocabulary)
        foreground = 1 - own[:, :1]
        both = torch.cat([maps, foreground], dim=1)
        pixels = working / 255
        both = _at(follow_edges(finer(both, pixels), pixels) if self.settings.refine else both, image)
        maps, foreground = both[:, :-1], both[:, -1:]
        return foreground, maps / maps.sum(1, keepdim=True), presence(own[:, 1:])


class DescriptorGraph(ImageGraph):
    """An encoder and a foreground model: image to what clustering needs.

    Clustering fits to one image or to many, in a number of steps that depends on them, so it is left to whoever runs
    the program. ``foreground`` and ``pixels`` are what labels are made from afterwards.

    Args:
        finder: finder that uses both models.
    """

    task = "descriptors"

    def __init__(self, finder: ClusteredFinder) -> None:
        super().__init__()
        self.settings, self.model, self.network = finder.settings, finder.model, finder.network
        if self.network is None and self.settings.background != "none":
            raise UsageError(
                f"background={self.settings.background!r} is not a network and cannot be exported: choose 'none' or a "
                "foreground model (partzoo list --family foreground)."
            )
        layers = [f"layer{number}" for number in range(len(self.settings.layers))]
        self.blocks = (*layers, "colour", "position")
        cells, grid = ("rows", "columns"), ("grid_rows", "grid_columns")
        widths = (*self._widths(), 6, 4)
        self.outputs = {
            "foreground": Output(
                f"score of each cell of {CELL} working pixels, 0 to 1; from 0.5 it is foreground", ("batch", 1, *cells)
            ),
            "quality": QUALITY,
            "pixels": Output(
                "the image at its working size, 0 to 1, to refine maps along its edges",
                ("batch", 3, "working_height", "working_width"),
            ),
            **{
                name: Output(
                    "unit vectors, on one grid for each block", ("batch", width, f"{name}_rows", f"{name}_columns")
                )
                for name, width in zip(self.blocks, widths, strict=True)
            },
            "inside": Output("the cells to cluster, on the last layer's grid", ("batch", *grid)),
            "descriptors": Output(
                "vectors to cluster, the blocks side by side on the last layer's grid", ("batch", sum(widths), *grid)
            ),
        }
        self.facts: dict[str, Any] = {
            "size": self.settings.size,
            "blocks": dict(zip(self.blocks, self.settings.weights, strict=True)),
            "sharpness": SHARPNESS,
            "settings": dataclasses.asdict(self.settings),
            "clustering": {
                "most": MOST,
                "apart": APART,
                "more": MORE,
                "small": SMALL,
                "iterations": ITERATIONS,
                "tolerance": TOLERANCE,
                "draws": torch.rand(MORE * MOST, RESTARTS, generator=torch.Generator().manual_seed(0)).tolist(),
            },
        }

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self._found(*self.described(*self.resized(image)))

    def _found(self, pixels: Tensor, found: Descriptors, score: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        return score, quality, pixels, *found.blocks, found.inside, found.joined(self.settings.weights)

    def _widths(self) -> list[int]:
        """Return the number of channels of each chosen layer."""
        side = max(self.model.preprocess.multiple, self.model.preprocess.size // 2)
        with torch.inference_mode():
            x = torch.zeros(1, 3, side, side)
            return [maps.shape[1] for maps in self.model.forward_intermediates(x, list(self.settings.layers))]

    def resized(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return images at the sizes that the encoder takes, and the foreground model for each of its two passes."""
        image = image.float()
        sizes = [(self.settings.size, self.model.preprocess, self.multiple)]
        if self.network is not None:
            sizes += [(size, self.network.preprocess, STRIDE) for size in self.network.sizes]
        return tuple(at_working_size(image, *each) for each in sizes)

    @property
    def multiple(self) -> int:
        """Number of pixels that both sides of an image for the encoder are a multiple of."""
        return lcm(self.model.preprocess.multiple, CELL)

    def described(self, working: Tensor, *others: Tensor) -> tuple[Tensor, Descriptors, Tensor, Tensor]:
        """Return the pixels at working size, descriptors, the foreground's scores ``(B, 1, h, w)`` and certainty.

        Args:
            working, others: float32 images in 0..255, from :meth:`resized`.
        """
        pixels = working / 255
        maps = self.model.forward_intermediates(self.model.preprocess.normalize(working), list(self.settings.layers))
        layers = tuple(normalize(layer.float(), dim=1) for layer in maps)
        lab = cielab(avg_pool2d(pixels, CELL).movedim(1, 0)).movedim(0, 1)
        if self.network is None:
            found = torch.ones_like(lab[:, :1])
        else:
            found = resize(self.network.averaged(*map(self.network.preprocess.normalize, others)), lab.shape[2:])
        score, quality = scored(found, lab)
        described = describe(pixels, layers, score.squeeze(1), centre=self.settings.centre)
        return pixels, described, score, quality


class SizedDescriptorGraph(DescriptorGraph):
    """The same for images that Pillow has resized, which takes it a small part of the time."""

    def __init__(self, finder: ClusteredFinder) -> None:
        super().__init__(finder)
        self.sizes = {"image": (self.settings.size, self.multiple, self.model.preprocess.interpolation)}
        if self.network is not None:
            for name, size in zip(("seen", "mirrored"), self.network.sizes, strict=True):
                self.sizes[name] = size, STRIDE, self.network.preprocess.interpolation
        keys = ("longer", "multiple", "interpolation")
        self.facts |= {"sizes": {name: dict(zip(keys, each, strict=True)) for name, each in self.sizes.items()}}

    def inputs(self) -> dict[str, Input]:
        generator = torch.Generator().manual_seed(0)
        found = {}
        for name, (longer, multiple, _) in self.sizes.items():
            about = f"RGB pixels, 0 to 255, of the image whose longer side is {longer} pixels"
            shape = (Axis("batch"), 3, Axis(f"{name}_rows", multiple), Axis(f"{name}_columns", multiple))
            example = torch.randint(0, 256, (BATCH, 3, 3 * multiple, 4 * multiple), generator=generator)
            found[name] = Input(about, shape, example.to(torch.uint8))
        return found

    def forward(self, image: Tensor, seen: Tensor | None = None, mirrored: Tensor | None = None) -> tuple[Tensor, ...]:
        given = (each.float() for each in (image, seen, mirrored) if each is not None)
        return self._found(*self.described(*given))


class ClusteredGraph(DescriptorGraph):
    """An encoder, a foreground model and a vocabulary: image to foreground and parts at the image's size.

    Args:
        finder: finder that uses both models.
        vocabulary: centres of the parts.
    """

    task = "parts"

    def __init__(self, finder: ClusteredFinder, vocabulary: PartVocabulary) -> None:
        super().__init__(finder)
        self.centres = nn.Buffer(vocabulary.centres.float())
        self.numbering = vocabulary.numbering
        self.outputs = of_parts(vocabulary.k)
        self.facts = part_facts(vocabulary, self.settings.size)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pixels, described, score, quality = self.described(*self.resized(image))
        cosines = described.similarities(self.centres, self.settings.weights)
        maps = torch.cat([score, (SHARPNESS * cosines).softmax(1)], dim=1)
        maps = grouped(maps, self.numbering) if self.numbering else maps
        maps = _at(follow_edges(maps, pixels) if self.settings.refine else maps, image)
        shares = contest(maps)
        return maps[:, :1], shares / shares.sum(1, keepdim=True), quality


class TaughtGraph(ImageGraph):
    """An encoder, a foreground model and taught parts: image to foreground and parts at the image's size.

    Args:
        finder: finder of taught parts.
        vocabulary: the taught parts.
    """

    task = "parts"

    def __init__(self, finder: TaughtFinder, vocabulary: PartVocabulary) -> None:
        super().__init__()
        self.settings, self.model, self.network = finder.settings, finder.model, finder.network
        self.centres = nn.Buffer(vocabulary.centres.float())
        words = vocabulary.network
        self.hidden = None if words is None else nn.Buffer(words.hidden)
        self.output = None if words is None else nn.Buffer(words.output)
        self.numbering = vocabulary.numbering
        self.outputs = of_parts(vocabulary.k)
        self.facts = part_facts(vocabulary, self.settings.size)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        image, preprocess = image.float(), self.model.preprocess
        multiple = lcm(preprocess.multiple, CELL)
        pixels = at_working_size(image, self.settings.size, preprocess, multiple) / 255
        maps: list[Tensor] = []
        for size in self.settings.sizes:
            x = preprocess.normalize(at_working_size(image, size, preprocess, multiple))
            maps += self.model.forward_intermediates(x, list(self.settings.layers))
        if self.network is not None:
            seen = at_working_size(image, max(self.network.sizes), self.network.preprocess, STRIDE)
            maps += self.network.features(self.network.preprocess.normalize(seen))
        layers = [normalize(layer.float(), dim=1) for layer in maps]
        network = None if self.hidden is None or self.output is None else Network(self.hidden, self.output)
        coarse = shares_of(blocks_of(pixels, layers), self.centres, self.numbering, network)
        fine = _at(follow_edges(coarse, pixels) if self.settings.refine else coarse, image)
        shares = fine / fine.sum(1, keepdim=True)
        return 1 - shares[:, :1], shares, certainty(1 - coarse[:, :1])


def probability(network: ForegroundModel, image: Tensor) -> Tensor:
    """Compute a foreground model's probabilities ``(B, 1, h, w)`` of images ``(B, 3, H, W)`` in 0..255."""
    preprocess = network.preprocess
    x, other = (
        preprocess.normalize(at_working_size(image, size, preprocess, preprocess.multiple)) for size in network.sizes
    )
    return network.averaged(x, other)


def presence(parts: Tensor) -> Tensor:
    """Compute the share of a part model's parts that images have, as ``learned.MatchedImage.quality``, ``(B,)``."""
    for dim in (2, 3):  # the mean of neighbours, or the only row or column itself
        count = parts.shape[dim]
        most, first = torch.sym_max(count - 1, 1), torch.sym_min(count - 1, 1)
        parts = (parts.narrow(dim, 0, most) + parts.narrow(dim, first, most)) / 2
    return parts.amax((2, 3)).mean(1)


def of_parts(k: int) -> dict[str, Output]:
    """Return the outputs of a program that finds parts."""
    about = "scores of the background and of each part, which sum to one; their arg-max are the labels"
    parts = Output(about, ("batch", k + 1, "height", "width"))
    return {"foreground": FOREGROUND, "parts": parts, "quality": QUALITY}


def part_facts(vocabulary: PartVocabulary, size: int) -> dict[str, Any]:
    """Return the facts of a program that finds parts."""
    return {"size": size, "names": ["background", *vocabulary.names]}


def _at(maps: Tensor, image: Tensor) -> Tensor:
    """Upsample maps to the size of an image."""
    return interpolate(maps, image.shape[2:], mode="bilinear", align_corners=False)
