"""Trainings of every kind, small and in float64, by one process or as a rank of several.

``python shared_training.py OUT CASE...`` runs cases as a rank, as the environment says, and writes what
:func:`trained` returns to ``OUT/CASE.RANK.pt``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from partzoo.data.image_sets import Examples, ImageSet
from partzoo.models.loading import build, load
from partzoo.models.part.classifier import PartClassifier, PartClassifierConfig
from partzoo.models.part.signal_model import SignalPart, SignalPartConfig
from partzoo.models.registry import find
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.train import tasks
from partzoo.train.loop import LoopOptions
from partzoo.train.masked_images import MaskedImages
from partzoo.train.processes import processes
from partzoo.train.sharding import whole
from partzoo.train.stages import StagesTask
from partzoo.train.tasks.base import Task
from partzoo.train.tasks.classify import ClassifyTask
from partzoo.train.tasks.finetune import FinetuneTask
from partzoo.train.tasks.foreground import ForegroundTask
from partzoo.train.tasks.mpae import MpaeTask
from partzoo.train.tasks.objectness import ObjectnessTask, with_objectness
from partzoo.train.tasks.part import PartTask
from partzoo.train.tasks.part_signals import PartSignalsTask
from partzoo.train.tasks.partformer import PartFormerTask
from partzoo.train.tasks.spatial import SpatialTask
from partzoo.train.windows import WindowSet

SHARDED = ", sharded"
VIT = {"dim": 24, "depth": 2, "heads": 2, "size": 32}
MPAE = {"parts": 3, "encoder": "toy-vit", "size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2}
MPAE |= {"masked_width": 32, "masked_heads": 2, "decoder_heads": 2}


def images(side: int = 32, count: int = 20) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=_seeded())
    return ImageSet.from_pixels(pixels, torch.arange(count) % 4, list("abcd"))


def part(**options: Any) -> tuple[Task, Examples]:
    return PartTask(_built("part-vitt8", VIT | options.pop("config", {})), **{"pairs": 32} | options), images()


def part_signals() -> tuple[Task, Examples]:
    model = SignalPart(SignalPartConfig(dim=24, depth=1, heads=2, channels=2, patch=20, size=200, patches=8))
    model.architecture = "part-vit1d"
    return PartSignalsTask(model), _windows()


def stages() -> tuple[Task, Examples]:
    model = SignalPart(SignalPartConfig(dim=24, depth=1, heads=2, channels=2, patch=20, size=200, classes=4))
    model.architecture = "part-vit1d"
    return StagesTask(model), _windows()


def partformer(architecture: str = "partformer-resnet18", **options: Any) -> tuple[Task, Examples]:
    config = {"parts": 3, "size": 32, "reconstruction": 32} | options.pop("config", {})
    return PartFormerTask(_built(architecture, config), **{"network": "toy-vit"} | options), images()


def mpae(**options: Any) -> tuple[Task, Examples]:
    model = _built("mpae-patchresnet14", MPAE | options.pop("config", {}))
    return MpaeTask(model, **{"network": "toy-vit", "group": 3} | options), images(64)


def spatial(**options: Any) -> tuple[Task, Examples]:
    model = Spatial(SpatialConfig("conv4", **{"size": 32, "patch_size": 12} | options.pop("config", {})))
    model.architecture = "spatial-conv4"
    return SpatialTask(model, **options), images()


def foreground() -> tuple[Task, Examples]:
    pixels = torch.randint(0, 256, (20, 4, 64, 64), dtype=torch.uint8, generator=_seeded())
    examples = MaskedImages(pixels, torch.linspace(0.5, 2, 20), torch.arange(20) > 12, torch.ones(20))
    entry = find("foreground-lite0")
    task = ForegroundTask(ForegroundTask.start(entry, entry.config, "efficientnet-lite0.in1k"))
    task.prepare("", None, examples)
    return task, examples


def classify() -> tuple[Task, Examples]:
    config = {"widths": (8, 16), "depths": (1, 1), "classes": 4, "size": 32}
    return ClassifyTask(_built("patchresnet14", config), small_side=16), images()


def finetune(drop_path: float = 0.0, **options: Any) -> tuple[Task, Examples]:
    model = PartClassifier(PartClassifierConfig(**VIT, classes=4, drop_path=drop_path))
    model.architecture = "part-classifier-vitt8"
    return FinetuneTask(model, **options), images()


def objectness() -> tuple[Task, Examples]:
    task = ObjectnessTask(with_objectness(load("patchresnet14", pretrained=False, device="cpu", dtype="float32")))
    return task, ImageSet([_scene(number) for number in range(5)], 64, None, [])


CASES: dict[str, Callable[[], tuple[Task, Examples]]] = {
    "part": part,
    "part, all pairs at many scales": lambda: part(pairs=0, sampling="multi-scale", config={"targets": 4}),
    "part, on the grid": lambda: part(sampling="on-grid"),
    "part-signals": part_signals,
    "stages": stages,
    "partformer": partformer,
    "partformer without reconstruction": lambda: partformer(reconstruction="none"),
    "partformer without consistency": lambda: partformer(consistency=0.0, reconstruction="mse"),
    "partformer of classes": lambda: partformer(config={"classes": 4}),
    "partformer, frozen": lambda: partformer("partformer-patchresnet14"),
    "mpae": mpae,
    "mpae without restoration": lambda: mpae(restoration=0.0),
    "mpae of classes, present in the batch": lambda: mpae(presence="batch", config={"classes": 4}),
    "spatial": spatial,
    "spatial, additive": lambda: spatial(patch_negatives=True, patches=3, config={"additive": True}),
    "spatial without patches": lambda: spatial(patches=0, views=3, focus=2.0),
    "foreground": foreground,
    "classify": classify,
    "finetune": finetune,
    "finetune with repeats": lambda: finetune(0.3, repeats=3),
    "objectness": objectness,
    "finetune, plain": lambda: finetune(mixup=0.0, cutmix=0.0, policy="", erasing=0.0, padding=2),
}


def trained(case: str, out: Path, steps: int = 10) -> dict[str, Any]:
    """What a training ends with, in float64 but for objectness, whose lessons are kept in float16.

    A case that ends in ``SHARDED`` is trained with ``shard``.

    Returns:
        ``seen``, the numbers of the images of each step; ``loss`` at the end; ``gradients`` of the last step, unless
        they are sharded, and ``state``, by name.
    """
    shard, case = case.endswith(SHARDED), case.removesuffix(SHARDED)
    single = case == "objectness"
    small_views = patch.object(tasks.foreground, "SIZES", (64, 96))
    with small_views, nullcontext() if single else _float64():
        torch.manual_seed(0)
        task, examples = CASES[case]()
        task.to(torch.get_default_dtype())
        seen: list[list[int]] = []

        def draw(indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
            seen.append(indices.tolist())
            batch = examples.batch(indices)
            return indices, batch.double() if batch.is_floating_point() else batch

        examples.draw = draw  # type: ignore[method-assign]
        options = LoopOptions(steps=steps, batch_size=8, lr=1e-3, log_steps=1, precision="fp32", shard=shard)
        progress = task.fit(examples, options, out, progress=False)
    gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    state = {name: whole(value) for name, value in task.state_dict().items()}
    found = {"seen": seen, "loss": progress.loss, "state": state}
    return found if shard else found | {"gradients": gradients}


@contextmanager
def _float64() -> Iterator[None]:
    """A context in which what is cast to float32 becomes float64."""
    single = Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        Tensor.float = single  # type: ignore[method-assign]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _built(name: str, config: dict[str, Any]) -> Any:
    entry = find(name)
    return build(entry, entry.configure(config))


def _scene(seed: int) -> bytes:
    """A bright block on a noisy ground, as PNG."""
    random = np.random.default_rng(seed)
    pixels = random.normal(60, 8, (64, 72, 3))
    pixels[20:48, 12 + seed : 44 + seed] += 90
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "png")
    return stream.getvalue()


def _windows() -> WindowSet:
    values = torch.randn(20, 2, 200, generator=_seeded(), dtype=torch.float32)
    return WindowSet([values.numpy()], torch.arange(20) % 4, list("abcd"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, *cases = sys.argv[1:]
    for case in cases:
        torch.save(trained(case, Path(out, case)), Path(out, f"{case}.{processes().process_index}.pt"))
