"""Learn a vocabulary of parts from a sample of a collection."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from partzoo.collections.opening import open_record
from partzoo.collections.sources import Record, Source, open_source
from partzoo.discovery.factory import Background, make_finder
from partzoo.discovery.pipeline import FIT_IMAGES, fitted
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.images.ahead import PassOver, Progress
from partzoo.images.opening import OpenedImage, OpenedImages
from partzoo.limits import MAX_BYTES, MAX_PIXELS, check_seed
from partzoo.system.device import Device


def drawn(source: Source, count: int, seed: int = 0) -> list[Record]:
    """Draw images whose choice depends on their keys and the seed only, not on their order or on who reads them.

    Returns:
        At most ``count`` records, in the source's order: those whose keys have the smallest sha256 with the seed.
    """

    def place(numbered: tuple[int, str]) -> tuple[bytes, int]:
        number, key = numbered
        return hashlib.sha256(f"{seed}/".encode() + os.fsencode(key)).digest(), number

    chosen = sorted(number for number, _ in heapq.nsmallest(count, enumerate(source.keys()), key=place))
    return [*source.picked(chosen)]


class Drawn(OpenedImages):
    """Images of a collection as a sequence, each opened only when indexed."""

    sources: Sequence[Record]

    def _several(self, places: Sequence[int]) -> OpenedImages:
        return Drawn([self.sources[i] for i in places], **self.limits)

    def _open(self, index: int) -> OpenedImage:
        return open_record(self.sources[index].image, self.name(index), **self.limits)

    def name(self, index: int) -> str:
        return self.sources[index].key


def fit_collection(
    source: str | os.PathLike | Source | Iterable[Mapping[str, Any]],
    k: int | Literal["auto"] | None = None,
    *,
    model: str | nn.Module | None = None,
    background: Background = "auto",
    size: int | None = None,
    refine: bool = True,
    seed: int = 0,
    device: Device = None,
    progress: Progress | None = None,
    pass_over: Any = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> PartVocabulary:
    """Learn a vocabulary of parts from a collection, for :class:`partzoo.DiscoverParts`.

    It is fitted on at most 500 images, drawn by their keys: one machine learns the same vocabulary from any number of
    images as from their sample, whatever the order of the images. Of a collection of at most 500 images, it is that of
    :func:`partzoo.fit_parts`, whose arguments and errors are the same.

    Args:
        source: the images; see :func:`partzoo.collections.sources.open_source`.
        k, model, background, size, refine, seed, device: as for :func:`partzoo.fit_parts`.
        progress: function that is called with the number of images used and the total.
        pass_over: function that is called with the key of an unreadable image and its error; None raises the error.
        max_pixels, max_bytes: largest image to decode and largest file to read.
    """
    check_seed(seed)
    opened = open_source(source)
    images = Drawn(drawn(opened, FIT_IMAGES, seed), max_pixels=max_pixels, max_bytes=max_bytes)
    finder = make_finder(model, background, size, refine, device)
    asked = finder.asked(k)
    skip: PassOver | None = None if pass_over is None else lambda index, error: pass_over(images.name(index), error)
    return fitted(finder, images, [asked], [seed], progress=progress, pass_over=skip)[asked, seed]
