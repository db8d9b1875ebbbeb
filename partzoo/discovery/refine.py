"""Upsample coarse maps to the image's size, so that they follow the image's edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.discovery.views import CELL
from partzoo.errors import ShapeError
from partzoo.images.resampling import multiplied

RADIUS, EPSILON = 2, 4e-3  # of the guided filter, in cells and in squared units of colours in 0..1
STRIP = 2**21  # number of map values upsampled at once, so that memory does not grow with the image


def resize(maps: Tensor, size: Sequence[Any]) -> Tensor:
    """Resize maps ``(K, h, w)`` or ``(B, K, h, w)`` bilinearly, with antialiasing if the result is smaller.

    An exported program serves all sizes, so it always antialiases, which changes nothing where the result is larger.
    """
    size = (size[0], size[1])
    if torch.compiler.is_compiling():
        return multiplied(maps, size, "bilinear")
    if maps.shape[-2:] == size:
        return maps
    smaller = size[0] < maps.shape[-2] or size[1] < maps.shape[-1]
    batch = maps if maps.ndim == 4 else maps[None]
    found = interpolate(batch, size, mode="bilinear", align_corners=False, antialias=smaller)
    return found if maps.ndim == 4 else found[0]


def follow_edges(maps: Tensor, pixels: Tensor) -> Tensor:
    """Refine maps ``(K, h, w)`` in 0..1 along the edges of an image ``(3, H, W)``, to the image's size.

    Both may have a leading dimension B.
    """
    guide = resize(pixels, maps.shape[-2:])
    return guided_filter(guide, maps, radius=RADIUS, epsilon=EPSILON, fine=pixels).clamp_(0, 1)


def finer(maps: Tensor, pixels: Tensor) -> Tensor:
    """Upsample maps ``(K, h, w)`` whose cells are larger than ``CELL`` pixels of the image ``(3, H, W)`` to such cells.

    Both may have a leading dimension B. :func:`follow_edges` averages over windows of 5 x 5 cells, in which small parts
    would vanish if the cells were large.
    """
    rows, columns = (torch.sym_max(a, -(-b // CELL)) for a, b in zip(maps.shape[-2:], pixels.shape[-2:], strict=True))
    return resize(maps, (rows, columns))


def guided_filter(
    guide: Tensor, maps: Tensor, *, radius: int = 4, epsilon: float = 1e-3, fine: Tensor | None = None
) -> Tensor:
    """Smooth maps where the guide is smooth, and keep their edges where the guide has edges.

    In each window a map is fitted as a linear function of the guide's three channels; the fits, averaged, are applied
    to the guide, or to a finer version of it.

    Args:
        guide: ``(3, h, w)`` image, 0..1; all arguments and the result may have a leading dimension B.
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
    if guide.shape[-2:] != maps.shape[-2:]:
        raise ShapeError(f"The guide is {tuple(guide.shape[-2:])} and the maps are {tuple(maps.shape[-2:])}.")
    shortest = torch.sym_min(guide.shape[-2], guide.shape[-1])
    count, reach = maps.shape[-3], torch.sym_min(radius, (shortest - 1) // 2)

    down, across = (_window(length, reach, guide) for length in guide.shape[-2:])

    def mean(x: Tensor) -> Tensor:
        return down @ x @ across.T

    first, second = torch.triu_indices(3, 3, device=guide.device)
    products = guide.index_select(-3, first) * guide.index_select(-3, second)
    crossed = (guide.unsqueeze(-3) * maps.unsqueeze(-4)).flatten(-4, -3)
    sums = mean(torch.cat([guide, products, maps, crossed], dim=-3))
    g, gg, m, gm = sums.split([3, 6, count, 3 * count], dim=-3)
    variance = gg - g.index_select(-3, first) * g.index_select(-3, second)
    variance = variance + epsilon * (first == second)[:, None, None]
    covariance = gm.unflatten(-3, (3, count)) - g.unsqueeze(-3) * m.unsqueeze(-4)
    slope = _solve(variance, covariance)
    offset = m - (slope * g.unsqueeze(-3)).sum(-4)
    fit = mean(torch.cat([slope.flatten(-4, -3), offset], dim=-3))
    if fine is not None:
        fit, guide = resize(fit, fine.shape[-2:]), fine
    red, green, blue, offset = fit.unflatten(-3, (4, count)).unbind(-4)
    at_red, at_green, at_blue = guide.unsqueeze(-3).unbind(-4)
    return offset.addcmul(red, at_red).addcmul_(green, at_green).addcmul_(blue, at_blue)


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


def _window(length: int, radius: int | torch.SymInt, like: Tensor) -> Tensor:
    """Return the matrix ``(length, length)`` that averages over windows, cut off at the ends."""
    place = torch.arange(length, device=like.device)
    near = ((place[:, None] - place).abs() <= radius).to(like.dtype)
    return near / near.sum(1, keepdim=True)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric 3 x 3 systems: ``matrix`` (..., 6, h, w) is the upper triangle, ``right`` (..., 3, K, h, w)."""
    a, b, c, d, e, f = matrix.unsqueeze(-3).unbind(-4)
    minors = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * minors[0] + b * minors[1] + c * minors[2]
    a, b, c, d, e, f = (minor / determinant for minor in minors)
    x, y, z = right.unbind(-4)
    return torch.stack([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z], dim=-4)
