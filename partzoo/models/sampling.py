"""Patches off the grid: positions, pixels and relative targets, a batch at a time.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 4, "Sampling" and "Objective".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sample_positions(
    batch: int,
    count: int,
    size: tuple[int, int],
    patch: int,
    *,
    continuous: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Top-left corners of off-grid patches, uniform over the places where a patch lies wholly inside.

    Args:
        batch: pictures B.
        count: patches N for each.
        size: height and width of the pictures in pixels.
        patch: side P of a patch in pixels.
        continuous: real positions in [0, W - P]; otherwise whole pixels.
        generator: source of randomness, on ``device``.
        device: where the positions are drawn.

    Returns:
        ``(B, N, 2)``, x and y in pixels, float32; int64 where positions are whole.

    Source: PART, section 4, "Sampling".
    """
    room = torch.tensor([size[1] - patch, size[0] - patch], device=device)
    uniform = torch.rand(batch, count, 2, generator=generator, device=device)
    return uniform * room if continuous else (uniform * (room + 1)).long()


def gather_patches(pixels: Tensor, positions: Tensor, patch: int) -> Tensor:
    """Cut patches out of a batch of pictures.

    Args:
        pixels: ``(B, C, H, W)``, any dtype; float for real positions.
        positions: ``(B, N, 2)``, x and y of top-left corners in pixels. Integers are cut out as they are,
            real ones sampled bilinearly between pixel centres.
        patch: side P in pixels.

    Returns:
        ``(B, N, C, P, P)``, dtype of ``pixels``.
    """
    batch, count = positions.shape[:2]
    if not positions.is_floating_point():
        windows = pixels.unfold(2, patch, 1).unfold(3, patch, 1)
        index = torch.arange(batch, device=pixels.device)[:, None]
        return windows[index, :, positions[..., 1], positions[..., 0]]
    size = positions.new_tensor([pixels.shape[3], pixels.shape[2]])
    steps = torch.arange(patch, device=pixels.device) + 0.5
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    grid = (positions[:, :, None, None] + offsets) / size * 2 - 1
    sampled = nn.functional.grid_sample(pixels, grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return sampled.unflatten(2, (count, patch)).transpose(1, 2)


def sample_pairs(
    batch: int, tokens: int, count: int, *, generator: torch.Generator | None = None, device=None
) -> Tensor:
    """Ordered pairs (reference, target) of different tokens, uniform over all of them.

    Returns:
        ``(B, count, 2)`` int64.

    Source: PART, section 4, "Objective".
    """
    reference = torch.randint(tokens, (batch, count), generator=generator, device=device)
    step = torch.randint(1, tokens, (batch, count), generator=generator, device=device)
    return torch.stack([reference, (reference + step) % tokens], dim=-1)


def relative_targets(positions: Tensor, patch: int, pairs: Tensor | None = None) -> Tensor:
    """What the relative encoder must predict: displacement over the reference's size.

    Args:
        positions: ``(B, N, 2)``, x and y of corners (or centres: patches are of one size) in pixels.
        patch: side of the patches in pixels.
        pairs: ``(B, S, 2)`` as (reference, target); None is all N * N, row by reference.

    Returns:
        ``(B, S, 2)`` float32, (x_target - x_reference) / patch and the same for y; S = N * N without pairs.

    Source: PART, section 4, "Objective".
    """
    positions = positions.float() / patch
    if pairs is None:
        return (positions[:, None, :, :] - positions[:, :, None, :]).flatten(1, 2)
    index = torch.arange(len(positions), device=positions.device)[:, None]
    return positions[index, pairs[..., 1]] - positions[index, pairs[..., 0]]
