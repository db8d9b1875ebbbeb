"""A long run of discoveries by several threads: memory stays flat, and labels do not depend on what ran before.

Images of many sizes are divided by two models at several working sizes, in random order. Whenever a batch of them is
done, the allocator returns what is free, and the memory that this process then holds is sampled, on Linux alone: what
eight threads use at one moment, and what the allocator keeps of it, vary more than any leak would add.
"""

import ctypes
import hashlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from PIL import Image

import partzoo

from .table import ROOT, Row

T = TypeVar("T")
CI_SCALE = 0.005
REQUIRED, THREADS = 20_000, 8
IMAGES, SIZES = 24, (64, 96, 128, 160)
FACES = "mpae-patchresnet14.faces-k8"
SETTLED = 5_000  # discoveries from which on memory is judged: before, allocators still grow
GROWTH = 0.02
STATM = Path("/proc/self/statm")


def inject(scale: float, seed: int, place: Path) -> Row:
    """Discover the parts of images of mixed sizes, again and again, in eight threads."""
    count = round(REQUIRED * scale)
    draw = random.Random(seed)
    images = mixed_images(place, draw)
    finders = [
        {"model": partzoo.load("efficientnet-lite0.in1k"), "background": partzoo.load("foreground-lite0.masks")},
        {"model": partzoo.load(FACES)},
    ]
    first: dict[tuple[int, int, int], bytes] = {}
    memory: list[int] = []
    broken: list[str] = []

    def discover(task: tuple[int, int, int]) -> bool:
        image, finder, size = task
        try:
            parts = partzoo.discover_parts(images[image], size=size, **finders[finder])
        except Exception as error:  # whatever it is, it belongs in the table
            broken.append(f"{images[image]} at size {size}: {type(error).__name__}: {error}")
            return False
        digest = hashlib.sha256(parts.labels.tobytes()).digest()
        equal = first.setdefault(task, digest) == digest
        if not equal:
            broken.append(f"{images[image]} at size {size} has other labels than the first time.")
        return equal

    tasks = [(draw.randrange(IMAGES), draw.randrange(len(finders)), draw.choice(SIZES)) for _ in range(count)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    equal = 0
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batched(tasks, max(count // 200, 1)):
                equal += sum(pool.map(discover, batch))
                memory += [resident()] if STATM.exists() else []
    finally:
        torch.set_num_threads(threads)
    before, after = halves(memory)
    if count >= SETTLED and after > (1 + GROWTH) * before:
        broken.append(f"Memory grew from {before} to {after} MiB over the second half.")
    outcomes = {"equal": equal, "different or failed": count - equal, "MiB at half": before, "MiB at the end": after}
    return Row(f"discoveries of mixed sizes in {THREADS} threads", count, REQUIRED, outcomes, broken)


def mixed_images(place: Path, draw: random.Random) -> list[Path]:
    """Write images of different sizes and formats, each a different cut-out of an example, and return their paths."""
    photographs = sorted((ROOT / "examples" / "images").glob("*.jpg"))
    paths = []
    for number in range(IMAGES):
        with Image.open(photographs[number % len(photographs)]) as whole:
            left, top = draw.randrange(whole.width // 3), draw.randrange(whole.height // 3)
            part = whole.convert("RGB").crop((left, top, whole.width - left // 2, whole.height - top // 2))
        side = draw.randrange(40, 400)
        part = part.resize((side, max(1, round(side * part.height / part.width))))
        paths.append(place / f"{number}{draw.choice(('.jpg', '.png', '.webp'))}")
        part.save(paths[-1])
    return paths


def batched(tasks: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the tasks, ``size`` at a time."""
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def resident() -> int:
    """Return the memory of this process that is in RAM, in MiB, after the allocator has returned what is free."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(STATM.read_text().split()[1]) * 4096 >> 20


def halves(samples: Sequence[int]) -> tuple[int, int]:
    """Return the medians of a tenth of the samples: the first tenth of the second half, and the last tenth."""
    tenth = max(len(samples) // 10, 1)
    middle = samples[len(samples) // 2 :][:tenth]
    return (int(median(middle)), int(median(samples[-tenth:]))) if samples else (0, 0)
