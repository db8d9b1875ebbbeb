"""The base classes of the finders in torch, which compute maps of the parts on a grid and label pixels with them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from partzoo.discovery.labeller import Fitter, Labeller
from partzoo.discovery.labels import argmax
from partzoo.discovery.refine import follow_edges, strips
from partzoo.discovery.views import view_image
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.images.opening import OpenedImage
from partzoo.models.base import Model, threads_for
from partzoo.parts.parts import Parts


class Looked(Protocol):
    """The values that a finder keeps of one image, for fitting and labelling.

    Attributes:
        pixels: ``(3, H, W)``, 0..1, at working size.
        quality: certainty of its foreground, or the share of a part model's parts that it has, 0..1.
        mask: given foreground ``(H, W)`` bool at the image's original size, or None.
    """

    @property
    def pixels(self) -> Tensor: ...
    @property
    def quality(self) -> float: ...
    @property
    def mask(self) -> np.ndarray | None: ...


Look = TypeVar("Look", bound=Looked)


class MapLabeller(Labeller[Look]):
    """A labeller that computes maps of the parts on a grid of cells, with one model and one set of settings.

    ``Look`` is the type of what it keeps of one image, see :class:`Looked`.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        super().__init__(settings)
        self.model = model

    @property
    def threads(self) -> int:
        return threads_for(self.model)

    @abstractmethod
    def maps(self, look: Look, vocabulary: PartVocabulary) -> Tensor:
        """Compute maps ``(K + 1, h, w)``, of background or foreground and then of parts, for labels and scores."""

    @abstractmethod
    def descriptors(self, look: Look, vocabulary: PartVocabulary) -> Tensor:
        """Return one descriptor for each part, ``(K, D)``."""

    @staticmethod
    @abstractmethod
    def argmax(maps: Tensor) -> np.ndarray:
        """Return labels ``(h, w)`` from the output of :meth:`maps`."""

    @staticmethod
    @abstractmethod
    def shares(maps: Tensor) -> Tensor:
        """Return scores ``(K + 1, h, w)``, background first, whose arg-max equals :meth:`argmax`."""

    def quality(self, look: Look, coarse: Tensor) -> float:
        """Return how far to trust an image's parts, 0..1, from the output of :meth:`maps`."""
        return look.quality

    def label(self, image: OpenedImage, look: Look, vocabulary: PartVocabulary) -> Parts:
        """Label an image with a vocabulary."""
        coarse = self.maps(look, vocabulary)
        return self._parts(image, look, vocabulary, coarse, self._labels(coarse, look, image.size))

    def scores(self, look: Look, vocabulary: PartVocabulary, size: tuple[int, int]) -> Tensor:
        """Return scores ``(K + 1, *size)`` of an image's parts that sum to one, background first."""
        return torch.from_numpy(self._scores(self.maps(look, vocabulary), look.pixels, size, None))

    def _refined(self, maps: Tensor, pixels: Tensor) -> Tensor:
        return follow_edges(maps, pixels) if self.settings.refine else maps

    def _labels(self, coarse: Tensor, look: Look, size: tuple[int, int]) -> np.ndarray:
        """Return labels ``(H, W)`` at the original size; if a mask is given, every pixel inside it has a part."""
        labels = np.zeros(size, np.uint8 if len(coarse) <= 256 else np.uint16)
        row = 0
        for strip in strips(self._refined(coarse, look.pixels), size):
            rows = slice(row, row := row + strip.shape[1])
            if look.mask is None or len(coarse) == 1:
                labels[rows] = self.argmax(strip)
            else:
                labels[rows] = np.where(look.mask[rows], argmax(strip[1:]) + 1, 0)
        return labels

    def _scores(self, coarse: Tensor, pixels: Tensor, size: tuple[int, int], mask: np.ndarray | None) -> np.ndarray:
        scores = np.empty((len(coarse), *size), np.float32)
        row = 0
        for strip in strips(self._refined(coarse, pixels), size):
            rows = slice(row, row := row + strip.shape[1])
            if mask is None:
                shares = self.shares(strip)
                scores[:, rows] = shares.div_(shares.sum(0))
            else:
                inside = torch.from_numpy(mask[rows]).float()
                scores[0, rows] = 1 - inside
                scores[1:, rows] = inside * strip[1:] / strip[1:].sum(0).clamp(min=1e-6)
        return scores

    def _parts(
        self, image: OpenedImage, look: Look, vocabulary: PartVocabulary, coarse: Tensor, labels: np.ndarray
    ) -> Parts:
        mask = look.mask  # so that the parts do not hold the look

        def scores() -> np.ndarray:
            pixels = view_image(image, self.model, self.settings.size).pixels
            return _read_only(self._scores(coarse, pixels, image.size, mask))

        return Parts(
            _read_only(labels),
            k=vocabulary.k,
            image=_read_only(image.pixels),
            scores=scores,
            descriptors=self.descriptors(look, vocabulary).numpy(),
            names=vocabulary.names,
            source=image.source,
            quality=self.quality(look, coarse),
            confidences=self._confidences(coarse),
        )

    def _confidences(self, coarse: Tensor) -> np.ndarray:
        """Return the mean score of each part over the grid's cells, weighted by the scores themselves, ``(K,)``."""
        scores = self.shares(coarse)
        scores = (scores / scores.sum(0))[1:]
        return (scores.square().sum((1, 2)) / scores.sum((1, 2)).clamp(min=1e-6)).numpy()


class Finder(MapLabeller[Look], Fitter[Look]):
    """A finder of parts, which also fits vocabularies to images."""

    @abstractmethod
    def with_settings(self, **changes: Any) -> Self:
        """Return a copy of this finder with different settings."""

    @abstractmethod
    def foreground_map(self, look: Look) -> Tensor:
        """Return ``(1, h, w)``: the foreground score of each cell, 0..1."""

    def foreground(self, look: Look, size: tuple[int, int]) -> np.ndarray:
        """Return the foreground score of each pixel at the image's original size, ``(H, W)`` float32, 0..1."""
        found = strips(self._refined(self.foreground_map(look), look.pixels), size)
        return np.concatenate([strip[0].numpy() for strip in found])


def _read_only(array: np.ndarray) -> np.ndarray:
    """Mark an array read-only in place, so that ``Parts`` need not copy it."""
    array.setflags(write=False)
    return array
