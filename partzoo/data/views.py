"""Crops and colours of whole batches on their device, each image with parameters of its own.

They agree with torchvision's operators on single images: crops with those on 8-bit PIL images, colours with those
on float tensors.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypedDict

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
PIL_UNIT = 1 << 22  # what PIL counts the weights of 8-bit pixels in
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Draw(TypedDict):
    """Keyword arguments of torch's random functions: the source of randomness, and the device of the result."""

    generator: torch.Generator | None
    device: torch.device | str | None


def random_boxes(
    count: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random boxes of an image, as torchvision's ``RandomResizedCrop`` draws them.

    Args:
        count: how many, B.
        size: height and width of the image.
        scale: range of the box's part of the area.
        ratio: range of width by height.
        generator: source of randomness, on ``device``.
        device: of the result.

    Returns:
        ``(B, 4)`` int64: top, left, height, width. The first of ten draws that fits, else as much of the image's
        middle as the ratios allow.
    """
    draw: Draw = {"generator": generator, "device": device}
    height, width = size
    areas = height * width * torch.empty(count, 10, device=device).uniform_(*scale, generator=generator)
    ratios = torch.empty(count, 10, device=device).uniform_(*map(math.log, ratio), generator=generator).exp()
    sizes = torch.stack([(areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()], dim=2).long()
    limits = sizes.new_tensor(size)
    fits = ((sizes > 0) & (sizes <= limits)).all(2)
    chosen = sizes[torch.arange(count, device=device), fits.int().argmax(1)]
    corners = (torch.rand(count, 2, **draw) * (limits - chosen + 1)).long()
    middle = (
        min(height, round(width / ratio[0])) if width / height < ratio[0] else height,
        min(width, round(height * ratio[1])) if width / height > ratio[1] else width,
    )
    spare = sizes.new_tensor([(height - middle[0]) // 2, (width - middle[1]) // 2, *middle])
    return torch.where(fits.any(1)[:, None], torch.cat([corners, chosen], dim=1), spare)


def bilinear_weights(centres: Tensor, step: Tensor, low: Tensor, high: Tensor, size: int) -> Tensor:
    """How much each of ``size`` pixels in a line counts for each pixel of the result.

    A triangle around the centre, as wide as a pixel, or as a pixel of the result where that is wider.

    Args:
        centres: ``(B, S)``, in pixel indices.
        step: ``(B,)``, distance of neighbouring centres.
        low, high: ``(B,)``; only pixels from low on and below high count.
        size: of the line.

    Returns:
        ``(B, S, size)``, rows that add up to 1, in PIL's fixed point.
    """
    at = torch.arange(size, device=centres.device)
    weights = 1 - (at - centres[..., None]).abs() / step.clamp(min=1)[:, None, None]
    inside = (at >= low[:, None]) & (at < high[:, None])
    weights = weights.clamp_(min=0) * inside[:, None]
    weights = weights / weights.sum(2, keepdim=True)
    return (weights * PIL_UNIT).add_(0.5).floor_() / PIL_UNIT


def resample(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)`` in 0..255 weighted by rows ``(B, S, H)`` and columns ``(B, T, W)``: ``(B, 3, S, T)``.

    Rounded to whole levels after each direction, columns first, as PIL does.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        across = torch.matmul(pixels, columns.mT[:, None]).add_(0.5).floor_()
        return torch.matmul(rows[:, None], across).add_(0.5).floor_()


def crop_resize(pixels: Tensor, boxes: Tensor, side: int, flipped: Tensor | None = None) -> Tensor:
    """A box of each image, resized bilinearly with antialiasing.

    Args:
        pixels: ``(B, 3, H, W)`` float, 0..255.
        boxes: ``(B, 4)`` top, left, height, width.
        side: of the result.
        flipped: ``(B,)`` bool, which to mirror left to right.

    Returns:
        ``(B, 3, side, side)`` float, whole levels of 0..255.
    """

    def weights(start: Tensor, length: Tensor, size: int) -> Tensor:
        step = length.to(pixels.dtype) / side
        centres = start[:, None] + (torch.arange(side, device=pixels.device) + 0.5) * step[:, None] - 0.5
        return bilinear_weights(centres, step, start, start + length, size)

    top, left, height, width = boxes.unbind(1)
    columns = weights(left, width, pixels.shape[3])
    if flipped is not None:
        columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    return resample(pixels, weights(top, height, pixels.shape[2]), columns)


def enlarged_patches(pixels: Tensor, corners: Tensor, enlarged: int) -> Tensor:
    """Windows as large as the image out of the enlarged image, without making that.

    Args:
        pixels: ``(B, 3, S, S)`` float, 0..255.
        corners: ``(B, 2)`` top and left in the enlarged image, in pixels.
        enlarged: side of the enlarged image.

    Returns:
        ``(B, 3, S, S)`` float, whole levels of 0..255.
    """
    side = pixels.shape[3]
    step = pixels.new_full((len(pixels),), side / enlarged)
    low, high = torch.zeros_like(step), torch.full_like(step, side)

    def weights(start: Tensor) -> Tensor:
        centres = (start[:, None] + torch.arange(side, device=pixels.device) + 0.5) * step[:, None] - 0.5
        return bilinear_weights(centres, step, low, high, side)

    return resample(pixels, weights(corners[:, 0]), weights(corners[:, 1]))


def cut(pixels: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares ``(B, C, side, side)`` of images ``(B, C, H, W)`` at corners ``(B, 2)``, top and left."""
    index, rows, columns = _places(corners, side)
    return pixels[index, :, rows, columns].permute(0, 3, 1, 2)


def place(patches: Tensor, corners: Tensor, side: int) -> Tensor:
    """Zeros ``(B, C, side, side)`` with a patch ``(B, C, p, p)`` each at its corner ``(B, 2)``, top and left."""
    canvas = patches.new_zeros(len(patches), patches.shape[1], side, side)
    index, rows, columns = _places(corners, patches.shape[3])
    canvas[index, :, rows, columns] = patches.permute(0, 2, 3, 1)
    return canvas


def _places(corners: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    along = torch.arange(side, device=corners.device)
    rows, columns = corners[:, :1] + along, corners[:, 1:] + along
    return torch.arange(len(corners), device=corners.device)[:, None, None], rows[:, :, None], columns[:, None]


def patch_corners(
    count: int,
    patches: int,
    places: int,
    side: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random corners of patches, of which the first two do not overlap.

    Args:
        count: images, B.
        patches: of each, N.
        places: corners lie at 0..places - 1 in both directions; above ``side`` if N > 1.
        side: of a patch, in the same pixels; 0 lets all patches overlap.
        generator: source of randomness, on ``device``.
        device: of the result.

    Returns:
        ``(B, N, 2)`` int64, top and left: uniform over all that are allowed.

    Source: Spatial Reasoning, section 3.1.
    """
    draw: Draw = {"generator": generator, "device": device}
    corners = torch.randint(places, (count, patches, 2), **draw)
    if patches > 1 and side:
        pairs, far, near = (pairs.to(device) for pairs in _pairs_along(places, side))
        by_rows = torch.rand(count, 1, **draw) < len(pairs) / (len(pairs) + len(near))
        apart, other, free = (p[torch.randint(len(p), (count,), **draw)] for p in (far, near, pairs))
        rows, columns = torch.where(by_rows, apart, other), torch.where(by_rows, free, apart)
        corners[:, :2] = torch.stack([rows, columns], dim=2)
    return corners


@cache
def _pairs_along(places: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of places in one direction, those at least a side apart, and the rest."""
    pairs = torch.cartesian_prod(torch.arange(places), torch.arange(places))
    apart = (pairs[:, 0] - pairs[:, 1]).abs() >= side
    return pairs, pairs[apart], pairs[~apart]


def grey(pixels: Tensor) -> Tensor:
    """Luma ``(B, 1, H, W)`` of images ``(B, 3, H, W)``."""
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def shift_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)`` in 0..1 with hues turned by ``(B,)`` parts of the circle."""
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    by = chroma.clamp(min=1e-12)
    sixth = torch.where(
        value == red,
        (green - blue) / by,
        torch.where(value == green, 2 + (blue - red) / by, 4 + (red - green) / by),
    )
    sixth += 6 * turns[:, None, None]
    steps = [(sixth + n).remainder_(6) for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1) for k in steps], dim=1)


def jitter(pixels: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in an order of each image's own.

    Args:
        pixels: ``(B, 3, H, W)`` float, 0..1.
        order: ``(B, 4)`` int64, a permutation of BRIGHTNESS, CONTRAST, SATURATION and HUE.
        factors: ``(B, 4)`` by number of the change; 1 leaves brightness, contrast and saturation, 0 leaves the hue.

    Returns:
        As ``pixels``. The first three are blends with black, with the image's mean grey and with its greys.
    """
    for change in order.unbind(1):
        factor = factors.gather(1, change[:, None])[:, 0]
        is_hue, by_mean, by_grey = (
            (change == kind).to(pixels.dtype)[:, None, None, None] for kind in (HUE, CONTRAST, SATURATION)
        )
        shades = grey(pixels)
        goal = by_mean * shades.mean((2, 3), keepdim=True) + by_grey * shades
        weight = torch.where(is_hue > 0, 1, factor[:, None, None, None])
        pixels = torch.lerp(goal, pixels, weight).clamp_(0, 1)
        turned = ((change == HUE) & (factor != 0)).nonzero()[:, 0]
        pixels[turned] = shift_hue(pixels[turned], factor[turned])
    return pixels


def random_colours(
    pixels: Tensor,
    *,
    strength: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
    jittered: float = 0.8,
    greyed: float = 0.2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images ``(B, 3, H, W)`` in 0..1 with random colours: jitter, then no colour at all.

    Args:
        pixels: float.
        strength: how far brightness, contrast, saturation and hue may leave 1, 1, 1 and 0 either way.
        jittered, greyed: part of the images whose colours are changed, and taken away.
        generator: source of randomness, on the images' device.

    Source: Spatial Reasoning, section 3.1, after Patacchiola and Storkey.
    """
    draw: Draw = {"generator": generator, "device": pixels.device}
    count = len(pixels)
    neutral = pixels.new_tensor([1, 1, 1, 0])
    spread = (2 * torch.rand(count, 4, **draw) - 1) * pixels.new_tensor(strength)
    spread *= torch.rand(count, 1, **draw) < jittered
    order = torch.rand(count, 4, **draw).argsort(1)
    pixels = jitter(pixels, order, (neutral + spread).to(pixels.dtype))
    colourless = (torch.rand(count, 1, 1, 1, **draw) < greyed).to(pixels.dtype)
    return torch.lerp(pixels, grey(pixels), colourless)
