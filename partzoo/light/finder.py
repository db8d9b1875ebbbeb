"""The finder of ``partzoo discover`` without torch: two programs of ONNX Runtime, and clustering in NumPy between."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from partzoo.discovery.labeller import Fitter, K, asked_of_clusters, check_single
from partzoo.discovery.numbering import by_area
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.errors import UsageError
from partzoo.images.opening import OpenedImage
from partzoo.images.preprocess import resized, working_size
from partzoo.light.cluster import merged_kmeans
from partzoo.light.draws import permutation
from partzoo.light.programs import Program
from partzoo.limits import check_parts
from partzoo.parts.parts import Parts

STRIP = 2**22  # number of values of maps that a program upsamples at once, so that memory stays bounded
BETWEEN = ("foreground", "pixels", "colour", "position", "layer0", "layer1")  # passed from one program to the other


@dataclass(frozen=True, eq=False)
class LightLook:
    """Outputs of the first program for one image.

    Attributes:
        maps: inputs of the second program, by name.
        inside: ``(rows, columns)`` bool, the cells to cluster.
        descriptors: ``(D, rows, columns)`` of unit length.
        quality: certainty of the foreground, 0..1.
    """

    maps: dict[str, np.ndarray]
    inside: np.ndarray
    descriptors: np.ndarray
    quality: float

    @property
    def bytes(self) -> int:
        """Memory size of the outputs, in bytes."""
        return sum(each.nbytes for each in (*self.maps.values(), self.descriptors))


class LightFinder(Fitter[LightLook]):
    """A finder that clusters the default encoder's descriptors, as ``ClusteredFinder`` does in torch.

    Args:
        keep: whether the programs keep their memory between images, which saves time and takes some 100 MiB.
    """

    arrays = True

    def __init__(self, *, keep: bool = False) -> None:
        self._describe, self._label = (Program(name, keep=keep) for name in ("descriptors", "labels"))
        super().__init__(self._describe.settings())
        self._sizes = json.loads(self._describe.metadata["sizes"])

    def asked(self, k: int | str | None, *, alone: bool = False) -> K:
        return asked_of_clusters(k, alone=alone)

    def knows(self, k: K) -> bool:
        return False

    def look(
        self,
        image: OpenedImage,
        category: int | None = None,
        encoded: LightLook | None = None,
        mask: np.ndarray | None = None,
    ) -> LightLook:
        if mask is not None:
            raise UsageError("A mask needs torch: leave engine='onnxruntime' out.")
        if encoded is not None:
            pixels = _input(image, **self._sizes["image"]).astype(np.float32) / np.float32(255)
            return dataclasses.replace(encoded, maps=encoded.maps | {"pixels": pixels})
        names = (*BETWEEN, "inside", "descriptors", "quality")
        found = self._describe(*names, **{name: _input(image, **each) for name, each in self._sizes.items()})
        maps = {name: found[name] for name in BETWEEN}
        return LightLook(maps, found["inside"][0], found["descriptors"][0], float(found["quality"][0]))

    def masked(self, look: LightLook, mask: np.ndarray) -> LightLook:
        raise UsageError("A mask needs torch: leave engine='onnxruntime' out.")

    def kept(self, look: LightLook) -> LightLook:
        """Return the look without its pixels, which are made again, and without what only fitting needs."""
        maps = {name: each for name, each in look.maps.items() if name != "pixels"}
        return LightLook(maps, look.inside, np.empty((0, *look.inside.shape), np.float32), look.quality)

    def sample(self, look: LightLook, count: int, seed: int) -> np.ndarray:
        cells = np.flatnonzero(look.inside)
        drawn = permutation(seed, len(cells))[: ceil(len(cells) * min(count / look.inside.size, 1))]
        return look.descriptors.reshape(len(look.descriptors), -1).T[cells[np.sort(drawn)]]

    def fit(self, samples: Sequence[np.ndarray], k: K, seed: int) -> PartVocabulary:
        check_parts(k)
        points = np.concatenate(samples)
        if not len(points):
            return PartVocabulary(points, self.settings)
        centres, labels = merged_kmeans(points, k, seed=seed)
        return PartVocabulary(centres[by_area(labels, len(centres))], self.settings)

    def label_alone(self, image: OpenedImage, look: LightLook, k: K, seed: int) -> tuple[Parts, PartVocabulary]:
        check_single(k, image.size, look.inside.size)
        vocabulary = self.fit([self.sample(look, look.inside.size, seed)], k, seed)
        labels, confidences = self._labelled(look, vocabulary, image.size)
        order = by_area(labels, vocabulary.k + 1, start=1) - 1
        vocabulary = dataclasses.replace(vocabulary, centres=vocabulary.centres[order])
        labels = np.concatenate([[0], order.argsort() + 1]).astype(labels.dtype)[labels]
        return self._parts(image, look, vocabulary, labels, confidences[order]), vocabulary

    def label(self, image: OpenedImage, look: LightLook, vocabulary: PartVocabulary) -> Parts:
        return self._parts(image, look, vocabulary, *self._labelled(look, vocabulary, image.size))

    def _labelled(
        self, look: LightLook, vocabulary: PartVocabulary, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return labels ``(H, W)`` at the original size and the confidence of each part, ``(K,)``."""
        labels = np.zeros(size, np.uint8 if vocabulary.k <= 255 else np.uint16)
        confidences = np.zeros(vocabulary.k, np.float32)
        step = max(STRIP // ((vocabulary.k + 1) * size[1]), 1)
        given: dict[str, Any] = look.maps | {"centres": vocabulary.centres, "size": np.array(size)}
        for first in range(0, size[0] if vocabulary.k else 0, step):
            rows = np.arange(first, min(first + step, size[0]))
            found = self._label("labels", "confidences", **given, rows=rows)
            labels[rows], confidences = found["labels"][0], found["confidences"][0]
        return labels, confidences

    def _parts(
        self,
        image: OpenedImage,
        look: LightLook,
        vocabulary: PartVocabulary,
        labels: np.ndarray,
        confidences: np.ndarray,
    ) -> Parts:
        for array in (labels, image.pixels):
            array.setflags(write=False)  # so that Parts need not copy it
        return Parts(
            labels,
            k=vocabulary.k,
            image=image.pixels,
            descriptors=vocabulary.centres,
            source=image.source,
            quality=look.quality,
            confidences=confidences,
        )


def _input(image: OpenedImage, longer: int, multiple: int, interpolation: str) -> np.ndarray:
    """Return an image as ``(1, 3, h, w)`` uint8, resized for a program; both sides have at least two multiples."""
    height, width = (max(side, 2 * multiple) for side in working_size(image.size, longer, multiple))
    return np.ascontiguousarray(resized(image.pixels, (height, width), interpolation).transpose(2, 0, 1))[None]
