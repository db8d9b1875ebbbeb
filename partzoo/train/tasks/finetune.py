"""Finetune PART with labels. Training from random weights instead gives the paper's supervised baseline.

PART, section 4, "Training setup", and section 8.1: DeiT's supervised protocol (Touvron et al., "Training data-efficient
image transformers & distillation through attention", ICML 2021, table 9) on the patches of the regular grid.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from partzoo.data.image_sets import Examples, ImageSet
from partzoo.errors import PartzooError, UsageError
from partzoo.evaluate.probes.held_out import top1
from partzoo.files import write_aside
from partzoo.models.layers import train_fast
from partzoo.models.loading import load
from partzoo.models.part.classifier import SHARED, PartClassifier, PartClassifierConfig, classifier_of
from partzoo.models.part.model import Part
from partzoo.models.registry import Architecture
from partzoo.skipping import reason_of, warn_of
from partzoo.system.ranks import count, mine, whole
from partzoo.train.augmentation.deit import RandAugment, random_crops, seeded
from partzoo.train.datasets import DataOptions, read_images
from partzoo.train.tasks.base import Task

HELD_OUT = "held-out.json"


class FinetuneTask(Task):
    """A task that finetunes all weights to classify augmented images from the class token, with cross-entropy.

    Args:
        model: network with a pretrained or a random encoder.
        layer_decay: factor between the learning rates of a layer and of the next one; 1 in DeiT.
        smoothing: label smoothing.
        mixup, cutmix: alpha of mixup and of cutmix; each batch gets one of them at random, and 0 leaves one out.
        policy: RandAugment policy as timm writes it; empty leaves it out.
        erasing: probability that a rectangle of an image is erased.
        scale: range of a random crop's area, as a share of the image's area.
        padding: largest shift in pixels that replaces cropping; 0 means crops.
        repeats: number of copies of an image in a batch, each augmented separately (repeated augmentation).
        workers: number of additional processes for RandAugment.

    Raises:
        UsageError: a value is out of range.
    """

    METHOD = "finetune"
    TITLE = "PART"
    RECIPE = "part-classifier-vitt8.tin"
    CONFIG = PartClassifierConfig
    START = "parent"
    NEEDS_LABELS = True
    UNDECAYED = ("cls_token", "pos_embed")
    model: PartClassifier

    def __init__(
        self,
        model: PartClassifier,
        *,
        layer_decay: float = 1.0,
        smoothing: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        policy: str = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        scale: tuple[float, float] = (0.08, 1.0),
        padding: int = 0,
        repeats: int = 1,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < layer_decay <= 1 or min(mixup, cutmix, erasing, smoothing, padding, workers) < 0 or repeats < 1:
            raise UsageError("layer_decay must be in 0..1, repeats must be 1 or more, and nothing else may be below 0.")
        self.model = model
        train_fast(model.blocks, model.side**2)
        self.layer_decay, self.smoothing = layer_decay, smoothing
        self.scale, self.padding, self.repeats = scale, padding, repeats
        self.augment = RandAugment(policy, model.preprocess.mean, workers) if policy else None
        self.erase = RandomErasing(erasing, mode="pixel", device="cpu") if erasing else None
        mixing = {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "label_smoothing": smoothing}
        self.mix = Mixup(**mixing, num_classes=model.config.classes) if mixup or cutmix else None
        self.unseen: ImageSet | None = None

    @classmethod
    def inherit(cls, parent: str) -> tuple[str, dict[str, Any]]:
        part = parent_of(parent)
        return classifier_of(part.architecture), {name: getattr(part.config, name) for name in (*SHARED, "size")}

    @classmethod
    def config_from(cls, examples: Examples) -> dict[str, Any]:
        return super().config_from(examples) | {"names": tuple(examples.classes)}

    @classmethod
    def start(cls, entry: Architecture, config: PartClassifierConfig, parent: str | None) -> PartClassifier:
        """Return a model with a PART model's encoder and random weights elsewhere; without a parent, all are random."""
        if not parent:
            return super().start(entry, config, parent)
        # Loading may draw random numbers, but the new layers' weights should depend on the seed alone.
        with torch.random.fork_rng(devices=[]):
            part = parent_of(parent)
        return PartClassifier.from_part(part, **asdict(config))

    def prepare(self, folder: str | Path, options: DataOptions, examples: ImageSet) -> None:
        """Read the held-out images before training, so that a folder without any is refused early."""
        self.unseen = held_out(folder, options, examples)

    def finish(self, out: str | Path) -> None:
        """Write the accuracy on the held-out images to ``held-out.json``."""
        if self.unseen is not None:
            write_top1(self.model, self.unseen, out)

    def rate_factor(self, name: str) -> float:
        return layer_rate(name, len(self.model.blocks), self.layer_decay)

    def forward(
        self, pixels: Tensor, labels: Tensor | None, done: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        assert labels is not None  # guaranteed by NEEDS_LABELS
        x, goal = self.augmented(pixels, labels, generator)
        logits = self.model.classify(x)
        loss = nn.functional.cross_entropy(logits, goal, label_smoothing=0.0 if self.mix else self.smoothing)
        hits = logits.argmax(1) == (goal.argmax(1) if self.mix else goal)
        return {"loss": loss, "accuracy": hits.float().mean()}

    def augmented(self, pixels: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return normalized images, and their classes: numbers ``(B,)``, or shares ``(B, classes)`` of mixed images.

        Raises:
            UsageError: the number of images to mix is odd.
        """
        if self.mix and len(pixels) % 2:
            raise UsageError(
                f"mixup and cutmix need an even batch size in each process, not {len(pixels)}. Set loop.batch_size."
            )
        if self.repeats > 1:
            # In random order, as mixup pairs images by their places; ranks that share the batch share its first images.
            first = -(-len(pixels) // self.repeats)
            order = torch.randperm(count(len(pixels)), generator=generator, device=pixels.device)
            chosen = mine(order // self.repeats)
            pixels, labels = whole(pixels[:first])[chosen], whole(labels[:first])[chosen]
        pixels = random_crops(pixels, scale=self.scale, padding=self.padding, generator=generator)
        seeds = torch.randint(2**31, (len(pixels), 2), generator=generator, device=pixels.device).T.tolist()
        mixing = int(torch.randint(2**31, (), generator=generator, device=pixels.device))
        if self.augment:
            pixels = self.augment(pixels, seeds[0])
        x = self.model.preprocess.normalize(pixels)
        if self.erase:
            for image, seed in zip(x, seeds[1], strict=True):
                with seeded(seed):
                    self.erase(image)
        if not self.mix:
            return x, labels
        # timm pairs a batch with its reverse. With its second half reversed, images half a batch apart are paired, and
        # these are on one rank.
        order = torch.arange(len(x), device=x.device)
        order[len(x) // 2 :] = order[len(x) // 2 :].flip(0)
        with seeded(mixing):
            x, shares = self.mix(x[order], labels[order])
        return x[order], shares[order]


def layer_rate(name: str, depth: int, decay: float) -> float:
    """Return the learning-rate factor that layer decay gives to a parameter of a transformer.

    Args:
        name: name of the parameter, in the transformer itself or in a module that contains it.
        depth: number of blocks of the transformer.
        decay: factor by which each layer's rate is reduced for the layer before it.

    Returns:
        ``decay ** (depth + 1 - layer)``: embeddings are layer 0, blocks 1 to ``depth``, others ``depth + 1``.

    Source: Bao et al., "BEiT: BERT pre-training of image transformers", 2022, appendix.
    """
    block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
    if block:
        layer = int(block[1]) + 1
    else:
        layer = 0 if re.search(r"patch_embed|pos_embed|cls_token", name) else depth + 1
    return decay ** (depth + 1 - layer)


def parent_of(name: str | Path) -> Part:
    """Load the PART model to finetune, by name, folder or file.

    Raises:
        UsageError: the model is not a PART model.
    """
    part = load(name, device="cpu", dtype="float32")
    if not isinstance(part, Part):
        raise UsageError(f"{name} is not a PART model. Name one, or train from random weights with parent='none'.")
    return part


def held_out(data: str | Path, options: DataOptions, trained: ImageSet) -> ImageSet:
    """Read the held-out images of a folder, with labels numbered as in the training images.

    Raises:
        UsageError: there are no held-out images, or they have a class that the training images lack.
    """
    images = read_images(data, options, trained.side, split="val")
    if images.labels is None:
        raise UsageError(f"data={data} has held-out images without labels. Give one subfolder per class.")
    numbers = {name: number for number, name in enumerate(trained.classes)}
    if strange := [name for name in images.classes if name not in numbers]:
        raise UsageError(f"data={data} has held-out images of {strange[0]!r}, but no training images. Add some.")
    kept = torch.tensor([numbers[name] for name in images.classes])
    images.labels, images.classes = kept[images.labels], trained.classes
    return images


def write_top1(model: PartClassifier, images: ImageSet, out: str | Path) -> dict[str, Any]:
    """Measure the accuracy, in per cent, on held-out images, and write it to ``held-out.json`` in the run's folder.

    Images that cannot be read are skipped, named in warnings, and listed there under ``failed``.
    """
    failed: list[dict[str, str]] = []

    def pass_over(name: str, error: PartzooError) -> None:
        warn_of(name, error)
        failed.append({"path": name, "reason": reason_of(error)})

    usable = images.usable(pass_over)
    figures = {"top1": round(top1(model, usable), 2), "images": len(usable), "failed": failed}
    with write_aside(Path(out, HELD_OUT)) as file:
        file.write((json.dumps(figures) + "\n").encode())
    return figures
