"""Compare taught parts with a U-Net of the same parent, trained for ten minutes of one core on the same labels.

    python experiments/taught_unet.py taught-cars --data DIR --count 20 [--seed 0] [--minutes 10] [--limit 50]

The network is that of the foreground models, an EfficientNet-Lite0 with a feature pyramid, with one map for each label.
It starts from the ImageNet parent, and sees random crops, mirror images (with left and right exchanged) and colours of
the labelled images that `partzoo eval --protocol taught-...` draws first with the same seed. It prints the mean IoU of
the frequent labels and the accuracy on the report split (docs/taught.md). Time is the process's CPU time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from partzoo.data.masks import MaskedImage, MaskedSet, find_set
from partzoo.discovery.given_labels import UNKNOWN
from partzoo.discovery.lessons import sides
from partzoo.evaluate import protocols
from partzoo.evaluate.metrics import Contingency
from partzoo.evaluate.protocols.taught import TaughtProtocol
from partzoo.evaluate.taught import drawn, mean_iou
from partzoo.features import DEFAULT_MODEL
from partzoo.images.preprocess import to_tensor, working_size
from partzoo.models.efficientnet import STRIDE
from partzoo.models.foreground import ForegroundConfig, ForegroundModel
from partzoo.models.loading import load

SIDE, SIZE = 256, 288  # of crops, and the longer side at which parts are found, in pixels
ZOOM = (0.8, 1.6)  # longer sides of the resized images, before they are cropped, as shares of a crop's side
BATCH, RATE, ENCODER_RATE = 8, 1.5e-3, 0.3
WARM = 0.03  # share of the time in which the rate rises


class UNet(ForegroundModel):
    """A foreground model's network with one map for each label."""

    def __init__(self, labels: int) -> None:
        super().__init__(ForegroundConfig())
        self.heads = nn.ModuleList(nn.Conv2d(cast(nn.Conv2d, head).in_channels, labels, 1) for head in self.heads)
        state = load(DEFAULT_MODEL, device="cpu", dtype="float32").state_dict()
        self.encoder.load_state_dict({name: state[name] for name in self.encoder.state_dict()})


def cropped(
    example: MaskedImage, labels: np.ndarray, pairs: dict[int, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random crop ``(SIDE, SIDE, 3)`` of an image or its mirror image, padded with grey, and its labels."""
    scale = random.uniform(*ZOOM) * SIDE / max(labels.shape)
    width, height = (max(round(side * scale * random.uniform(0.9, 1.1)), 1) for side in labels.shape[::-1])
    pixels = np.asarray(Image.fromarray(example.pixels).resize((width, height), Image.Resampling.BICUBIC))
    labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    if random.random() < 0.5:
        pixels, exchanged = pixels[:, ::-1], labels[:, ::-1].copy()
        for part, other in pairs.items():
            exchanged[labels[:, ::-1] == part] = other
        labels = exchanged
    top, left = (int(random.integers(min(0, SIDE - side), max(0, SIDE - side) + 1)) for side in (height, width))
    found, known = np.full((SIDE, SIDE, 3), 127, np.uint8), np.full((SIDE, SIDE), UNKNOWN, np.uint8)
    rows, columns = (slice(max(at, 0), min(at + side, SIDE)) for at, side in ((top, height), (left, width)))
    own = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    found[rows, columns], known[rows, columns] = pixels[own], labels[own]
    colours = found * random.uniform(0.8, 1.2, 3) + random.uniform(-20, 20)
    return colours.clip(0, 255).astype(np.uint8), known


def train(rules: TaughtProtocol, examples: Sequence[MaskedImage], minutes: float, seed: int) -> UNet:
    """Train a network for some minutes of CPU time, with AdamW and one cosine."""
    torch.manual_seed(seed)
    random, pairs = np.random.default_rng(seed), sides(rules.labels)
    model = UNet(len(rules.labels) + 1)
    slow, fast = list(model.encoder.parameters()), [p for n, p in model.named_parameters() if "encoder." not in n]
    optimizer = torch.optim.AdamW([{"params": slow}, {"params": fast}], weight_decay=0.01, betas=(0.9, 0.99))
    start, done, steps = time.process_time(), 0.0, 0
    model.train()
    model.encoder.eval()  # the statistics of small batches are worse than the parent's
    while done < 1:
        rate = RATE * min(done / WARM + 0.01, 1) * (1 + math.cos(math.pi * done)) / 2
        for group, share in zip(optimizer.param_groups, (ENCODER_RATE, 1), strict=True):
            group["lr"] = rate * share
        chosen = [examples[i] for i in random.integers(len(examples), size=BATCH)]
        views = [cropped(each, rules.labels_of(each.mask), pairs, random) for each in chosen]
        pixels, labels = (torch.from_numpy(np.stack(each)) for each in zip(*views, strict=True))
        levels = model.logits(model.preprocess.normalize(pixels.permute(0, 3, 1, 2)))
        loss = sum((_loss(level, labels.long()) for level in levels[:4]), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        done, steps = (time.process_time() - start) / (60 * minutes), steps + 1
    sys.stderr.write(f"{steps} steps\n")
    return model.eval()


def _loss(level: Tensor, labels: Tensor) -> Tensor:
    coarse = labels[:, None].float()
    step = labels.shape[-1] // level.shape[-1]
    return cross_entropy(level, coarse[:, 0, step // 2 :: step, step // 2 :: step].long(), ignore_index=UNKNOWN)


@torch.inference_mode()
def label(model: UNet, pixels: np.ndarray, pairs: dict[int, int]) -> np.ndarray:
    """Return the labels ``(H, W)`` of an image, from the mean over it and its mirror image."""
    x = to_tensor(pixels, working_size(pixels.shape[:2], SIZE, STRIDE), model.preprocess)[None]
    own, mirrored = (model.logits(each)[0].softmax(1) for each in (x, x.flip(3)))
    order = torch.tensor([pairs.get(number, number) for number in range(own.shape[1])])
    found = own + mirrored[:, order].flip(3)
    return interpolate(found, pixels.shape[:2], mode="bilinear", align_corners=False)[0].argmax(0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", choices=[name for name in protocols.names() if name.startswith("taught-")])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20, help="number of labelled images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--limit", type=int, help="number of images of the report split")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rules = cast(TaughtProtocol, protocols.get(chosen.protocol))
    place = find_set(chosen.data, rules.data)
    train_split, report = MaskedSet(place, "train"), MaskedSet(place, "report")
    examples = [train_split[index] for index in drawn(train_split, chosen.seed)[: chosen.count]]
    model = train(rules, examples, chosen.minutes, chosen.seed)
    table = Contingency(len(rules.labels) + 1, len(rules.labels) + 1)
    count = min(chosen.limit or len(report), len(report))
    for done in range(count):
        example = report[done * len(report) // count]
        table.update(rules.labels_of(example.mask), label(model, example.pixels, sides(rules.labels)))
    iou, accuracy = mean_iou(table.counts), table.counts.trace() / table.counts.sum()
    sys.stdout.write(f"{chosen.count} labelled images: IoU {iou:.1%}, accuracy {accuracy:.1%}\n")


if __name__ == "__main__":
    main()
