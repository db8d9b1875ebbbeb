"""Crop, rotate, flip and recolour whole batches of images with their masks, at random, on their device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate


def random_view(images: Tensor, aspects: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Crop a random part of each image, rotated and flipped.

    A part covers 35 to 115 % of its image's area; beyond the border, the image is reflected.

    Args:
        images: ``(B, C, S, S)`` float, each squashed to a square.
        aspects: ``(B,)``, width divided by height of each image before it was squashed.
        side: height and width of the result in pixels.
        generator: source of randomness, on the images' device.

    Returns:
        ``(B, C, side, side)``.
    """
    draw = _Draws(len(images), images.device, generator)
    area = draw.uniform(0.35, 1.15)
    stretch = draw.uniform(-0.35, 0.35).exp() * aspects ** draw.uniform(0, 1) / aspects
    across, down = (area * stretch).sqrt().clamp(max=1.15), (area / stretch).sqrt().clamp(max=1.15)
    angle = draw.normal(7).deg2rad()
    flip = draw.sign()
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = across * flip * angle.cos(), -across * angle.sin() / aspects
    theta[:, 1, 0], theta[:, 1, 1] = down * flip * angle.sin() * aspects, down * angle.cos()
    theta[:, 0, 2] = draw.uniform(-1, 1) * (1 - across).clamp(min=0)
    theta[:, 1, 2] = draw.uniform(-1, 1) * (1 - down).clamp(min=0)
    grid = affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def random_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and tint of images ``(B, 3, H, W)`` in 0..1; grey or blur some."""
    draw = _Draws(len(images), images.device, generator)
    ranges = (0.6, 1.4), (0.6, 1.4), (0.3, 1.6)
    brightness, contrast, saturation = (draw.uniform(*each)[:, None, None, None] for each in ranges)
    saturation = saturation * (draw.uniform(0, 1)[:, None, None, None] >= 0.08)
    x = images * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    x = x * torch.stack([draw.uniform(0.88, 1.12) for _ in range(3)], 1)[..., None, None]
    blurred = draw.uniform(0, 1) < 0.15
    if blurred.any():
        x[blurred] = interpolate(avg_pool2d(x[blurred], 2), x.shape[-2:], mode="bilinear", align_corners=False)
    return x.clamp(0, 1)


class _Draws:
    """A source of random numbers ``(count,)`` on a device."""

    def __init__(self, count: int, device: torch.device, generator: torch.Generator) -> None:
        self._shape, self._device, self._generator = (count,), device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self._shape, generator=self._generator, device=self._device)

    def normal(self, deviation: float) -> Tensor:
        return deviation * torch.randn(self._shape, generator=self._generator, device=self._device)

    def sign(self) -> Tensor:
        return torch.randint(0, 2, self._shape, generator=self._generator, device=self._device) * 2.0 - 1
