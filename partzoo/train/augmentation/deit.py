"""Augment images for supervised training as DeiT does: random crops, RandAugment, erasing, mixup and cutmix.

Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021, table 9.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from partzoo.data.views import crop_resize, cut, random_boxes

CHUNK = 64  # number of images that one process gets at a time


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators that timm uses (``random``, numpy, torch on the CPU), and restore them afterwards."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def random_crops(
    pixels: Tensor,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    padding: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Crop a random part of each image and resize it to the image's size; half of the crops are mirrored.

    Args:
        pixels: ``(B, 3, S, S)`` uint8.
        scale: range of a crop's share of the image's area.
        padding: largest shift in pixels over black, which replaces crops as in DeiT's code for images of 32 pixels; 0
            means crops.
        generator: source of randomness, on the images' device.

    Returns:
        ``(B, 3, S, S)`` uint8, resized bilinearly with antialiasing.
    """
    count, side = len(pixels), pixels.shape[-1]
    draw: dict[str, Any] = {"generator": generator, "device": pixels.device}
    flipped = torch.rand(count, **draw) < 0.5
    if padding:
        corners = torch.randint(2 * padding + 1, (count, 2), **draw)
        shifted = cut(nn.functional.pad(pixels, (padding,) * 4), corners, side)
        return torch.where(flipped[:, None, None, None], shifted.flip(-1), shifted)
    boxes = random_boxes(count, (side, side), scale=scale, **draw)
    return crop_resize(pixels.float(), boxes, side, flipped).clamp_(0, 255).byte()


class RandAugment:
    """timm's RandAugment for whole batches, image by image on the CPU.

    Args:
        policy: timm's description of the policy; DeiT's is ``"rand-m9-mstd0.5-inc1"``.
        mean: colour that fills areas from outside the image, per channel in 0..1.
        workers: number of additional processes that share the work.

    Source: Cubuk et al., "RandAugment", 2020.
    """

    def __init__(self, policy: str, mean: tuple[float, float, float], workers: int = 0) -> None:
        red, green, blue = (round(255 * value) for value in mean)
        self._arguments = policy, (red, green, blue)
        # Not forked, because this process has threads and perhaps a GPU context.
        self._pool = ProcessPoolExecutor(workers, get_context("forkserver")) if workers else None

    def __call__(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Augment images ``(B, 3, S, S)`` uint8, each with random numbers from its seed."""
        images = pixels.permute(0, 2, 3, 1).cpu().numpy()
        chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
        jobs = [(*self._arguments, images[chunk], seeds[chunk]) for chunk in chunks]
        found = np.concatenate(list(self._pool.map(_augmented, jobs) if self._pool else map(_augmented, jobs)))
        return torch.from_numpy(found).permute(0, 3, 1, 2).to(pixels.device)


def _augmented(job: tuple[str, tuple[int, int, int], np.ndarray, Sequence[int]]) -> np.ndarray:
    policy, colour, images, seeds = job
    change = _policy(policy, colour, images.shape[1])
    found = []
    for image, seed in zip(images, seeds, strict=True):
        with seeded(seed):
            found.append(np.asarray(change(Image.fromarray(image))))
    return np.stack(found)


@cache
def _policy(policy: str, colour: tuple[int, int, int], side: int):
    from timm.data.auto_augment import rand_augment_transform

    change = rand_augment_transform(policy, {"translate_const": int(0.45 * side), "img_mean": colour})
    for operation in change.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterized
    return change


def _posterized(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest ``bits`` bits of each channel; timm asks for 0 to 8 bits, and Pillow 13 refuses 0."""
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)
