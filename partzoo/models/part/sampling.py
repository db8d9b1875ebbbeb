"""Sample off-grid patches from batches of images or signals: positions, pixels and relative targets.

Boxes are ``(B, N, 4)`` left, top, width, height in pixels of an image ``(B, C, H, W)``, or ``(B, N, 2)`` start and
length in samples of a signal ``(B, C, T)``: D first coordinates and D sizes, for D = 2 or 1 dimensions.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 4, "Sampling" and "Objective", section 5.1
(ii), and figure 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from partzoo.data.views import Draw
from partzoo.errors import ShapeError, UsageError

Sampling = Literal["off-grid", "integer", "on-grid", "multi-scale"]
SAMPLINGS = ("off-grid", "integer", "on-grid", "multi-scale")
SCALES = (0.5, 2.0)  # range of the sides, in patches (PART, section 5.1, ii)
AT_ONCE = 2**26  # largest number of values between resizing along y and along x, to bound the memory


@dataclass(frozen=True, eq=False)
class Sample:
    """Patches of a batch of images or signals, with the relative encoder's targets.

    Attributes:
        patches: ``(B, N, C, P, P)`` or ``(B, N, C, P)``; uint8 pixels remain uint8 if they are cut out at whole pixels,
            and become floats on the same scale if they are interpolated.
        boxes: ``(B, N, 2D)``, the patches' boxes in the image or signal.
        pairs: ``(B, S, 2)`` int64 of (reference, target); None means all N * N, ordered by reference.
        targets: ``(B, S, D)`` or ``(B, S, 2D)`` float32; see :func:`box_targets`.
    """

    patches: Tensor
    boxes: Tensor
    pairs: Tensor | None
    targets: Tensor


@torch.no_grad()
def sample(
    pixels: Tensor,
    patch: int,
    sampling: Sampling = "off-grid",
    *,
    count: int | None = None,
    pairs: int = 0,
    sizes: bool = False,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Sample:
    """Draw patches and pairs for each image or signal of a batch.

    Args:
        pixels: images ``(B, C, H, W)`` or signals ``(B, C, T)``.
        patch: side P of the encoder's patches, in pixels (samples).
        sampling: ``"off-grid"``, real positions, uniform over those where the patch is inside the image; ``"integer"``,
            whole pixels instead, which is faster; ``"on-grid"``, all cells of the grid in random order (PART-grid);
            ``"multi-scale"``, width and height (length) each uniform in P/2..2P, then a position uniform over those
            inside, resized to P.
        count: number of patches N of each image; None uses the number of cells of the grid.
        pairs: number of ordered pairs of each image; 0 means all N * N.
        sizes: whether to include relative sizes in the targets.
        weights: ``(B, H, W)`` or ``(B, T)``, or one map for all, ``(H, W)`` or ``(T,)``: density of the patches'
            centres; see :func:`sample_positions`. Not available for ``"on-grid"``.
        generator: source of randomness, on the device of ``pixels``.

    Raises:
        UsageError: the sampling is unknown, or a number is out of range.
        ShapeError: the images are smaller than a patch, or the weights differ from them in size.

    Source: PART, section 4, "Sampling", section 5.1 (ii), figure 7.
    """
    size = tuple(pixels.shape[2:])
    _check(pixels, patch, sampling, count, pairs, weights)
    cells = torch.Size(side // patch for side in size).numel()
    draw: Draw = {"generator": generator, "device": pixels.device}
    if sampling == "on-grid":
        boxes = _square(grid_positions(pixels.shape[0], size, patch, **draw), patch)
    elif sampling == "multi-scale":
        boxes = sample_boxes(pixels.shape[0], count or cells, size, patch, weights=weights, **draw)
    else:
        boxes = _square(
            sample_positions(
                pixels.shape[0],
                count or cells,
                size,
                patch,
                continuous=sampling == "off-grid",
                weights=weights,
                **draw,
            ),
            patch,
        )
    chosen = sample_pairs(pixels.shape[0], boxes.shape[1], pairs, **draw) if pairs else None
    if sampling == "multi-scale":
        patches = resample_boxes(pixels, boxes, patch)
    else:
        patches = gather_patches(pixels, boxes[..., : len(size)], patch)
    return Sample(patches, boxes, chosen, box_targets(boxes, chosen, sizes=sizes))


def sample_positions(
    batch: int,
    count: int,
    size: Sequence[int],
    patch: float,
    *,
    continuous: bool = False,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw top-left corners of off-grid patches, uniform over the positions where a patch lies wholly inside.

    Args:
        batch: number of images B.
        count: number of patches N of each image.
        size: height and width of the images in pixels; ``(T,)`` for signals.
        patch: side P of a patch in pixels.
        continuous: whether to draw real positions in [0, W - P]; otherwise whole pixels.
        weights: ``(B, H, W)`` or ``(H, W)``, non-negative: density of the patches' centres. With an object's mask,
            patches lie on the object, and with the complement on the background. Images whose weights are zero at all
            possible centres are sampled uniformly.
        generator: source of randomness, on ``device``.
        device: device of the positions.

    Returns:
        ``(B, N, 2)``, x and y in pixels, float32, or int64 for whole pixels; ``(B, N, 1)`` for signals.

    Source: PART, section 4, "Sampling".
    """
    room = torch.tensor([side - patch for side in reversed(size)], device=device)
    if weights is None:
        uniform = torch.rand(batch, count, len(size), generator=generator, device=device)
        return uniform * room if continuous else (uniform * (room + 1)).long()
    if continuous:
        sides = torch.full((batch, count, len(size)), float(patch), device=device)
        return _weighted_corners(weights.expand(batch, *size), sides, generator)
    for axis, side in enumerate(size, start=-len(size)):
        weights = weights.narrow(axis, int(patch // 2), int(side - patch + 1))
    flat = weights.expand(batch, *weights.shape[-len(size) :]).flatten(1).float()
    flat = torch.where(flat.sum(1, keepdim=True) > 0, flat, 1.0)
    chosen = torch.multinomial(flat, count, replacement=True, generator=generator)
    columns = weights.shape[-1]
    return torch.stack([chosen % columns, chosen // columns][: len(size)], dim=-1)


def grid_positions(
    batch: int,
    size: Sequence[int],
    patch: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the top-left corners ``(B, N, D)`` int64 of all cells of the grid, in a random order for each image.

    Source: PART, section 5.3, "Sampling strategies" and figure 7 (PART-grid).
    """
    axes = [torch.arange(side // patch, device=device) * patch for side in reversed(size)]
    cells = torch.cartesian_prod(*axes).reshape(-1, len(size))
    order = torch.rand(batch, len(cells), generator=generator, device=device).argsort(1)
    return cells[order]


def sample_boxes(
    batch: int,
    count: int,
    size: Sequence[int],
    patch: float,
    *,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw boxes of many scales and aspects: each side uniform in P/2..2P (at most the image's), wholly inside.

    Args:
        batch, count, size, patch, weights, generator, device: as in :func:`sample_positions`.

    Returns:
        ``(B, N, 2D)`` float32.

    Source: PART, section 5.1 (ii).
    """
    sides = torch.tensor(list(reversed(size)), dtype=torch.float32, device=device)
    low, high = (torch.minimum(sides, torch.tensor(float(patch * scale), device=device)) for scale in SCALES)
    lengths = low + torch.rand(batch, count, len(size), generator=generator, device=device) * (high - low)
    if weights is None:
        uniform = torch.rand(batch, count, len(size), generator=generator, device=device)
        return torch.cat([uniform * (sides - lengths), lengths], dim=-1)
    return torch.cat([_weighted_corners(weights.expand(batch, *size), lengths, generator), lengths], dim=-1)


def gather_patches(pixels: Tensor, positions: Tensor, patch: int) -> Tensor:
    """Cut patches of P pixels out of a batch of images or signals.

    Args:
        pixels: ``(B, C, H, W)`` or ``(B, C, T)``, any dtype.
        positions: ``(B, N, D)``, x and y of top-left corners in pixels. At integer positions pixels are copied; at real
            ones they are interpolated bilinearly between pixel centres.
        patch: side P in pixels.

    Returns:
        ``(B, N, C, P, P)`` or ``(B, N, C, P)``, in the dtype of ``pixels``; float32 if integers are interpolated.
    """
    batch, count, axes = positions.shape
    if not positions.is_floating_point():
        windows = pixels
        for axis in range(2, pixels.ndim):
            windows = windows.unfold(axis, patch, 1)
        index = torch.arange(batch, device=pixels.device)[:, None]
        # No type annotation of torch admits tuples whose length is known only at run time.
        chosen: Any = (index, slice(None), *reversed(positions.unbind(-1)))
        return windows[chosen]
    pixels = pixels if pixels.is_floating_point() else pixels.float()
    size = positions.new_tensor(list(reversed(pixels.shape[2:])))
    steps = torch.arange(patch, device=pixels.device) + 0.5
    offsets = torch.stack(torch.meshgrid(*[steps] * axes, indexing="xy"), dim=-1)
    grid = (positions[(slice(None), slice(None), *[None] * axes)] + offsets) / size * 2 - 1
    if axes == 1:
        pixels, grid = pixels[:, :, None], torch.cat([grid, torch.zeros_like(grid)], dim=-1)[:, :, None]
    sampled = nn.functional.grid_sample(
        pixels, grid.to(pixels.dtype).flatten(1, 2), padding_mode="border", align_corners=False
    )
    return sampled.reshape(batch, -1, count, *[patch] * axes).transpose(1, 2)


def resample_boxes(pixels: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """Resize the content of boxes to patches of P pixels, with antialiasing.

    Along each axis, a triangle filter is applied. Its width is the factor of reduction, and it extends beyond the box
    into the image, as in Pillow's ``resize(..., BILINEAR, box=...)``. For boxes of P pixels the result equals
    :func:`gather_patches`.

    Args:
        pixels: ``(B, C, H, W)`` or ``(B, C, T)``.
        boxes: ``(B, N, 2D)``, real.
        patch: side P.

    Returns:
        ``(B, N, C, P, P)`` or ``(B, N, C, P)`` float.
    """
    floats = pixels.dtype if pixels.is_floating_point() else torch.float32
    each = boxes.shape[1] * patch * pixels.shape[1] * max(pixels.shape[2:])
    parts = zip(*(tensor.split(max(AT_ONCE // each, 1)) for tensor in (pixels, boxes)), strict=True)
    with torch.autocast(pixels.device.type, enabled=False):
        return torch.cat([_resample(some.to(floats), their, patch) for some, their in parts])


def sample_pairs(
    batch: int,
    tokens: int,
    count: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw ordered pairs (reference, target) of different tokens, uniform over all of them.

    Returns:
        ``(B, count, 2)`` int64.

    Source: PART, section 4, "Objective".
    """
    reference = torch.randint(tokens, (batch, count), generator=generator, device=device)
    step = torch.randint(1, tokens, (batch, count), generator=generator, device=device)
    return torch.stack([reference, (reference + step) % tokens], dim=-1)


def relative_targets(positions: Tensor, patch: int, pairs: Tensor | None = None) -> Tensor:
    """Compute the relative encoder's targets for patches of one size: displacements in patches.

    Args:
        positions: ``(B, N, D)``, corners (or centres) in pixels.
        patch: side of the patches in pixels.
        pairs: ``(B, S, 2)`` as (reference, target); None means all N * N, row by reference.

    Returns:
        ``(B, S, D)`` float32, ``(x_target - x_reference) / patch`` and the same for y; S = N * N without pairs.

    Source: PART, section 4, "Objective".
    """
    return box_targets(_square(positions, patch), pairs)


def box_targets(boxes: Tensor, pairs: Tensor | None = None, *, sizes: bool = False) -> Tensor:
    """Compute the relative encoder's targets: displacement and size of the target, in units of the reference's size.

    Args:
        boxes: ``(B, N, 2D)``.
        pairs: ``(B, S, 2)`` as (reference, target); None means all N * N, row by reference.
        sizes: whether to include relative sizes.

    Returns:
        ``(B, S, D)`` float32, ``(x_target - x_reference) / w_reference`` and the same for y with h; with ``sizes``
        ``(B, S, 2D)``, then ``w_target / w_reference`` and ``h_target / h_reference``.

    Source: PART, section 4, "Objective", and section 5.1 (ii).
    """
    corners, lengths = boxes.float().chunk(2, dim=-1)
    centres = corners + lengths / 2
    if pairs is None:
        displacement = (centres[:, None] - centres[:, :, None]) / lengths[:, :, None]
        ratio = lengths[:, None] / lengths[:, :, None]
        return (torch.cat([displacement, ratio], dim=-1) if sizes else displacement).flatten(1, 2)
    index = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    reference, target = pairs.unbind(-1)
    displacement = (centres[index, target] - centres[index, reference]) / lengths[index, reference]
    if not sizes:
        return displacement
    return torch.cat([displacement, lengths[index, target] / lengths[index, reference]], dim=-1)


def coverage(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Count the boxes that contain each pixel's centre; pixels in no box are masked out by the sampling.

    Args:
        boxes: ``(B, N, 2D)``.
        size: height and width of the images, or ``(T,)``.

    Returns:
        ``(B, H, W)`` or ``(B, T)`` int64.

    Source: PART, section 4, "Sampling" ("parts of the image are naturally masked out").
    """
    inside = []
    for axis, side in enumerate(reversed(size)):
        centres = torch.arange(side, device=boxes.device) + 0.5
        low = boxes[..., axis, None].float()
        inside.append(((centres >= low) & (centres < low + boxes[..., len(size) + axis, None])).float())
    counts = inside[0].sum(1) if len(size) == 1 else inside[1].mT @ inside[0]
    return counts.round().long()


def _square(positions: Tensor, patch: int) -> Tensor:
    """Return boxes of one size from their corners, in the dtype of the corners."""
    return torch.cat([positions, torch.full_like(positions, patch)], dim=-1)


def _resample(pixels: Tensor, boxes: Tensor, patch: int) -> Tensor:
    axes = pixels.ndim - 2
    filters = [
        _filters(boxes[..., axis], boxes[..., axes + axis], side, patch).to(pixels.dtype)
        for axis, side in enumerate(reversed(pixels.shape[2:]))
    ]
    if axes == 1:
        return torch.einsum("bct,bnpt->bncp", pixels, filters[0])
    # The filter is separable, so two products resize all boxes at once, whatever their sizes.
    rows = torch.einsum("bchw,bnph->bncpw", pixels, filters[1])
    return torch.einsum("bncpw,bnqw->bncpq", rows, filters[0])


def _filters(start: Tensor, length: Tensor, side: int, patch: int) -> Tensor:
    """Compute weights ``(B, N, P, side)`` that resize intervals ``(B, N)`` of an axis to P pixels; rows sum to 1."""
    # At least two pixels wide: enlarging then interpolates bilinearly, and shrinking averages (antialiasing).
    scale = (length / patch)[..., None, None]
    steps = torch.arange(patch, device=start.device)[:, None] + 0.5
    distance = torch.arange(side, device=start.device) + 0.5 - (start[..., None, None] + steps * scale)
    weights = (1 - distance.abs() / scale.clamp(min=1)).clamp(min=0)
    # At the image's border a filter lacks some of its pixels; the others must make up for their weight.
    return weights / weights.sum(-1, keepdim=True)


def _weighted_corners(weights: Tensor, lengths: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw real-valued corners of boxes inside an image, with a density of centres that is constant over each pixel.

    This inverts the distribution exactly, for every box over the positions that its size allows: first the row is
    drawn, by the weight of each row between the allowed columns, then the column in that row.

    Args:
        weights: density ``(B, H, W)`` or ``(B, T)``.
        lengths: ``(B, N, D)``, width and height of the boxes.
        generator: source of randomness, on the device of ``lengths``.

    Returns:
        ``(B, N, D)``.
    """
    axes = lengths.shape[-1]
    size = lengths.new_tensor(list(reversed(weights.shape[1:])))
    low, high = lengths / 2, size - lengths / 2
    uniform = torch.rand(*lengths.shape, generator=generator, device=lengths.device).double()
    if axes == 1:
        density = weights.double()[:, None].expand(-1, lengths.shape[1], -1)
        return (_inverse(density, low[..., 0], high[..., 0], uniform[..., 0])[..., None] - low).float()
    along = nn.functional.pad(weights.double().cumsum(2), (1, 0))
    rows = _at(along[:, None], high[..., 0]) - _at(along[:, None], low[..., 0])
    y = _inverse(rows, low[..., 1], high[..., 1], uniform[..., 1])
    row = y.floor().long().clamp(0, weights.shape[1] - 1)
    density = weights.double()[torch.arange(weights.shape[0], device=weights.device)[:, None], row]
    x = _inverse(density, low[..., 0], high[..., 0], uniform[..., 0])
    return torch.minimum((torch.stack([x, y], dim=-1) - low).clamp(min=0), size - lengths).float()


def _at(cumulated: Tensor, place: Tensor) -> Tensor:
    """Interpolate cumulative weights ``(B, 1, H, W + 1)`` linearly at columns ``(B, N)``, to ``(B, N, H)``."""
    last = cumulated.shape[-1] - 2
    column = place.floor().long().clamp(0, last)
    index = column[:, :, None, None].expand(-1, -1, cumulated.shape[2], 1)
    cumulated = cumulated.expand(-1, place.shape[1], -1, -1)
    left, right = cumulated.gather(3, index)[..., 0], cumulated.gather(3, index + 1)[..., 0]
    return left + (right - left) * (place - column)[..., None]


def _inverse(density: Tensor, low: Tensor, high: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distribution of ``(B, N, L)`` between ``low`` and ``high``, at the share ``uniform``."""
    edges = torch.arange(density.shape[-1] + 1, device=density.device, dtype=density.dtype)
    inside = (torch.minimum(edges[1:], high[..., None]) - torch.maximum(edges[:-1], low[..., None])).clamp(min=0)
    mass = density * inside
    mass = torch.where(mass.sum(-1, keepdim=True) > 0, mass, inside)
    total = mass.cumsum(-1)
    wanted = uniform[..., None] * total[..., -1:]
    pixel = torch.searchsorted(total, wanted, right=True).clamp(max=density.shape[-1] - 1)
    own = mass.gather(-1, pixel)
    share = ((wanted - total.gather(-1, pixel) + own) / own.clamp(min=1e-12)).clamp(0, 1)[..., 0]
    pixel = pixel[..., 0].to(density.dtype)
    start, end = torch.maximum(pixel, low), torch.minimum(pixel + 1, high)
    return start + share * (end - start).clamp(min=0)


def _check(pixels: Tensor, patch: int, sampling: str, count: int | None, pairs: int, weights: Tensor | None) -> None:
    size = tuple(pixels.shape[2:])
    if pixels.ndim not in (3, 4) or min(size) < patch:
        raise ShapeError(
            f"Patches of {patch} need images (B, C, H, W) or signals (B, C, T) of at least that size, not "
            f"{tuple(pixels.shape)}."
        )
    if sampling not in SAMPLINGS:
        raise UsageError(f"Unknown sampling {sampling!r}: choose one of {', '.join(SAMPLINGS)}.")
    if sampling == "on-grid" and (count is not None or weights is not None):
        raise UsageError("sampling='on-grid' takes every cell once: leave count and weights out.")
    if pairs < 0 or (count is not None and count < 2):
        raise UsageError(f"count={count} must be 2 or more, and pairs={pairs} 0 (all) or more.")
    if weights is not None and tuple(weights.shape) not in (size, (pixels.shape[0], *size)):
        raise ShapeError(f"weights are {tuple(weights.shape)}; they must be {size} or {(pixels.shape[0], *size)}.")
