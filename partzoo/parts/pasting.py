"""Paste parts of one image into another: aligned by the parts that both have, and in the other image's colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from partzoo.errors import UsageError
from partzoo.parts.parts import Parts

SEAM = 0.015  # width of the soft edge and of the rim where colours are compared, as a share of the longer side
SWEEPS = 30  # number of averagings with the neighbours at each resolution


def paste_parts(a: Parts, b: Parts, numbers: Sequence[int]) -> np.ndarray:
    """Paste chosen parts of the second image over the same parts of the first.

    The second image is shifted, turned and scaled so that the centroids of the parts that both images have coincide;
    compact parts count more. The pasted area is what these parts cover in either image. Its colours are changed by a
    smooth function, which takes the difference between the images at the area's rim, where both show the same part.

    Args:
        a, b: parts of both images with their images, numbered alike, such as those of one part model.
        numbers: parts to take from the second image.

    Returns:
        ``(H, W, 3)`` uint8, of the first image's size.

    Raises:
        UsageError: an image is unknown, a part does not exist, or the images have fewer than two parts in common.
    """
    if a.image is None or b.image is None:
        raise UsageError("The parts have no image: pass the result of discover_parts.")
    if any(number not in range(1, min(a.k, b.k) + 1) for number in numbers):
        raise UsageError(f"parts={list(numbers)}: the parts of both images are 1..{min(a.k, b.k)}.")
    turn, shift = alignment(a, b)
    pixels = _moved(b.image, turn, shift, a.size, Image.Resampling.BICUBIC)
    labels = _moved(b.labels + 1, turn, shift, a.size, Image.Resampling.NEAREST).astype(np.int64) - 1
    width = max(1, round(SEAM * max(a.size)))
    usable = ~_grown(labels <= 0, 1)  # pixels next to others are mixtures
    area = _grown(np.isin(a.labels, numbers) | np.isin(labels, numbers), width) & usable
    rim = _grown(area, width) & ~area & usable & (labels == a.labels)
    own, other = a.image.astype(np.float32), pixels.astype(np.float32)
    edge = (2 * _blurred(area, width) - 1).clip(0, 1)[..., None]  # soft inside the area, and nothing outside
    return (own + edge * (other + membrane(own - other, rim) - own)).round().clip(0, 255).astype(np.uint8)


def alignment(a: Parts, b: Parts) -> tuple[complex, complex]:
    """Find the similarity that maps the second image's parts to the first's.

    Places are complex numbers, x + i y in pixels from the image's corner: ``turn * place + shift`` is the place in the
    first image of a place in the second. It is the least-squares fit of the centroids, each weighted with the inverse
    variance of its part's pixels.

    Raises:
        UsageError: the images have fewer than two parts in common.
    """
    common = [number for number in a.present if number in b.present]
    if len(common) < 2:
        raise UsageError("The images have fewer than two parts in common: they cannot be aligned.")
    (first, spread_a), (second, spread_b) = (_places(parts, common) for parts in (a, b))
    weights = 1 / (spread_a / spread_a.sum() + spread_b / spread_b.sum())
    weights /= weights.sum()
    centre_a, centre_b = weights @ first, weights @ second
    away = second - centre_b
    turn = complex((weights * away.conj()) @ (first - centre_a) / (weights @ np.abs(away) ** 2))
    return turn, complex(centre_a - turn * centre_b)


def _places(parts: Parts, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return centroid and variance of each part's pixels, as complex numbers and as float64."""
    rows, columns = np.indices(parts.size)
    places = columns + 0.5 + 1j * (rows + 0.5)
    groups = [places[parts.labels == number] for number in numbers]
    return np.array([group.mean() for group in groups]), np.array([group.var() + 1 for group in groups])


def _moved(array: np.ndarray, turn: complex, shift: complex, size: tuple[int, int], resample: int) -> np.ndarray:
    """Apply a similarity to an image or to labels; outside of the array the result is zero."""
    smaller = max(1, int(1 / max(abs(turn), 1e-6)))
    if smaller > 1 and array.ndim == 3:  # or pixels would be skipped
        small = Image.fromarray(array).reduce(smaller)
        turn, array = turn * array.shape[1] / small.width, np.asarray(small)
    back = 1 / turn
    start = -shift * back
    matrix = (back.real, -back.imag, start.real, back.imag, back.real, start.imag)
    image = Image.fromarray(array if array.ndim == 3 else array.astype(np.int32))
    return np.asarray(image.transform(size[::-1], Image.Transform.AFFINE, matrix, resample))


def _grown(mask: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * width + 1))) > 0


def _blurred(mask: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.GaussianBlur(width)), np.float32) / 255


def membrane(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Continue known values smoothly: each other value nears the mean of its neighbours.

    Args:
        values: ``(H, W, C)`` float32.
        known: ``(H, W)`` bool; where it is False, values are ignored. If it is False everywhere, the result is zero.
    """
    height, width = known.shape
    if not known.any():
        return np.zeros_like(values)
    if min(height, width) > 2:
        padding = ((0, height % 2), (0, width % 2))
        counted = np.pad(known.astype(np.float32), padding)
        counts = _blocks(counted)
        sums = _blocks(np.pad(values * known[..., None], (*padding, (0, 0))))
        coarse = membrane(sums / np.maximum(counts, 1)[..., None], counts > 0)
        found = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    else:
        found = np.broadcast_to(values[known].mean(0), values.shape)
    found = np.where(known[..., None], values, found)
    for _ in range(SWEEPS):
        around = np.pad(found, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
        found = np.where(known[..., None], values, mean)
    return found


def _blocks(values: np.ndarray) -> np.ndarray:
    """Add up the values of blocks of two by two cells."""
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
