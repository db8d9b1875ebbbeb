"""Measure whether encoding images of one size in batches takes less processor time than one by one.

The sizes of batches alternate in one process, so that other work on the machine meets all of them alike.

    python experiments/batches.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rows import markdown

import partzoo

MODELS = {"toy-vit": 64, "efficientnet-lite0": 224, "part-vits8": 112}  # with the side of the images in pixels
BATCHES = (1, 4, 16)
IMAGES = 16  # in each measurement


def milliseconds(model: torch.nn.Module, side: int, rounds: int) -> dict[int, float]:
    """Return the median processor time per image for each size of a batch."""
    images = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    found: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for batch in BATCHES:
                began = time.process_time()
                for start in range(0, IMAGES, batch):
                    model.encode(images[start : start + batch]).maps()  # type: ignore[operator]
                if number:  # the first round is a warm-up
                    found[batch].append(1000 * (time.process_time() - began) / IMAGES)
    return {batch: statistics.median(values) for batch, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = []
    for name, side in MODELS.items():
        found = milliseconds(partzoo.load(name, pretrained=False), side, asked.rounds)
        rows.append([f"`{name}`, {side} px", *(f"{found[batch]:.2f}" for batch in BATCHES)])
    print(markdown(["encoder", *(f"ms an image, {batch} at a time" for batch in BATCHES)], rows))


if __name__ == "__main__":
    main()
