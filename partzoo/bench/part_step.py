"""Time a PART training step against a plain implementation of the paper's text.

The plain implementation is typical research code without obvious waste: a data set that cuts, resizes and stacks
the patches of one image after the other, and a relative encoder that concatenates the tokens of all pairs
and hands them to ``nn.MultiheadAttention`` (fused attention, no weights returned). The encoder, the optimizer
and the pixels are the same on both sides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from partzoo.bench.descend import descend
from partzoo.bench.profile import operators
from partzoo.bench.runner import Case
from partzoo.models.part.model import Part, PartConfig
from partzoo.train.tasks.part import PartTask

PAIRS = 2048
CHANGES = """What the step does instead of the plain implementation:
- patches of the whole batch are cut out of one view of the pixels by one indexing operation, as uint8;
- exp(a + b) is exp(a) exp(b), so that the softmax of a pair's logits is a ratio of products of N x N matrices:
  the query of a pair, its projection, its attention and its output are never formed, and all pairs cost about
  as much as one layer's attention; values are read out to two numbers before they are weighed;
- the optimizer's update is one fused pass;
- the loss is taken over 2,048 of the 4,096 pairs (the paper's best for 64 patches)."""


class PlainPatches:
    """A data set's transform that works on one image at a time: crop, resize, normalize and stack patches."""

    def __init__(self, patch: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int = 0) -> None:
        self.patch, self.rng = patch, np.random.default_rng(seed)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Return patches ``(N, 3, P, P)`` and their corners ``(N, 2)``, x and y in pixels."""
        width, height = image.size
        patches, positions = [], []
        for _ in range(width * height // self.patch**2):
            x, y = (int(self.rng.integers(0, side - self.patch + 1)) for side in (width, height))
            crop = image.crop((x, y, x + self.patch, y + self.patch))
            resized = np.array(crop.resize((self.patch, self.patch), Image.Resampling.BILINEAR))
            patches.append((torch.from_numpy(resized).permute(2, 0, 1).float() / 255 - self.mean) / self.std)
            positions.append([x, y])
        return torch.stack(patches), torch.tensor(positions, dtype=torch.float32)


class PlainRelativeEncoder(nn.Module):
    """Relative encoder in which every concatenated pair attends to all tokens (PART, section 4)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.pair = nn.Linear(2 * dim, dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.head = nn.Linear(dim, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the translations ``(B, N * N, 2)`` of all pairs, row by reference, from tokens ``(B, N, d)``."""
        batch, count, dim = tokens.shape
        reference = tokens[:, :, None].expand(batch, count, count, dim)
        target = tokens[:, None].expand(batch, count, count, dim)
        query = self.pair(torch.cat([reference, target], dim=-1).flatten(1, 2))
        return self.head(self.attention(query, tokens, tokens, need_weights=False)[0])


def plain_step(config: PartConfig, images: list[Image.Image]):
    """Return a function that takes one optimizer step of the plain implementation and returns the loss."""
    torch.manual_seed(0)
    encoder, relative = Part(config), PlainRelativeEncoder(config.dim, config.heads)
    encoder.relative_encoder = nn.Identity()
    preprocess = encoder.preprocess
    cut = PlainPatches(config.patch, preprocess.mean, preprocess.std)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *relative.parameters()], lr=1e-4)

    def step() -> float:
        patches, positions = (torch.stack(part) for part in zip(*map(cut, images), strict=True))
        offset = (positions[:, None] - positions[:, :, None]) / config.patch
        loss = nn.functional.mse_loss(relative(encoder.encode_patches(patches)), offset.flatten(1, 2))
        return descend(optimizer, loss)

    return step


def our_step(config: PartConfig, pixels: Tensor, pairs: int = PAIRS):
    """Return a function that takes one step of :class:`partzoo.train.tasks.part.PartTask` and returns the loss."""
    torch.manual_seed(0)
    task = PartTask(Part(config), pairs=pairs)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)

    def step() -> float:
        loss = task(pixels, None, 0.0, generator)["loss"]
        return descend(optimizer, loss)

    return step


def cases(quick: bool = False) -> list[Case]:
    """Return cases for ViT-Ti with 64 patches of 8 pixels: with the pairs that training draws, and with all pairs."""
    config, pixels, patches = _setup(quick)
    peer = plain_step(config, [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels])
    drawn = min(PAIRS, patches**2)
    return [
        Case(
            f"PART training step, {name}",
            ours=our_step(config, pixels, pairs),
            peer=peer,
            ours_is=f"PartTask, {name}",
            peer_is=f"crop, resize and stack per image; nn.MultiheadAttention over all {patches**2} pairs",
            target=target,
            items=len(pixels),
            facts={"batch": len(pixels), "patches": patches, "dim": config.dim, "depth": config.depth},
        )
        for name, pairs, target in ((f"{drawn} pairs", drawn, 5.0), ("all pairs", 0, None))
    ]


def profile(out: str | Path | None = None, *, quick: bool = False, steps: int = 5, top: int = 15) -> str:
    """Profile our training step and return a small table of the operators with the most self CPU time.

    Args:
        out: text file to write, for example ``results/profile-part-step.txt``.
        quick: whether to use a tiny model.
        steps: number of profiled steps, after one unmeasured step.
        top: number of operators to list.
    """
    config, pixels, patches = _setup(quick)
    title = f"PART training step: ViT dim {config.dim}, depth {config.depth}, {patches} patches, batch {len(pixels)}"
    step = our_step(config, pixels, min(PAIRS, patches**2))
    return operators(step, title, CHANGES, out, steps=steps, top=top)


def _setup(quick: bool) -> tuple[PartConfig, Tensor, int]:
    """Return the configuration, the images, and the number of patches in each image."""
    config = PartConfig(dim=32, depth=1, heads=2, size=32) if quick else PartConfig()
    return config, _pixels(2 if quick else 32, config.size), (config.size // config.patch) ** 2


def _pixels(count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
