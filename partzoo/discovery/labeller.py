"""The base classes of all finders, which look at images, fit a vocabulary and label pixels with it.

They need no torch, as a finder may use another engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, counted
from partzoo.images.opening import OpenedImage
from partzoo.limits import check_parts
from partzoo.parts.parts import Parts
from partzoo.system.cores import worker_threads

K = int | Literal["auto"]
DEFAULT_K = 8
DOUBTFUL = 0.7  # quality below which a foreground is doubtful, see docs/discovery.md

Look = TypeVar("Look")


class Labeller(ABC, Generic[Look]):
    """What labels images with a vocabulary of parts, with one model and one set of settings.

    ``Look`` is the type of what it keeps of one image.

    Attributes:
        settings: options that determine what it finds.
        learned: whether the parts come from a learned part model, so that nothing needs to be clustered.
        own: number of parts of a learned part model, otherwise 0.
        classes: number of classes with separate parts, or 0 if all images share the parts.
        threads: number of threads that may use it at a time.
    """

    learned: bool = False
    own: int = 0
    classes: int = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def threads(self) -> int:
        return worker_threads()

    @abstractmethod
    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: Any = None,
        mask: np.ndarray | None = None,
    ) -> Look:
        """Run the model on one image, separately, so that no other image can change the result.

        Args:
            image: the image.
            category: class of the image, for a model with parts for several classes.
            encoded: value that :meth:`kept` returned for the same image and mask, so that the model need not run again.
            mask: ``(H, W)`` bool foreground at the image's original size; by default the foreground is found.
        """

    @abstractmethod
    def kept(self, look: Look) -> Any:
        """Return outputs of the model that make the next look at the same image faster, or None."""

    @abstractmethod
    def label(self, image: OpenedImage, look: Look, vocabulary: PartVocabulary) -> Parts:
        """Label an image with a vocabulary."""


class Fitter(Labeller[Look]):
    """A labeller that also fits vocabularies to images without labels.

    Attributes:
        arrays: whether the centres of its vocabularies are arrays rather than tensors.
    """

    arrays: bool = False

    @abstractmethod
    def asked(self, k: int | str | None, *, alone: bool = False) -> K:
        """Return the number of parts to look for; for None the finder decides, and ``alone`` means a single image.

        Raises:
            UsageError: k is out of range.
        """

    @abstractmethod
    def knows(self, k: K) -> bool:
        """Return whether a vocabulary with this k can be fitted without samples."""

    @abstractmethod
    def masked(self, look: Look, mask: np.ndarray) -> Look:
        """Return a look at the same image with a different foreground ``(H, W)`` bool, without rerunning the model."""

    @abstractmethod
    def sample(self, look: Look, count: int, seed: int) -> Any:
        """Return descriptors ``(n, D)`` of about ``count`` cells of the image, to fit a vocabulary to."""

    @abstractmethod
    def fit(self, samples: Sequence[Any], k: K, seed: int) -> PartVocabulary:
        """Fit a vocabulary to samples from :meth:`sample`."""

    @abstractmethod
    def label_alone(self, image: OpenedImage, look: Look, k: K, seed: int) -> tuple[Parts, PartVocabulary]:
        """Divide a single image into parts."""


def checked(k: Any) -> K | None:
    """Return ``k`` unchanged if it is valid.

    Raises:
        UsageError: k is neither None, "auto" nor a whole number of at least 1.
    """
    if (isinstance(k, str) and k != "auto") or isinstance(k, float):
        raise UsageError(f"k={k!r} must be a whole number, 'auto' or None.")
    if isinstance(k, int) and k < 1:
        raise UsageError(f"k={k} must be at least 1.")
    return k


def asked_of_clusters(k: int | str | None, *, alone: bool) -> K:
    """Return the number of clusters to look for; None means ``"auto"`` for a single image, and 8 for many."""
    k = checked(k) or ("auto" if alone else DEFAULT_K)
    if not alone:  # a single image may have fewer pixels or cells, which is the better reason
        check_parts(k)
    return k


def check_single(k: K, size: tuple[int, int], cells: int) -> None:
    """Refuse more parts than a single image of a size ``(height, width)`` has pixels, or its grid has cells.

    Raises:
        UsageError: there are too few of them.
    """
    height, width = size
    if k != "auto" and k > height * width:
        raise UsageError(
            f"k={k} exceeds the {counted(height * width, 'pixel')} of this {height}x{width} image: use fewer."
        )
    if k != "auto" and k > cells:
        raise UsageError(
            f"k={k} exceeds the {counted(cells, 'cell')} of this image's grid. Use k <= {cells} or a larger size."
        )
