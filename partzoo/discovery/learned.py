"""Find parts with a learned part model: use all of its parts, or merge them until fewer are left."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from partzoo.discovery.finder import Finder
from partzoo.discovery.labeller import K, checked
from partzoo.discovery.labels import argmax
from partzoo.discovery.refine import finer
from partzoo.discovery.views import view_image
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, counted
from partzoo.images.opening import OpenedImage
from partzoo.models.part_model import PartModel
from partzoo.parts.parts import Parts


@dataclass(frozen=True, eq=False)
class MatchedImage:
    """One image as a learned part model sees it.

    Attributes:
        pixels: ``(3, H, W)``, 0..1, at working size.
        maps: ``(K + 1, h, w)`` on the model's grid, background first.
        descriptors: ``(K + 1, D)``, background first.
        match: function from a size to the maps at that size, upsampled as in the model.
        mask: ``(H, W)`` bool foreground given by the caller, or None.
    """

    pixels: Tensor
    maps: Tensor
    descriptors: Tensor
    match: Callable[[tuple[int, int] | None], Tensor]
    mask: np.ndarray | None = None

    @property
    def quality(self) -> float:
        """Share of the model's parts that the image has, 0..1.

        It is the mean over the parts of each one's highest probability on 2 x 2 cells, and low where the image shows
        something else than the model was trained on, or shows it in another frame (docs/part-models.md).
        """
        height, width = self.maps.shape[1:]
        return float(avg_pool2d(self.maps[1:], (min(height, 2), min(width, 2)), stride=1).amax((1, 2)).mean())


@dataclass(frozen=True, eq=False)
class Matched:
    """What a part model found in one image.

    Attributes:
        maps, descriptors: as in :class:`MatchedImage`.
    """

    maps: Tensor
    descriptors: Tensor

    @property
    def bytes(self) -> int:
        """Memory size, in bytes."""
        return sum(each.numel() * each.element_size() for each in (self.maps, self.descriptors))


class LearnedFinder(Finder[MatchedImage]):
    """A finder of the parts that a part model has learned."""

    learned = True

    def __init__(self, model: PartModel, settings: Settings) -> None:
        super().__init__(model, settings)
        self.model: PartModel = model
        self.own = model.config.parts
        classes = getattr(model.config, "classes", 0)
        self.classes = classes if classes > 1 else 0

    def with_settings(self, **changes: Any) -> LearnedFinder:
        return type(self)(self.model, dataclasses.replace(self.settings, **changes))

    def asked(self, k: int | str | None, *, alone: bool = False) -> int:
        """Return the number of parts to look for; None and ``"auto"`` mean all parts that the model has."""
        k = checked(k)
        if k is None or k == "auto":
            return self.own
        if k > self.own:
            raise UsageError(
                f"k={k}: this model has {counted(self.own, 'part')}. Use k <= {self.own}, or k=None for all."
            )
        if k < self.own and self.classes:
            raise UsageError(f"k={k}: the parts of several classes cannot be joined. Use k=None for all {self.own}.")
        return k

    def knows(self, k: K) -> bool:
        return k == self.own

    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: Matched | None = None,
        mask: np.ndarray | None = None,
    ) -> MatchedImage:
        """Run the model on one image, separately.

        Raises:
            UsageError: the model has parts for several classes, and the image's class is missing or unknown.
        """
        if self.classes and category is None:
            raise UsageError(
                f"This model has parts for {self.classes} classes of objects: state the class of each image with "
                f"classes=, 0 to {self.classes - 1}."
            )
        if self.classes and category is not None and not 0 <= category < self.classes:
            raise UsageError(f"classes={category}: this model has the classes 0 to {self.classes - 1}.")
        view = view_image(image, self.model, self.settings.size)
        classes = None if category is None else torch.tensor([category], device=view.batch.device)

        run = functools.cache(lambda: self.model.descriptors_and_maps(view.batch, classes))

        @torch.inference_mode()
        def match(size: tuple[int, int] | None) -> Tensor:
            return run()[1](size)[0].float().cpu()

        with torch.inference_mode():
            found = encoded or Matched(match(None), run()[0][0].float().cpu())
            return MatchedImage(view.pixels, found.maps, found.descriptors, match, mask=mask)

    def masked(self, look: MatchedImage, mask: np.ndarray) -> MatchedImage:
        return dataclasses.replace(look, mask=mask)

    def kept(self, look: MatchedImage) -> Matched:
        return Matched(look.maps, look.descriptors)

    def sample(self, look: MatchedImage, count: int, seed: int) -> Tensor:
        """Return the descriptors ``(K, D)`` of the model's parts in the image."""
        return look.descriptors[1:]

    def fit(self, samples: Sequence[Tensor], k: K, seed: int) -> PartVocabulary:
        """Return a vocabulary of the model's parts, the most similar ones joined until k are left."""
        return PartVocabulary(torch.empty(0, 0), self.settings, self._numbering(samples, k))

    def label_alone(self, image: OpenedImage, look: MatchedImage, k: K, seed: int) -> tuple[Parts, PartVocabulary]:
        vocabulary = self.fit([self.sample(look, 0, seed)], k, seed)
        return self.label(image, look, vocabulary), vocabulary

    def maps(self, look: MatchedImage, vocabulary: PartVocabulary) -> Tensor:
        """Return ``(K + 1, h, w)`` maps of the model, background first, summed over parts that are joined."""
        return joined(look.maps, vocabulary)

    def scores(self, look: MatchedImage, vocabulary: PartVocabulary, size: tuple[int, int]) -> Tensor:
        """Return scores ``(K + 1, *size)`` that sum to one, background first.

        Without refinement they are upsampled as in the model.
        """
        if not self.settings.refine:
            return joined(look.match(size), vocabulary)
        return super().scores(look, vocabulary, size)

    def _refined(self, maps: Tensor, pixels: Tensor) -> Tensor:
        return super()._refined(finer(maps, pixels) if self.settings.refine else maps, pixels)

    def foreground_map(self, look: MatchedImage) -> Tensor:
        return 1 - look.maps[:1]

    def descriptors(self, look: MatchedImage, vocabulary: PartVocabulary) -> Tensor:
        numbers, own = torch.tensor(vocabulary.numbering), look.descriptors[1:]
        each = (own[numbers == part] for part in range(1, vocabulary.k + 1))
        return torch.stack([rows.mean(0) if len(rows) else own.new_zeros(own.shape[1]) for rows in each])

    argmax = staticmethod(argmax)

    @staticmethod
    def shares(maps: Tensor) -> Tensor:
        return maps

    def _numbering(self, samples: Sequence[Tensor], k: K) -> tuple[int, ...]:
        """Return, for each of the model's parts, the number (1..k) of the part that it belongs to.

        The two most similar groups are joined until k are left. Groups are compared through their mean descriptors, so
        that a joined part counts as one. Groups are ordered by the first part of each.
        """
        groups = [[i] for i in range(self.own)]
        if not self.knows(k):
            descriptors = normalize(torch.stack(list(samples)).mean(0), dim=1)
        while k != "auto" and len(groups) > k:
            centres = normalize(torch.stack([descriptors[group].mean(0) for group in groups]), dim=1)
            a, b = sorted(divmod(int((centres @ centres.T).fill_diagonal_(-2).argmax()), len(groups)))
            groups[a] += groups.pop(b)
        number = {part: i for i, group in enumerate(groups, start=1) for part in group}
        return tuple(number[i] for i in range(self.own))


def joined(maps: Tensor, vocabulary: PartVocabulary) -> Tensor:
    """Add up the maps ``(..., K + 1, h, w)`` of those of the model's parts that form one part of the vocabulary."""
    groups = torch.tensor([0, *vocabulary.numbering])
    *batch, _, rows, columns = maps.shape
    return torch.zeros(*batch, vocabulary.k + 1, rows, columns).index_add_(-3, groups, maps)
