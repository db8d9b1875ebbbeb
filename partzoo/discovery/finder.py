"""What every finder of parts does: look at an image, fit a vocabulary, label pixels with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from partzoo.discovery.labels import argmax
from partzoo.discovery.refine import follow_edges, strips
from partzoo.discovery.views import view_image
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage
from partzoo.models.base import Model
from partzoo.parts.parts import Parts

K = int | Literal["auto"]


class Looked(Protocol):
    """What a finder keeps of one image to fit and to label with.

    Attributes:
        pixels: ``(3, H, W)``, 0..1, at working size.
        quality: how certain its foreground is, 0..1.
        mask: a given foreground ``(H, W)`` bool in the image's own pixels, or None.
    """

    @property
    def pixels(self) -> Tensor: ...
    @property
    def quality(self) -> float: ...
    @property
    def mask(self) -> np.ndarray | None: ...


Look = TypeVar("Look", bound=Looked)


class Finder(ABC, Generic[Look]):
    """Finds parts with one model and one set of settings.

    ``Look`` is what it keeps of one image, see :class:`Looked`.

    Attributes:
        learned: whether the parts are those of a learned part model, so that there is nothing to cluster.
        own: number of parts of a learned part model; else 0.
        classes: number of classes with parts of their own; 0 where all images share the parts.
    """

    learned: bool = False
    own: int = 0
    classes: int = 0

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings

    @abstractmethod
    def with_settings(self, **changes: Any) -> Self:
        """The same finder with other settings."""

    @abstractmethod
    def asked(self, k: int | str | None, *, alone: bool = False) -> K:
        """How many parts to look for, where None leaves it to the finder; ``alone``: in one image by itself.

        Raises:
            UsageError: k is out of range.
        """

    @abstractmethod
    def knows(self, k: K) -> bool:
        """Whether a fit for that k needs no samples."""

    @abstractmethod
    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: Any = None,
        mask: np.ndarray | None = None,
    ) -> Look:
        """Run the model on an image, alone, so that no other image can change what comes out.

        Args:
            image: the image.
            category: its class, for a model with parts of several classes.
            encoded: what :meth:`kept` gave for the same image and mask, so that the model need not run again.
            mask: ``(H, W)`` bool, the foreground, in the image's own pixels; by default it is found.
        """

    @abstractmethod
    def masked(self, look: Look, mask: np.ndarray) -> Look:
        """The same image with another given foreground ``(H, W)`` bool; the model does not run again."""

    @abstractmethod
    def kept(self, look: Look) -> Any:
        """What of a look makes the next one at the same image fast; None where nothing does."""

    @abstractmethod
    def sample(self, look: Look, count: int, seed: int) -> Tensor:
        """Descriptors ``(n, D)`` to fit a vocabulary to, of about ``count`` cells of the image."""

    @abstractmethod
    def fit(self, samples: Sequence[Tensor], k: K, seed: int) -> PartVocabulary:
        """Fit a vocabulary to what :meth:`sample` drew."""

    @abstractmethod
    def maps(self, look: Look, vocabulary: PartVocabulary) -> Tensor:
        """``(K + 1, h, w)`` maps of background or foreground, and parts, from which labels and scores follow."""

    @abstractmethod
    def label_alone(self, image: OpenedImage, look: Look, k: K, seed: int) -> tuple[Parts, PartVocabulary]:
        """Divide one image by itself."""

    @abstractmethod
    def foreground_map(self, look: Look) -> Tensor:
        """``(1, h, w)``: how much of the foreground each cell is, 0..1."""

    @abstractmethod
    def descriptors(self, look: Look, vocabulary: PartVocabulary) -> Tensor:
        """``(K, D)``: one descriptor for each part."""

    @staticmethod
    @abstractmethod
    def argmax(maps: Tensor) -> np.ndarray:
        """Labels ``(h, w)`` of maps as :meth:`maps` has them."""

    @staticmethod
    @abstractmethod
    def shares(maps: Tensor) -> Tensor:
        """Scores ``(K + 1, h, w)``, background first, whose arg-max is what :meth:`argmax` gives."""

    def label(self, image: OpenedImage, look: Look, vocabulary: PartVocabulary) -> Parts:
        """Label an image with a vocabulary."""
        coarse = self.maps(look, vocabulary)
        return self._parts(image, look, vocabulary, coarse, self._labels(coarse, look, image.size))

    def scores(self, look: Look, vocabulary: PartVocabulary, size: tuple[int, int]) -> Tensor:
        """``(K + 1, *size)`` scores of an image's parts that sum to one, background first."""
        return torch.from_numpy(self._scores(self.maps(look, vocabulary), look.pixels, size, None))

    def foreground(self, look: Look, size: tuple[int, int]) -> np.ndarray:
        """``(H, W)`` float32: how much of the foreground each pixel is, 0..1, in the image's own pixels."""
        found = strips(self._refined(self.foreground_map(look), look.pixels), size)
        return np.concatenate([strip[0].numpy() for strip in found])

    def _refined(self, maps: Tensor, pixels: Tensor) -> Tensor:
        return follow_edges(maps, pixels) if self.settings.refine else maps

    def _labels(self, coarse: Tensor, look: Look, size: tuple[int, int]) -> np.ndarray:
        """``(H, W)`` labels in the image's own pixels; inside a given mask every pixel has a part."""
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
        def scores() -> np.ndarray:
            pixels = view_image(image, self.model, self.settings.size).pixels
            return _read_only(self._scores(coarse, pixels, image.size, look.mask))

        return Parts(
            _read_only(labels),
            k=vocabulary.k,
            image=_read_only(image.pixels),
            scores=scores,
            descriptors=self.descriptors(look, vocabulary).numpy(),
            source=image.source,
            quality=look.quality,
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    """Mark an array read-only in place, so that ``Parts`` need not copy it."""
    array.setflags(write=False)
    return array


def checked(k: Any) -> K | None:
    """``k`` itself.

    Raises:
        UsageError: it is neither None, "auto" nor a whole number from 1 on.
    """
    if (isinstance(k, str) and k != "auto") or isinstance(k, float):
        raise UsageError(f"k={k!r} must be a whole number or 'auto'.")
    if isinstance(k, int) and k < 1:
        raise UsageError(f"k={k} must be at least 1.")
    return k
