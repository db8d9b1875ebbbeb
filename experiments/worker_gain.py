"""Measure by how much two workers are faster than one on one core, where the encoder takes most of the time.

Runs with one and with two workers alternate. The rate is that between the first shards and the last one, without the
start of the processes, whose time is in the last column. It needs a machine whose processors do nothing else.

    python experiments/worker_gain.py IMAGES
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from rows import markdown

import partzoo
from partzoo.collections.run import write_collection
from partzoo.collections.sources import open_source

WORKERS = (1, 2)


def rate(source: Path, stage: partzoo.ExtractFeatures, out: Path, workers: int, per_shard: int) -> tuple[float, float]:
    """Write a result, and return the images per second after the first shards, and the seconds of the whole run."""
    began, ends, cores = time.monotonic(), [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:workers])
    write_collection(
        source, stage, out, per_shard=per_shard, workers=workers, progress=lambda *_: ends.append(time.monotonic())
    )
    os.sched_setaffinity(0, cores)
    first = ends[workers - 1]  # each worker has loaded the model and made a shard
    return (len(ends) - workers) * per_shard / (ends[-1] - first), ends[-1] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="any collection")
    parser.add_argument("--model", default="part-vits8", help="encoder")
    parser.add_argument("--size", type=int, default=112, help="longer side that the encoder receives, in pixels")
    parser.add_argument("--count", type=int, default=240, help="number of images")
    parser.add_argument("--per-shard", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    stage = partzoo.ExtractFeatures(asked.model, size=asked.size)
    rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    whole: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place, "list.txt")
        records = islice(open_source(asked.images).records(), asked.count)
        listed.write_text("".join(f"{record.image}\n" for record in records))
        for number in range(asked.rounds):
            for workers in WORKERS:
                found = rate(listed, stage, Path(place, f"{number}-{workers}"), workers, asked.per_shard)
                rates[workers].append(found[0])
                whole[workers].append(found[1])
                print(f"{workers} workers: {found[0]:.2f} images/s, {found[1]:.1f} s", file=sys.stderr, flush=True)
    best = {workers: statistics.median(rates[workers]) for workers in WORKERS}
    rows = []
    for workers in WORKERS:
        seconds = statistics.median(whole[workers])
        rows.append([str(workers), f"{best[workers]:.2f}", f"{best[workers] / best[1]:.2f}", f"{seconds:.1f}"])
    print(markdown(["workers", "images per second", "gain", "seconds of the whole run"], rows))


if __name__ == "__main__":
    main()
