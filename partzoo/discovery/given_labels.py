"""Labels that a user gives for images: arrays, index PNGs, and the files of annotation tools."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.data.label_files import SUFFIXES
from partzoo.discovery.masks import values_of
from partzoo.errors import UsageError, counted
from partzoo.files import expand_user
from partzoo.images.opening import OpenedImage, OpenedImages
from partzoo.parts.files import names_of
from partzoo.parts.formats import FORMATS
from partzoo.parts.parts import Parts

UNKNOWN = 255  # label of pixels about which nothing is said
BACKGROUND = "background"  # a label with this name marks background; what has no label is then unknown
ENDINGS = tuple(FORMATS)
LOSSY = (".jpg", ".jpeg")  # copies of images beside their labels, since numbers do not survive this compression


@dataclass(frozen=True, eq=False)
class GivenLabels:
    """The labels of some of a sequence of images, each read only when it is asked for.

    Attributes:
        images: the images.
        sources: labels of each image, in any form that :func:`open_labels` accepts, or None.
        names: names of the parts 1, 2, ...
        given: names of the labels as the files list them: those of the parts, and ``background`` where it is marked.
    """

    images: OpenedImages
    sources: Sequence[Any]
    names: tuple[str, ...] | None
    given: tuple[str, ...] | None

    @classmethod
    def of(cls, images: OpenedImages, single: bool, source: Any, names: Sequence[str] | None) -> GivenLabels:
        """Match labels with images.

        Args:
            images: the images.
            single: whether they are one image rather than a sequence of one.
            source: labels of the one image; a sequence with the labels of each image, or None for images without; a
                folder with files named as the images are; or a COCO file of all images.
            names: names of the parts; by default those that the files state.

        Raises:
            UsageError: the number of labels differs from that of the images, no image has labels or one has two files,
                names are empty or given twice, or names are missing of labels that others name.
        """
        sources = _sources(images, single, source)
        if all(each is None for each in sources):
            raise UsageError("labels= has labels of none of the images: their files must be named as the images are.")
        if names is None:
            found = [_names(each, image) for each, image in _pairs(images, sources)]
            listed = tuple(dict.fromkeys(name for each in found for name in each or ())) or None
            if listed and None in found:
                raise UsageError(
                    "Some labels are numbers and others have names: pass names= in the order of the numbers."
                )
        else:
            listed = tuple(map(str, names))
            if not all(map(str.strip, listed)):
                raise UsageError("names= has an empty name: each part needs a name of its own.")
            if twice := next((name for name in listed if listed.count(name) > 1), None):
                raise UsageError(f"names= has {twice!r} twice: each part needs a name of its own.")
        parts = None if listed is None else tuple(name for name in listed if name.lower() != BACKGROUND)
        return cls(images, sources, parts, listed)

    def __iter__(self) -> Iterator[tuple[OpenedImage, np.ndarray]]:
        """Yield each image that has labels, and its labels; see :func:`open_labels`."""
        for source, image in _pairs(self.images, self.sources):
            yield image, open_labels(source, image, self.given)

    def __len__(self) -> int:
        return sum(each is not None for each in self.sources)


def open_labels(source: Any, image: OpenedImage, names: Sequence[str] | None) -> np.ndarray:
    """Read the labels of an image.

    Args:
        source: array, tensor or PIL image of integers; path of an index PNG; :class:`partzoo.Parts`; or a file that
            ``Parts.load`` reads.
        image: the image.
        names: names of the labels in files that name them. The label named ``background`` becomes 0, and what has no
            label is then unknown.

    Returns:
        ``(H, W)`` int64: 0 background, i part i, 255 unknown.

    Raises:
        UsageError: the labels differ in size from the image, are not integers, or are above 255.
        ImageError: the file is missing or is not an image.
    """
    named = isinstance(source, Parts) or (_is_file(source) and _format(source) in (".npz", *SUFFIXES))
    if named:
        parts = source if isinstance(source, Parts) else Parts.load(source, image=image, names=names)
        values, own = parts.labels.astype(np.int64), parts.names
    else:
        values, own = np.asarray(values_of(source, colours=False)), tuple(names or ())
    if values.shape != image.size:
        raise UsageError(
            f"The labels of {image.name} are {values.shape} and the image {image.size} in height and width: they must "
            "agree."
        )
    if values.dtype.kind not in "biu" or values.min() < 0 or values.max() > UNKNOWN:
        raise UsageError(
            f"The labels of {image.name} must be whole numbers: 0 for the background, 1 to {UNKNOWN - 1} for parts, "
            f"and {UNKNOWN} for unknown pixels."
        )
    values = values.astype(np.int64)
    if not named or BACKGROUND not in map(str.lower, own):
        return values
    numbers, count = np.zeros(UNKNOWN + 1, np.int64), 0
    numbers[0] = UNKNOWN
    for number, name in enumerate(own, 1):
        count += name.lower() != BACKGROUND
        numbers[number] = 0 if name.lower() == BACKGROUND else count
    return numbers[values]


def digest_of(image: OpenedImage) -> str:
    """Return a digest of an image's pixels, by which a vocabulary knows the images that it was taught with."""
    return hashlib.sha256(np.ascontiguousarray(image.pixels).data).hexdigest()[:16]


def _sources(images: OpenedImages, single: bool, source: Any) -> list[Any]:
    if _is_file(source) and expand_user(source).is_dir():
        folder = expand_user(source).absolute()
        files: dict[str, list[Path]] = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix.lower() not in LOSSY:
                files.setdefault(_stem(file), []).append(file)
        paths = [Path(images.name(index)).absolute() for index in range(len(images))]
        # A folder of images is not that of their labels.
        found = [[] if path.is_relative_to(folder) else files.get(path.stem, []) for path in paths]
        for path, several in zip(paths, found, strict=True):
            if len(several) > 1:
                both = " and ".join(str(file.relative_to(folder)) for file in several[:2])
                raise UsageError(f"labels= has {both} for {path.name}: keep one of them.")
        return [next(iter(each), None) for each in found]
    if single:
        return [source]
    if _is_file(source):
        return [source] * len(images)
    if not isinstance(source, Sequence) or len(source) != len(images):
        raise UsageError(
            f"labels= must be a folder, a COCO file, or a sequence with the labels of {counted(len(images), 'image')}."
        )
    return list(source)


def _pairs(images: OpenedImages, sources: Sequence[Any]) -> Iterator[tuple[Any, OpenedImage]]:
    return ((source, images[index]) for index, source in enumerate(sources) if source is not None)


def _names(source: Any, image: OpenedImage) -> tuple[str, ...] | None:
    """Return the names of labels that a source states, or None if it has numbers alone."""
    if isinstance(source, Parts):
        return source.names
    if not _is_file(source):
        return None
    if _format(source) in (".npz", *SUFFIXES):
        return Parts.load(source, image=image).names
    return names_of(expand_user(source)) or None


def _is_file(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def _format(source: str | os.PathLike) -> str:
    return Path(source).suffix.lower()


def _stem(file: Path) -> str:
    """Return the name of the image that a file has the labels of."""
    ending = next((each for each in ENDINGS if file.name.lower().endswith(each)), file.suffix)
    return file.name[: len(file.name) - len(ending)]
