"""Time a Spatial Reasoning training step against a plain implementation of the paper's text.

The plain implementation is typical research code: torchvision's transforms of one PIL image after the other, for
every view and every patch, pairs put together in a loop, the network in float32 with channels first. The network, the
number of pairs, the optimizer, the images and the device are the same on both sides. Each side runs a few
steps in a row; on our side they run as in the training loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from partzoo.bench.descend import descend
from partzoo.bench.profile import operators
from partzoo.bench.runner import Case
from partzoo.models.precision import has_bf16
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.system.device import Device, default_device, device_of
from partzoo.system.memory import kept_memory
from partzoo.train.losses.spatial import relation_loss
from partzoo.train.tasks.spatial import SpatialTask

VIEWS, PATCHES = 4, 2
STEPS = 4
CHANGES = """What the step does instead of the plain implementation:
- views and patches of the whole batch are cut, resized, mirrored and coloured at once on the network's device, each
  with separate parameters for each: crops as products with matrices of bilinear weights, and of an enlarged image
  only the pixels that its patch shows;
- pairs are rows of one index, made once;
- channels last, and products in bfloat16 where the machine has them;
- on CPUs, memory that a step frees stays with the process for the next one;
- the optimizer's update is one fused pass."""


class PlainViews:
    """A transform that cuts views and patches from one PIL image at a time."""

    def __init__(self, config: SpatialConfig, seed: int = 0) -> None:
        from torchvision import transforms

        self.config, self.random = config, random.Random(seed)
        jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
        self.colours = transforms.Compose(
            [
                transforms.RandomApply([jitter], 0.8),
                transforms.RandomGrayscale(0.2),
                transforms.ToTensor(),
                transforms.Normalize(config.mean, config.std),
            ]
        )
        self.view = transforms.Compose(
            [transforms.RandomResizedCrop(config.size), transforms.RandomHorizontalFlip(), self.colours]
        )

    def __call__(self, image: Image.Image) -> tuple[list[Tensor], list[Tensor], list[tuple[float, float]]]:
        """Return the views, the patches, and the patches' positions as (top, left)."""
        size, side = self.config.size, self.config.enlarged
        enlarged = image.resize((side, side), Image.Resampling.BILINEAR)
        corners = [self._corner() for _ in range(PATCHES)]
        while all(abs(a - b) < size for a, b in zip(*corners[:2], strict=True)):
            corners = [self._corner() for _ in range(PATCHES)]
        patches = [self.colours(enlarged.crop((x, y, x + size, y + size))) for y, x in corners]
        places = [(y / (2 * size), x / (2 * size)) for y, x in corners]
        return [self.view(image) for _ in range(VIEWS)], patches, places

    def _corner(self) -> tuple[int, int]:
        last = self.config.enlarged - self.config.size
        return self.random.randint(0, last), self.random.randint(0, last)


def plain_pairs(features: Tensor, places: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both sides of all pairs ``(P, F)`` and their targets ``(P, 3)``, group by group, as in section 3.2."""
    groups = features.split(count)
    first, second, targets = [], [], []
    shift = 1
    for a, b in combinations(range(VIEWS), 2):
        for other, value in ((groups[b], 0.0), (groups[b].roll(shift, 0), 1.0)):
            first.append(groups[a])
            second.append(other)
            targets.append(features.new_full((count, 3), value))
        shift = shift % max(count - 1, 1) + 1
    positions = places.split(count)
    for a, b in combinations(range(PATCHES), 2):
        first.append(groups[VIEWS + a])
        second.append(groups[VIEWS + b])
        targets.append(torch.cat([positions[a] - positions[b], positions[a].new_zeros(count, 1)], dim=1))
    return torch.cat(first), torch.cat(second), torch.cat(targets)


def plain_batch(config: SpatialConfig, pil: list[Image.Image]) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that makes a batch, view by view and then patch by patch, with the patches' positions."""
    made = PlainViews(config)

    def batch() -> tuple[Tensor, Tensor]:
        views, patches, places = zip(*map(made, pil), strict=True)
        rows = [view for group in zip(*views, strict=True) for view in group]
        rows += [patch for group in zip(*patches, strict=True) for patch in group]
        return torch.stack(rows), torch.tensor([place for group in zip(*places, strict=True) for place in group])

    return batch


def plain_step(config: SpatialConfig, pil: list[Image.Image], device: torch.device) -> Callable[[], float]:
    """Return a function that takes one optimizer step of the plain implementation and returns the loss."""
    torch.manual_seed(0)
    model = Spatial(config).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = plain_batch(config, pil)

    def step() -> float:
        x, places = (each.to(device) for each in batch())
        first, second, targets = plain_pairs(model.features(x), places, len(pil))
        loss = relation_loss(model.relation(first, second), targets)["loss"]
        return descend(optimizer, loss)

    return step


def our_task(config: SpatialConfig, device: torch.device) -> SpatialTask:
    torch.manual_seed(0)
    task = SpatialTask(Spatial(config), views=VIEWS, patches=PATCHES)
    return task.to(device).to(memory_format=torch.channels_last).train()


def our_step(config: SpatialConfig, pixels: Tensor, device: torch.device) -> Callable[[], float]:
    """Return a function that takes a :class:`partzoo.train.tasks.spatial.SpatialTask` step in training's precision."""
    task = our_task(config, device)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            loss = task(pixels.to(device), None, 0.0, generator)["loss"]
        return descend(optimizer, loss)

    return step


def in_a_row(step: Callable[[], float], around: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
    """Return a function that runs several steps one after the other, inside a context manager."""

    def steps() -> None:
        with around():
            for _ in range(STEPS):
                step()

    return steps


def features_case(quick: bool, device: torch.device) -> Case:
    """Return a case for the features of 1,000 images in one call, for example of 100 images and 9 patches of each."""
    config = _config("conv4", quick)
    torch.manual_seed(0)
    model = Spatial(config).to(device).eval().requires_grad_(False)
    x = torch.randn(4 if quick else 1000, 3, config.size, config.size, device=device)

    def plain() -> float:
        return model.backbone(x)[-1].mean((2, 3)).sum().item()

    return Case(
        "Spatial features, conv4",
        ours=in_a_row(lambda: model.features(x).sum().item(), kept_memory),
        peer=in_a_row(plain, nullcontext),
        ours_is="channels last, freed memory kept, as in evaluation",
        peer_is="the same network, channels first, as torch has it",
        items=STEPS * len(x),
        facts={"device": str(x.device), "batch": len(x), "passes": STEPS},
    )


def cases(quick: bool = False, device: Device = None) -> list[Case]:
    """Return cases for ResNet-32 and conv-4 at 64 pixels (4 views, 2 patches), the views alone, and features."""
    pixels = _pixels(quick)
    pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    place = device_of(device)
    precision = "bfloat16" if has_bf16(place) else "float32"
    of = {"device": str(place), "batch": len(pixels), "views": VIEWS, "patches": PATCHES}
    peer_is = "torchvision's transforms of each PIL image"
    found = []
    for backbone, target in (("resnet8" if quick else "resnet32", 5.0), ("conv4", None)):
        config = _config(backbone, quick)
        found.append(
            Case(
                f"Spatial training step, {backbone}",
                ours=in_a_row(our_step(config, pixels, place), kept_memory),
                peer=in_a_row(plain_step(config, pil, place), nullcontext),
                ours_is=f"SpatialTask, {precision}, channels last",
                peer_is=f"{peer_is}; the same network in float32",
                target=target,
                items=STEPS * len(pixels),
                facts=of | {"steps": STEPS},
            )
        )
    config = _config("conv4", quick)
    task, generator = our_task(config, place), torch.Generator(place).manual_seed(0)
    found.append(
        Case(
            "Spatial views and patches alone",
            ours=lambda: task.sampler.batch(pixels.to(place), generator),
            peer=plain_batch(config, pil),
            ours_is="SpatialTask.batch, the whole batch at once",
            peer_is=peer_is,
            items=len(pixels),
            facts=of,
        )
    )
    return [*found, features_case(quick, place)]


def profile(out: str | Path | None = None, *, quick: bool = False, steps: int = 2, top: int = 15) -> str:
    """Profile our training step and return a small table of the operators with the most self CPU time.

    Args:
        out: text file to write, for example ``results/profile-spatial-step.txt``.
        quick: whether to use a tiny model.
        steps: number of profiled steps, after one unmeasured step.
        top: number of operators to list.
    """
    config, pixels = _config("resnet8" if quick else "resnet32", quick), _pixels(quick)
    title = f"Spatial training step: {config.backbone}, {VIEWS} views, {PATCHES} patches, batch {len(pixels)}"
    with kept_memory():
        return operators(our_step(config, pixels, default_device()), title, CHANGES, out, steps=steps, top=top)


def _config(backbone: str, quick: bool) -> SpatialConfig:
    return SpatialConfig(backbone, 32, 12) if quick else SpatialConfig(backbone)


def _pixels(quick: bool) -> Tensor:
    count, side = (2, 32) if quick else (16, 64)
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
