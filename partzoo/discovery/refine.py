"""Upsample coarse maps to the image's size, so that they follow the image's edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.errors import ShapeError

RADIUS, EPSILON = 2, 4e-3  # of the guided filter, in cells and in squared units of colours in 0..1
STRIP = 2**21  # number of map values upsampled at once, so that memory does not grow with the image


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps ``(K, h, w)`` bilinearly, with antialiasing if the result is smaller."""
    size = (size[0], size[1])
    if maps.shape[-2:] == size:
        return maps
    smaller = size[0] < maps.shape[-2] or size[1] < maps.shape[-1]
    return interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=smaller)[0]


def follow_edges(maps: Tensor, pixels: Tensor) -> Tensor:
    """Refine maps ``(K, h, w)`` in 0..1 along the edges of an image ``(3, H, W)``, to the image's size."""
    guide = resize(pixels, maps.shape[1:])
    return guided_filter(guide, maps, radius=RADIUS, epsilon=EPSILON, fine=pixels).clamp_(0, 1)


def guided_filter(
    guide: Tensor, maps: Tensor, *, radius: int = 4, epsilon: float = 1e-3, fine: Tensor | None = None
) -> Tensor:
    """Smooth maps where the guide is smooth, and keep their edges where the guide has edges.

    In each window a map is fitted as a linear function of the guide's three channels; the fits, averaged, are applied
    to the guide, or to a finer version of it.

    Args:
        guide: ``(3, h, w)`` image, 0..1.
        maps: ``(K, h, w)``.
        radius: radius of the windows, in pixels; smaller if the guide is small.
        epsilon: variance of the guide below which a window counts as flat.
        fine: the same image at a larger size, ``(3, H, W)``; the result has that size.

    Returns:
        ``(K, h, w)`` or ``(K, H, W)``. Maps that sum to one still do.

    Raises:
        ShapeError: guide and maps differ in height or width.

    Source: He, Sun and Tang, "Guided image filtering", TPAMI 2013, equations 19-21; the finer guide is He and
    Sun, "Fast guided filter", arXiv 1505.00996.
    """
    if guide.shape[1:] != maps.shape[1:]:
        raise ShapeError(f"The guide is {tuple(guide.shape[1:])} and the maps are {tuple(maps.shape[1:])}.")
    count, radius = len(maps), max(min(radius, (min(guide.shape[1:]) - 1) // 2), 0)

    down, across = (_window(length, radius, guide) for length in guide.shape[1:])

    def mean(x: Tensor) -> Tensor:
        return down @ x @ across.T

    first, second = torch.triu_indices(3, 3)
    products = guide[first] * guide[second]
    crossed = (guide[:, None] * maps).flatten(0, 1)
    g, gg, m, gm = mean(torch.cat([guide, products, maps, crossed])).split([3, 6, count, 3 * count])
    variance = gg - g[first] * g[second]
    variance[[0, 3, 5]] += epsilon
    covariance = gm.unflatten(0, (3, count)) - g[:, None] * m
    slope = _solve(variance, covariance)
    offset = m - (slope * g[:, None]).sum(0)
    fit = mean(torch.cat([slope.flatten(0, 1), offset]))
    if fine is not None:
        fit, guide = resize(fit, fine.shape[1:]), fine
    red, green, blue, offset = fit.unflatten(0, (4, count))
    return offset.addcmul(red, guide[0]).addcmul_(green, guide[1]).addcmul_(blue, guide[2])


def strips(maps: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Upsample maps ``(K, h, w)`` bilinearly to ``size``; yield a few rows ``(K, rows, W)`` at a time, from the top."""
    height, width = size
    if len(maps) * height * width <= STRIP:
        yield interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
        return
    place = ((torch.arange(height, device=maps.device) + 0.5) * (maps.shape[1] / height) - 0.5).clamp_(min=0)
    upper = place.long().clamp_(max=maps.shape[1] - 1)
    lower = (upper + 1).clamp_(max=maps.shape[1] - 1)
    step = max(STRIP // (len(maps) * width), 1)
    for rows in torch.arange(height, device=maps.device).split(step):
        first, last = int(upper[rows[0]]), int(lower[rows[-1]])
        wide = maps[:, first : last + 1]
        if maps.shape[2] != width:
            wide = interpolate(wide, width, mode="linear", align_corners=False)
        share = (place[rows] - upper[rows])[:, None]
        yield torch.lerp(wide[:, upper[rows] - first], wide[:, lower[rows] - first], share)


def _window(length: int, radius: int, like: Tensor) -> Tensor:
    """Return the matrix ``(length, length)`` that averages over windows, cut off at the ends."""
    place = torch.arange(length, device=like.device)
    near = ((place[:, None] - place).abs() <= radius).to(like.dtype)
    return near / near.sum(1, keepdim=True)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric 3 x 3 systems: ``matrix`` (6, h, w) is the upper triangle, ``right`` (3, K, h, w)."""
    a, b, c, d, e, f = matrix
    inverse = torch.stack([d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b])
    inverse /= a * inverse[0] + b * inverse[1] + c * inverse[2]
    a, b, c, d, e, f = inverse[:, None]
    x, y, z = right
    return torch.stack([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z])
