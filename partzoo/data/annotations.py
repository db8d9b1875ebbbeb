"""Decode COCO segmentations to masks, and report unusable annotations by name.

A segmentation is checked against the size of its image before anything is allocated for it. The compiled rasterizer
does not check: too few runs leave memory uninitialized, and the more distant coordinates are, the more it allocates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.errors import UsageError, cause_of, require
from partzoo.images.decoding import exif_orientation
from partzoo.skipping import SkippedWarning

REACH = 1  # largest distance of coordinates from the border, in multiples of the image's longer side
WINDING = 64  # largest length of a polygon's boundary, in multiples of width + height
NAMED = 5  # number of annotations that a warning lists by name
LONGEST_COUNT = 60  # largest number of bits in one run's length
# For EXIF orientations that exchange width and height: how to turn a stored array upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    5: lambda array: array.T,
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).T,
    8: lambda array: np.rot90(array),
}


class UnusableError(UsageError):
    """Raised if an annotation cannot be used; the message is the reason, to print after the annotation's name."""


def usable(
    file: str | Path, annotations: Iterable[Any], fields: Sequence[str], check: Callable[[dict], None]
) -> list[dict]:
    """Return the annotations that have all fields and pass a check, and name the others and their file in one warning.

    Args:
        file: file of the annotations, for the warning.
        annotations: records of COCO's JSON.
        fields: fields that each record must have, including ``image_id`` and ``category_id``.
        check: function that raises :class:`UnusableError` for an annotation that cannot be used.
    """
    kept, passed = [], []
    for place, each in enumerate(annotations):
        name = f"annotation {each['id']}" if isinstance(each, dict) and "id" in each else f"the annotation at {place}"
        try:
            _check_fields(each, fields)
            check(each)
            kept.append(each)
        except Exception as error:  # a value of another type can fail in any comparison
            passed.append((name, cause_of(error)))
    warn_passed_over(file, passed)
    return kept


def warn_passed_over(file: str | Path, passed: Sequence[tuple[str, str]]) -> None:
    """Warn once about skipped entries of a file: name the first few, and give the number of the others.

    Args:
        file: file of the annotations.
        passed: name of each skipped entry, and why it was skipped.
    """
    if passed:
        more = f" and {len(passed) - NAMED} more" if len(passed) > NAMED else ""
        first = ", ".join(f"{name} ({reason})" for name, reason in passed[:NAMED])
        items = [(f"{file}: {name}", reason) for name, reason in passed]
        warnings.warn(SkippedWarning(f"{file}: skipped {first}{more}.", items), stacklevel=3)


def _check_fields(annotation: Any, fields: Sequence[str]) -> None:
    if not isinstance(annotation, dict):
        raise UnusableError(f"it is {annotation!r:.40}, not a record")
    if missing := [name for name in fields if annotation.get(name) is None]:
        raise UnusableError(f"it has no {missing[0]}")
    check_ids(annotation)


def check_ids(annotation: dict) -> None:
    """Check that the category's id is a whole number, and the image's id a whole number or text.

    Raises:
        UnusableError: one of them is not.
    """
    for name in ("image_id", "category_id"):
        value = annotation[name]
        if not _is_whole(value) and not (name == "image_id" and isinstance(value, str)):
            raise UnusableError(f"its {name} is {value!r:.40}, not a whole number")


def check_area(annotation: dict) -> None:
    """Check that ``area`` is a finite number and ``iscrowd`` is 0 or 1.

    Raises:
        UnusableError: one of them is not.
    """
    finite_numbers([annotation["area"]], "its area")
    if annotation["iscrowd"] not in (0, 1):
        raise UnusableError(f"its iscrowd is {annotation['iscrowd']!r:.40}, not 0 or 1")


def check_segmentation(segmentation: Any, size: tuple[int, int]) -> None:
    """Check that a segmentation can be rasterized in an image of ``(height, width)``; allocates nothing of that size.

    Raises:
        UnusableError: the segmentation cannot be rasterized.
    """
    _runs(segmentation, size) if isinstance(segmentation, dict) else _polygons(segmentation, size)


def rasterized(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterize a segmentation to a mask.

    Args:
        segmentation: list of polygons, or run lengths as a list or compressed, in COCO's format.
        size: ``(height, width)`` of the image.

    Returns:
        ``(height, width)`` bool: the union of the polygons, as pycocotools draws them.

    Raises:
        UnusableError: coordinates are missing, not finite or far outside the image, or the runs are for a different
            size.
        MissingExtraError: pycocotools, which draws polygons, is not installed.
    """
    if isinstance(segmentation, dict):
        runs = _runs(segmentation, size)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0]).T
    coco = require("pycocotools.mask", "coco")
    mask = np.zeros(size, bool)
    for polygon in _polygons(segmentation, size):
        mask |= coco.decode(coco.frPyObjects([polygon.ravel().tolist()], *size))[..., 0] > 0
    return mask


def box_corners(box: Any, size: tuple[int, int]) -> list[float]:
    """Return the polygon of a box ``x, y, width, height``.

    Raises:
        UnusableError: the box is not four finite numbers, has a negative size, or is far outside its image.
    """
    x, y, width, height = checked_box(box, size)
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def checked_box(box: Any, size: tuple[int, int] | None = None) -> list[float]:
    """Return the four numbers of a box ``x, y, width, height``; raises as :func:`box_corners` does."""
    numbers = finite_numbers(box, "its box")
    if len(numbers) != 4 or (numbers[2:] < 0).any():
        raise UnusableError(f"its box is {box!r:.60}, not x, y, width, height")
    if size is not None:
        _check_reach(np.stack([numbers[:2], numbers[:2] + numbers[2:]]), size)
    return numbers.tolist()


def finite_numbers(values: Any, what: str) -> np.ndarray:
    """Convert a list of numbers to a float64 array ``(n,)``.

    Raises:
        UnusableError: the value is not a list, or holds something that is not a finite number.
    """
    if not isinstance(values, (list, tuple)):
        raise UnusableError(f"{what} is {values!r:.40}, not a list of numbers")
    odd = [each for each in values if not isinstance(each, Real) or isinstance(each, bool)]
    if odd:
        raise UnusableError(f"{what} has {odd[0]!r:.40}, which is not a number")
    try:
        numbers = np.array([float(each) for each in values])
    except OverflowError:  # JSON allows whole numbers of any length
        numbers = np.array([np.inf])
    if not np.isfinite(numbers).all():
        raise UnusableError(f"{what} has a number that is not finite")
    return numbers


def _polygons(segmentation: Any, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the corners ``(n, 2)`` of each polygon; polygons of fewer than three corners are left out."""
    if not isinstance(segmentation, list):
        raise UnusableError(f"its segmentation is {segmentation!r:.40}, neither polygons nor run lengths")
    found = []
    for polygon in segmentation:
        numbers = finite_numbers(polygon, "a polygon")
        if len(numbers) % 2:
            raise UnusableError(f"a polygon has {len(numbers)} numbers, x without y")
        if len(numbers) >= 6:
            found.append(numbers.reshape(-1, 2))
            _check_reach(found[-1], size)
            _check_winding(found[-1], size)
    if not found:
        raise UnusableError("it has no polygon of at least three corners")
    return found


def _check_reach(points: np.ndarray, size: tuple[int, int]) -> None:
    beyond = REACH * max(size)
    outside = (points < -beyond) | (points > np.array(size[::-1]) + beyond)
    if outside.any():
        raise UnusableError(f"{points[outside][0]:g} is far outside its image of {size[1]} x {size[0]} pixels")


def _check_winding(points: np.ndarray, size: tuple[int, int]) -> None:
    steps = np.abs(np.roll(points, -1, 0) - points).max(1)
    if steps.sum() > WINDING * sum(size):
        raise UnusableError(f"a boundary of {steps.sum():.0f} pixels is too long for {size[1]} x {size[0]} pixels")


def _runs(segmentation: dict, size: tuple[int, int]) -> list[int]:
    """Return the lengths of the alternating runs of zeros and ones, column by column."""
    stated, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(stated, (list, tuple)) or list(stated) != list(size):
        raise UnusableError(f"its run lengths are for size {stated!r:.40} and its image is {list(size)}")
    if isinstance(counts, (str, bytes)):
        counts = _decompressed(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(_is_whole(each) and each >= 0 for each in counts):
        raise UnusableError("its run lengths are not whole numbers of at least 0")
    if sum(counts) != size[0] * size[1]:
        raise UnusableError(f"its run lengths add up to {sum(counts)}, not to {size[0] * size[1]} pixels")
    return counts


def _decompressed(text: bytes) -> list[int]:
    """Decode COCO's compressed run lengths: five bits per letter, and differences from the third run on."""
    counts: list[int] = []
    value = bits = 0
    for letter in text:
        digit = letter - 48
        if not 0 <= digit < 64 or bits > LONGEST_COUNT:
            raise UnusableError("its compressed run lengths are damaged")
        value |= (digit & 31) << bits
        bits += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = bits = 0
    if bits:
        raise UnusableError("its compressed run lengths end too early")
    return counts


def turn_to_image(
    image: Path | bytes, size: tuple[int, int], drawn: tuple[int, int], name: str, mask: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that turns a mask to fit the upright image; most masks stay as they are.

    Masks of a camera's image may be drawn before or after it is turned by its EXIF orientation. Their size reveals
    which, unless height and width are equal.

    Args:
        image: path or bytes of the image.
        size: ``(height, width)`` of the upright image.
        drawn: ``(height, width)`` of the mask.
        name, mask: names of the image and the mask in the message.

    Raises:
        UsageError: the mask and the image differ in size.
    """
    if tuple(drawn) == tuple(size):
        return lambda array: array
    if tuple(drawn[::-1]) == tuple(size) and (turn := TURNS.get(exif_orientation(image))):
        return turn
    raise UsageError(
        f"{name} is {size[0]} x {size[1]}, and {mask} {drawn[0]} x {drawn[1]} (height x width): "
        "they do not belong together. Get both in one size."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
