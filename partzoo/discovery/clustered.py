"""Find parts by clustering an encoder's descriptors within the foreground."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from partzoo.discovery.cluster import merged_kmeans
from partzoo.discovery.descriptors import Descriptors, completed, describe
from partzoo.discovery.finder import Finder
from partzoo.discovery.foreground import METHODS
from partzoo.discovery.labeller import K, asked_of_clusters, check_single
from partzoo.discovery.labels import argmax_inside, contest, grouped
from partzoo.discovery.numbering import by_area
from partzoo.discovery.segmentation import Foreground, given, segment
from partzoo.discovery.views import View, view_image
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.images.opening import OpenedImage
from partzoo.limits import check_parts
from partzoo.models.base import Model
from partzoo.models.foreground import ForegroundModel
from partzoo.parts.parts import Parts

SHARPNESS = 20.0  # factor of the cosines before the softmax over parts


@dataclass(frozen=True, eq=False)
class Encoded:
    """Outputs of the networks for one image.

    Attributes:
        layers: unit features ``(C, h_i, w_i)`` of each chosen layer.
        foreground: the image's foreground on the grid of cells.
        described: whether the layers are those of the image's descriptors, which differ from the encoder's.
    """

    layers: tuple[Tensor, ...]
    foreground: Foreground
    described: bool = False

    @property
    def bytes(self) -> int:
        """Memory size of the outputs, in bytes."""
        return sum(each.numel() * each.element_size() for each in (*self.layers, self.foreground.score))


@dataclass(frozen=True, eq=False)
class DescribedImage:
    """One image as a clustered finder represents it.

    Attributes:
        pixels: ``(3, H, W)``, 0..1, at working size.
        encoded: outputs of the networks.
        descriptors: descriptors of its cells.
        mask: ``(H, W)`` bool foreground given by the caller, or None.
    """

    pixels: Tensor
    encoded: Encoded
    descriptors: Descriptors
    mask: np.ndarray | None = None

    @property
    def quality(self) -> float:
        """Certainty of the foreground, 0..1."""
        return self.encoded.foreground.quality


class ClusteredFinder(Finder[DescribedImage]):
    """A finder that clusters an encoder's descriptors into parts.

    Args:
        model: the encoder.
        settings: options that determine the image's descriptors.
        network: foreground model, if ``settings.background`` names one.
    """

    def __init__(self, model: Model, settings: Settings, network: ForegroundModel | None = None) -> None:
        super().__init__(model, settings)
        self.network = network

    def with_settings(self, **changes: Any) -> ClusteredFinder:
        return ClusteredFinder(self.model, dataclasses.replace(self.settings, **changes), self.network)

    def asked(self, k: int | str | None, *, alone: bool = False) -> K:
        return asked_of_clusters(k, alone=alone)

    def knows(self, k: K) -> bool:
        return False

    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: Encoded | None = None,
        mask: np.ndarray | None = None,
    ) -> DescribedImage:
        with torch.inference_mode():
            view = view_image(image, self.model, self.settings.size)
            encoded = encoded or self.encode(image, view, mask)
            return self._described(view.pixels, encoded, mask)

    def masked(self, look: DescribedImage, mask: np.ndarray) -> DescribedImage:
        with torch.inference_mode():
            encoded = dataclasses.replace(look.encoded, foreground=given(mask, look.pixels))
            return self._described(look.pixels, encoded, mask)

    def _described(self, pixels: Tensor, encoded: Encoded, mask: np.ndarray | None) -> DescribedImage:
        layers, score = encoded.layers, encoded.foreground.score
        if encoded.described:
            descriptors = completed(pixels, layers, score)
        else:
            descriptors = describe(pixels, layers, score, centre=self.settings.centre)
        return DescribedImage(pixels, encoded, descriptors, mask)

    def encode(self, image: OpenedImage, view: View, mask: np.ndarray | None = None) -> Encoded:
        """Run the encoder and, unless a mask is given, the foreground method."""
        method, layers = self.settings.background, list(self.settings.layers)
        needs_all = method in METHODS and METHODS[method].objectness
        maps = [
            layer[0].float() for layer in self.model.forward_intermediates(view.batch, None if needs_all else layers)
        ]
        if mask is None:
            foreground = segment(image, view, maps, method, self.model, self.network)
        else:
            foreground = given(mask, view.pixels)
        chosen = [maps[i] for i in layers] if needs_all else maps
        return Encoded(tuple(normalize(layer.cpu(), dim=0) for layer in chosen), foreground)

    def kept(self, look: DescribedImage) -> Encoded:
        return Encoded(look.descriptors.layers, look.encoded.foreground, described=True)

    def sample(self, look: DescribedImage, count: int, seed: int) -> Tensor:
        return look.descriptors.sample(count, seed, self.settings.weights)

    def fit(self, samples: Sequence[Tensor], k: K, seed: int) -> PartVocabulary:
        """Fit a vocabulary to samples from :meth:`sample`; parts are numbered by size, ties by the first cell."""
        check_parts(k)
        points = torch.cat(list(samples))
        if not len(points):
            return PartVocabulary(points, self.settings)
        clusters = merged_kmeans(points, k, seed=seed)
        order = by_area(clusters.labels.numpy(), len(clusters.centres))
        return PartVocabulary(clusters.centres[order], self.settings)

    def label_alone(self, image: OpenedImage, look: DescribedImage, k: K, seed: int) -> tuple[Parts, PartVocabulary]:
        """Divide a single image. Parts are numbered by area, largest first, ties by their first pixel.

        Raises:
            UsageError: k exceeds the image's pixels or cells.
        """
        check_single(k, image.size, look.descriptors.inside.numel())
        vocabulary = self.fit([self.sample(look, look.pixels.numel(), seed)], k, seed)
        coarse = self.maps(look, vocabulary)
        labels = self._labels(coarse, look, image.size)
        order = by_area(labels, vocabulary.k + 1, start=1) - 1
        vocabulary = dataclasses.replace(vocabulary, centres=vocabulary.centres[order])
        coarse = coarse[[0, *(order + 1)]]
        labels = np.concatenate([[0], order.argsort() + 1]).astype(labels.dtype)[labels]
        return self._parts(image, look, vocabulary, coarse, labels), vocabulary

    def maps(self, look: DescribedImage, vocabulary: PartVocabulary) -> Tensor:
        """Compute ``(K + 1, h, w)`` maps: the foreground's score, then each part's share of it."""
        cosines = look.descriptors.similarities(vocabulary.centres, self.settings.weights)
        maps = torch.cat([self.foreground_map(look), (SHARPNESS * cosines).softmax(0)])
        return grouped(maps, vocabulary.numbering) if vocabulary.numbering else maps

    def foreground_map(self, look: DescribedImage) -> Tensor:
        return look.encoded.foreground.score[None]

    def descriptors(self, look: DescribedImage, vocabulary: PartVocabulary) -> Tensor:
        """Return the centre of each part, and for several centres their mean; zeros for unused numbers."""
        if not vocabulary.numbering:
            return vocabulary.centres
        sums = torch.zeros(vocabulary.k + 1, vocabulary.centres.shape[1])
        return normalize(sums.index_add_(0, torch.tensor(vocabulary.numbering), vocabulary.centres)[1:], dim=1)

    argmax = staticmethod(argmax_inside)
    shares = staticmethod(contest)
