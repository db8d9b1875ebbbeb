"""Augment a whole batch on its device, with separate random parameters for each image.

The results equal what torchvision's operators return for single images: crops as on 8-bit PIL images, colours as on
float tensors.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypedDict

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
PIL_UNIT = 1 << 22  # PIL's fixed-point unit of weights for 8-bit pixels
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
    """Draw random boxes in an image, as torchvision's ``RandomResizedCrop`` does.

    Args:
        count: number of boxes B.
        size: height and width of the image in pixels.
        scale: range of the box's share of the image's area.
        ratio: range of width divided by height.
        generator: source of randomness, on ``device``.
        device: device of the result.

    Returns:
        ``(B, 4)`` int64: top, left, height, width. Each is the first of ten draws that fits into the image; if none
        does, it is the largest centred box that the ratios allow.
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
    """Compute, for each pixel of a resized line, the triangle-filter weights of the original line's pixels.

    The filter reaches one pixel to either side of the centre, or one pixel of the result if that is wider.

    Args:
        centres: ``(B, S)``, centres of the result's pixels, in indices of the line's pixels.
        step: ``(B,)``, distance between neighbouring centres.
        low, high: ``(B,)``; only pixels in low..high - 1 are used.
        size: number of pixels of the line.

    Returns:
        ``(B, S, size)``, rows that add up to 1, up to PIL's fixed-point rounding.
    """
    at = torch.arange(size, device=centres.device)
    # Shrinking must average over all pixels under a result's pixel; enlarging interpolates between two neighbours.
    weights = 1 - (at - centres[..., None]).abs() / step.clamp(min=1)[:, None, None]
    inside = (at >= low[:, None]) & (at < high[:, None])
    weights = weights.clamp_(min=0) * inside[:, None]
    weights = weights / weights.sum(2, keepdim=True)
    return (weights * PIL_UNIT).add_(0.5).floor_() / PIL_UNIT


def resample(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resize images ``(B, 3, H, W)`` in 0..255 with weights for rows ``(B, S, H)`` and columns ``(B, T, W)``.

    Returns:
        ``(B, 3, S, T)``.
    """
    # PIL stores 8-bit pixels after each direction, columns first, so both results are rounded to whole levels.
    with torch.autocast(pixels.device.type, enabled=False):
        across = torch.matmul(pixels, columns.mT[:, None]).add_(0.5).floor_()
        return torch.matmul(rows[:, None], across).add_(0.5).floor_()


def crop_resize(pixels: Tensor, boxes: Tensor, side: int, flipped: Tensor | None = None) -> Tensor:
    """Crop a box of each image and resize it bilinearly with antialiasing.

    Args:
        pixels: ``(B, 3, H, W)`` float, 0..255.
        boxes: ``(B, 4)`` top, left, height, width, in pixels.
        side: side of the result in pixels.
        flipped: ``(B,)`` bool, which results to mirror left to right.

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
    """Cut windows of the image's size out of the enlarged image, without computing the whole enlarged image.

    Args:
        pixels: ``(B, 3, S, S)`` float, 0..255.
        corners: ``(B, 2)`` top and left in the enlarged image, in pixels.
        enlarged: side of the enlarged image in pixels.

    Returns:
        ``(B, 3, S, S)`` float, rounded to integers from 0 to 255.
    """
    side = pixels.shape[3]
    step = pixels.new_full((len(pixels),), side / enlarged)
    low, high = torch.zeros_like(step), torch.full_like(step, side)

    def weights(start: Tensor) -> Tensor:
        centres = (start[:, None] + torch.arange(side, device=pixels.device) + 0.5) * step[:, None] - 0.5
        return bilinear_weights(centres, step, low, high, side)

    return resample(pixels, weights(corners[:, 0]), weights(corners[:, 1]))


def cut(pixels: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut squares ``(B, C, side, side)`` out of images ``(B, C, H, W)`` at corners ``(B, 2)``, top and left."""
    index, rows, columns = _places(corners, side)
    return pixels[index, :, rows, columns].permute(0, 3, 1, 2)


def place(patches: Tensor, corners: Tensor, side: int) -> Tensor:
    """Place patches ``(B, C, p, p)`` on zeros ``(B, C, side, side)`` at corners ``(B, 2)``, top and left."""
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
    """Draw random corners of patches, of which the first two do not overlap.

    Args:
        count: number of images B.
        patches: number of patches N of each image.
        places: number of positions in each direction: corners lie at 0..places - 1. For N > 1 it must exceed ``side``.
        side: side of a patch, in the same pixels; 0 lets all patches overlap.
        generator: source of randomness, on ``device``.
        device: device of the result.

    Returns:
        ``(B, N, 2)`` int64, top and left, uniform over all allowed corners.

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
    """Return all pairs of positions along one axis, then those at least ``side`` apart, then the remaining ones."""
    pairs = torch.cartesian_prod(torch.arange(places), torch.arange(places))
    apart = (pairs[:, 0] - pairs[:, 1]).abs() >= side
    return pairs, pairs[apart], pairs[~apart]


def grey(pixels: Tensor) -> Tensor:
    """Compute the luma ``(B, 1, H, W)`` of RGB images ``(B, 3, H, W)``."""
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def shift_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hues of images ``(B, 3, H, W)`` in 0..1 by ``turns`` ``(B,)``, in full turns."""
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
    """Change brightness, contrast, saturation and hue, in a separate order for each image.

    Brightness, contrast and saturation are changed by blending with black, with the image's mean grey and with the
    image in grey.

    Args:
        pixels: ``(B, 3, H, W)`` float, 0..1.
        order: ``(B, 4)`` int64, permutations of BRIGHTNESS, CONTRAST, SATURATION and HUE.
        factors: ``(B, 4)``, indexed by these numbers; 1 preserves brightness, contrast and saturation, 0 the hue.

    Returns:
        ``(B, 3, H, W)`` float, 0..1.
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
    """Augment the colours of images with random jitter and random conversion to grey.

    Args:
        pixels: ``(B, 3, H, W)`` float, 0..1.
        strength: largest deviations of the factors of brightness, contrast, saturation and hue from 1, 1, 1 and 0.
        jittered, greyed: probabilities of jitter and of conversion to grey, for each image.
        generator: source of randomness, on the device of ``pixels``.

    Returns:
        ``(B, 3, H, W)`` float, 0..1.

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
