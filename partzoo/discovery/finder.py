"""A model with its settings: fits vocabularies to views of images, and labels pixels with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from partzoo.discovery.cluster import merged_kmeans, spherical_kmeans
from partzoo.discovery.describe import View, at_work, look
from partzoo.discovery.refine import guided_filter, resize, strips
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage
from partzoo.models.foreground import ForegroundModel
from partzoo.parts.parts import Parts

SHARPNESS = 20.0  # cosines are multiplied by it before the softmax over parts
RADIUS, EPSILON = 2, 4e-3  # of the guided filter, in cells and in squared units of colours in 0..1
AUTO_K = range(2, 13)
AUTO_CELLS = 4096


class _Unsaid(int):
    """A default, which can be told from the same number said by the caller."""


DEFAULT_K = _Unsaid(8)


class Finder:
    """Finds parts with one model and one set of settings."""

    def __init__(self, model: nn.Module, settings: Settings, seer: ForegroundModel | None = None) -> None:
        self.model = model
        self.settings = settings
        self.seer = seer
        self.learned = hasattr(model, "part_maps")
        self.own = model.config.parts if self.learned else 0
        classes = getattr(model.config, "classes", 0) if self.learned else 0
        self.classes = classes if classes > 1 else 0

    def asked(self, k: int | str | None) -> int | Literal["auto"]:
        """How many parts to look for, which of a learned part model None and ``"auto"`` leave to it.

        Raises:
            UsageError: k is out of range.
        """
        if (isinstance(k, str) and k != "auto") or isinstance(k, float):
            raise UsageError(f"k={k!r} must be a whole number or 'auto'.")
        if isinstance(k, int) and k < 1:
            raise UsageError(f"k={k} must be at least 1.")
        if not self.learned:
            if k is None:
                raise UsageError(
                    "k=None takes the parts that a learned part model knows; this is an encoder: pass k=8, say."
                )
            return k
        if k is None or k == "auto" or (k is DEFAULT_K and (self.classes or k > self.own)):
            return self.own
        if k > self.own:
            raise UsageError(f"k={k}: this model knows {self.own} parts. Use k <= {self.own}, or k=None for all.")
        if k < self.own and self.classes:
            raise UsageError(f"k={k}: the parts of several classes cannot be joined. Use k=None for all {self.own}.")
        return k

    def knows(self, k: int | str) -> bool:
        """Whether these are the very parts of a learned part model, so that a fit needs no samples."""
        return self.learned and k == self.own

    def look(self, image: OpenedImage, category: int | None = None) -> View:
        """Run the model on an image, alone, so that no other image can change what comes out.

        Raises:
            UsageError: the model has parts of several classes, and the image's is missing or none of them.
        """
        if self.classes and category is None:
            raise UsageError(
                f"This model has parts of {self.classes} classes of things: say which each image shows, "
                f"with classes=, 0 to {self.classes - 1}."
            )
        if self.classes and not 0 <= category < self.classes:
            raise UsageError(f"classes={category}: this model knows the classes 0 to {self.classes - 1}.")
        return look(image, self.model, self.settings, category, self.seer)

    def fit(self, samples: Sequence[Tensor], k: int | str, seed: int = 0) -> PartVocabulary:
        """Fit a vocabulary to what :meth:`sample` drew.

        Parts are numbered by their cells, ties by the first one; those of a learned part model as the model has them.
        """
        if self.learned:
            return PartVocabulary(torch.empty(0, 0), self.settings, self._numbering(samples, k))
        points = torch.cat(list(samples))
        if not len(points):
            return PartVocabulary(points, self.settings)
        clusters = merged_kmeans(points, best_k(points, seed) if k == "auto" else k, seed=seed)
        order = by_area(clusters.labels.numpy(), len(clusters.centres))
        return PartVocabulary(clusters.centres[order], self.settings)

    def sample(self, view: View, count: int, seed: int = 0) -> Tensor:
        """What a fit needs: descriptors of about ``count`` cells; of a learned part model, those of its parts."""
        if self.learned:
            return view.descriptors[1:]
        return view.sample(count, seed, self.settings.weights)

    def parts(self, image: OpenedImage, view: View, vocabulary: PartVocabulary) -> Parts:
        """Label an image with a vocabulary."""
        coarse = self.maps(view, vocabulary)
        return self._parts(image, view, vocabulary, coarse, self._labels(coarse, view.pixels, image.size))

    def parts_alone(self, image: OpenedImage, view: View, k: int | str, seed: int = 0) -> tuple[Parts, PartVocabulary]:
        """Divide one image by itself; parts are numbered by their pixels, ties by the first one, or as a learned
        part model has them."""
        vocabulary = self.fit([self.sample(view, view.pixels.numel(), seed)], k, seed)
        coarse = self.maps(view, vocabulary)
        labels = self._labels(coarse, view.pixels, image.size)
        if not self.learned:
            order = by_area(labels[labels > 0] - 1, vocabulary.k)
            vocabulary = dataclasses.replace(vocabulary, centres=vocabulary.centres[order])
            coarse = coarse[[0, *(order + 1)]]
            labels = np.concatenate([[0], order.argsort() + 1])[labels]
        return self._parts(image, view, vocabulary, coarse, labels), vocabulary

    def scores(self, view: View, vocabulary: PartVocabulary, size: tuple[int, int]) -> Tensor:
        """``(K + 1, *size)`` scores of an image's parts that sum to one, background first.

        Those of a learned part model are upsampled as the model has it, where they do not follow the image's edges.
        """
        if self.learned and not self.settings.refine:
            return self._joined(view.match(size), vocabulary)
        return self._scores(self.maps(view, vocabulary), view.pixels, size)

    def foreground(self, view: View, size: tuple[int, int]) -> np.ndarray:
        """``(H, W)`` float32: how much of the foreground each pixel is, 0..1, in the image's own pixels."""
        coarse = 1 - view.maps[:1] if self.learned else view.score[None]
        found = strips(self.refined(coarse, view.pixels), size)
        return np.concatenate([strip[0].numpy() for strip in found])

    def _scores(self, coarse: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        found = [strip if self.learned else contest(strip) for strip in strips(self.refined(coarse, pixels), size)]
        whole = torch.cat(found, dim=1)
        return whole / whole.sum(0)

    def _labels(self, coarse: Tensor, pixels: Tensor, size: tuple[int, int]) -> np.ndarray:
        """``(H, W)`` labels in the image's own pixels."""
        found = strips(self.refined(coarse, pixels), size)
        return np.concatenate([strongest(strip) if self.learned else strongest_inside(strip) for strip in found])

    def _parts(
        self, image: OpenedImage, view: View, vocabulary: PartVocabulary, coarse: Tensor, labels: np.ndarray
    ) -> Parts:
        def scores() -> np.ndarray:
            pixels = at_work(image, self.model, self.settings.size)[0]
            return self._scores(coarse, pixels, image.size).numpy()

        descriptors = vocabulary.centres
        if self.learned:
            numbers, own = torch.tensor(vocabulary.numbering), view.descriptors[1:]
            descriptors = torch.stack([own[numbers == part].mean(0) for part in range(1, vocabulary.k + 1)])
        return Parts(
            labels, k=vocabulary.k, image=image.pixels, scores=scores, descriptors=descriptors.numpy(),
            quality=view.quality,
        )  # fmt: skip

    def maps(self, view: View, vocabulary: PartVocabulary) -> Tensor:
        """``(K + 1, h, w)``: the foreground's score and each part's share of it; for a learned part model, its maps."""
        if self.learned:
            return self._joined(view.maps, vocabulary)
        cosines = view.similarities(vocabulary.centres, self.settings.weights)
        return torch.cat([view.score[None], (SHARPNESS * cosines).softmax(0)])

    @staticmethod
    def _joined(maps: Tensor, vocabulary: PartVocabulary) -> Tensor:
        """Maps of a learned part model's own parts, added up to those of the vocabulary."""
        groups = torch.tensor([0, *vocabulary.numbering])
        return torch.zeros(vocabulary.k + 1, *maps.shape[1:]).index_add_(0, groups, maps)

    def refined(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """Maps that follow the edges of the image at work ``(3, H, W)``, at its size, if the settings wish it."""
        if not self.settings.refine:
            return maps
        guide = resize(pixels, maps.shape[1:])
        return guided_filter(guide, maps, radius=RADIUS, epsilon=EPSILON, fine=pixels).clamp_(0, 1)

    def _numbering(self, samples: Sequence[Tensor], k: int | str) -> tuple[int, ...]:
        """The part (1..k) that each of a learned part model's own belongs to: the most similar ones are joined until k
        are left, and keep the order of the first of each."""
        groups = [[i] for i in range(self.own)]
        if not self.knows(k):
            descriptors = normalize(torch.stack(list(samples)).mean(0), dim=1)
        while len(groups) > k:
            centres = normalize(torch.stack([descriptors[group].mean(0) for group in groups]), dim=1)
            a, b = sorted(divmod(int((centres @ centres.T).fill_diagonal_(-2).argmax()), len(groups)))
            groups[a] += groups.pop(b)
        number = {part: i for i, group in enumerate(groups, start=1) for part in group}
        return tuple(number[i] for i in range(self.own))


def strongest(maps: Tensor) -> np.ndarray:
    """Arg-max over ``(K, h, w)`` maps, the first of equals: ``(h, w)``. Several times faster than Tensor.argmax."""
    best, winner = maps[0].clone(), np.zeros(maps.shape[1:], np.uint16)
    for number, each in enumerate(maps[1:], 1):
        winner[(each > best).numpy()] = number
        torch.maximum(best, each, out=best)
    return winner


def strongest_inside(maps: Tensor) -> np.ndarray:
    """Labels from the foreground's score and the parts' shares of it: background below 0.5, whatever the shares."""
    if len(maps) == 1:
        return np.zeros(maps.shape[1:], np.uint16)
    return np.where((maps[0] >= 0.5).numpy(), strongest(maps[1:]) + 1, 0)


def contest(maps: Tensor) -> Tensor:
    """Scores whose arg-max is what :func:`strongest_inside` says."""
    score, shares = maps[:1], maps[1:]
    if not len(shares):
        return torch.ones_like(score)
    return torch.cat([1 - score, score * shares / shares.amax(0).clamp(min=1e-6)])


def by_area(labels: np.ndarray, k: int) -> np.ndarray:
    """Numbers 0..k-1 by how often they occur, most often first, ties by first occurrence."""
    counts = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels))
    present, where = np.unique(labels, return_index=True)
    first[present] = where
    return np.lexsort((first, -counts))


def best_k(points: Tensor, seed: int) -> int:
    """The k in 2..12 with the highest mean silhouette, distances being 1 - cosine to the centres.

    Source: Rousseeuw, "Silhouettes", 1987, in the centre-based form of Hruschka et al. ("simplified silhouette").
    """
    points = points[:: -(-len(points) // AUTO_CELLS)]
    best = (-2.0, 1)
    for k in AUTO_K:
        centres = spherical_kmeans(points, k, seed=seed, restarts=2).centres
        if len(centres) < 2:
            break
        near, next_near = (1 - (normalize(points, dim=1) @ centres.T).topk(2, dim=1).values.T).clamp(min=1e-6)
        best = max(best, (float((1 - near / next_near).mean()), k), key=lambda pair: pair[0])
    return best[1]
