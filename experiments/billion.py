"""Simulate a run over a billion images, from rates that were measured on one machine.

The images lie in tars, and are divided into results of a million images, each with its own manifest, and these into
shards. Workers make shards one after the other; a worker is lost at random moments, with the shard in work, and a new
one loads the model. The defaults for times and bytes were measured on one processor; prices and losses are assumed.

    python experiments/billion.py
    python experiments/billion.py --milliseconds 116 --row-bytes 1600 --workers 2000 --loss-hours 10
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass

from rows import markdown

MILLION, BILLION = 10**6, 10**9


@dataclass(frozen=True)
class Plan:
    """What is run, and what was measured or is assumed.

    Attributes:
        images: number of images.
        milliseconds: processor time of a worker per image.
        image_bytes: mean size of an encoded image.
        row_bytes: mean size of a row in a shard.
        header_microseconds: processor time for the header of an image in a tar, which is read three times.
        per_shard: number of images of a shard.
        workers: number of workers, each on one processor.
        loss_hours: mean time until a worker is lost.
        start_seconds: time until a new worker makes its first shard: the machine, Python and the model.
        damaged: share of the images that cannot be read.
        spread: standard deviation of the time of a shard, as a share of its mean.
        hour: price of a processor for an hour.
        put, get: price of a thousand requests that write and that read.
        month: price of a gigabyte for a month.
    """

    images: int = BILLION
    milliseconds: float = 24.0
    image_bytes: float = 110e3
    row_bytes: float = 1200.0
    header_microseconds: float = 48.0
    per_shard: int = 10_000
    workers: int = 1000
    loss_hours: float = 20.0
    start_seconds: float = 120.0
    damaged: float = 1e-5
    spread: float = 0.1
    hour: float = 0.02
    put: float = 0.005
    get: float = 0.0004
    month: float = 0.023


@dataclass(frozen=True)
class Outcome:
    """What a simulated run took.

    Attributes:
        hours: time from start to end.
        worker_hours: time of all workers.
        lost_hours: time of workers for shards that were lost with them, and for starting again.
        losses: number of workers that were lost.
        idle_hours: time of workers that waited for the last shards.
    """

    hours: float
    worker_hours: float
    lost_hours: float
    losses: int
    idle_hours: float


def simulate(plan: Plan, seed: int = 0) -> Outcome:
    """Let workers make all shards, and lose them at random moments of an exponential distribution."""
    draw = random.Random(seed)
    mean = plan.per_shard * plan.milliseconds / 1000
    free = [plan.start_seconds] * plan.workers  # when each worker can begin a shard
    dies = [draw.expovariate(1 / (3600 * plan.loss_hours)) for _ in free]
    order = list(zip(free, range(plan.workers), strict=True))
    heapq.heapify(order)
    shards, lost, losses, ends = -(-plan.images // plan.per_shard), 0.0, 0, [0.0] * plan.workers
    while shards:
        now, worker = heapq.heappop(order)
        end = now + max(0.0, draw.gauss(mean, plan.spread * mean))
        if dies[worker] < end:
            losses += 1
            again = max(now, dies[worker]) + plan.start_seconds
            lost += again - now
            dies[worker] = again + draw.expovariate(1 / (3600 * plan.loss_hours))
            heapq.heappush(order, (again, worker))
        else:
            shards -= 1
            ends[worker] = end
            heapq.heappush(order, (end, worker))
    total = max(ends)
    idle = sum(total - end for end in ends)
    return Outcome(total / 3600, total * plan.workers / 3600, lost / 3600, losses, idle / 3600)


def table(plan: Plan, seed: int = 0) -> list[list[str]]:
    """Return the rows of the table: what, how much, and from what it follows."""
    found = simulate(plan, seed)
    shards, results = -(-plan.images // plan.per_shard), -(-plan.images // MILLION)
    read, written = plan.images * plan.image_bytes, plan.images * plan.row_bytes
    writes = 4 * shards + 4 * results  # a shard: its file, the copy that gives its name, its record and its deletion
    requests = writes / 1000 * plan.put + plan.images / 1000 * plan.get
    headers = 3 * plan.images * plan.header_microseconds / 3.6e9
    machines, storage = (found.worker_hours + headers) * plan.hour, written / 1e9 * plan.month
    return [
        ["results, shards", f"{results:,}, {shards:,}", f"{MILLION:,} and {plan.per_shard:,} images each"],
        ["bytes read", f"{read / 1e12:,.0f} TB", f"{plan.image_bytes / 1e3:g} kB an image"],
        ["bytes written", f"{written / 1e12:,.2f} TB", f"{plan.row_bytes:g} bytes a row"],
        ["size of a shard", f"{plan.per_shard * plan.row_bytes / 1e6:,.0f} MB", ""],
        [
            "time of a shard",
            f"{plan.per_shard * plan.milliseconds / 6e4:,.1f} min",
            f"{plan.milliseconds:g} ms an image",
        ],
        ["duration", f"{found.hours:,.1f} h", f"{plan.workers:,} workers"],
        ["worker hours", f"{found.worker_hours:,.0f}", "simulated"],
        ["hours for headers of tars", f"{headers:,.0f}", f"{plan.header_microseconds:g} µs, three times"],
        ["workers lost", f"{found.losses:,}", f"one in {plan.loss_hours:g} h, assumed"],
        ["hours lost with them", f"{found.lost_hours:,.0f} ({found.lost_hours / found.worker_hours:.1%})", "simulated"],
        ["hours idle at the end", f"{found.idle_hours:,.0f}", "simulated"],
        ["read from the source", f"{read / 1e9 * 8 / found.hours / 3600:,.1f} Gbit/s", "by all workers"],
        ["images that cannot be read", f"{plan.images * plan.damaged:,.0f}", f"{plan.damaged:g} of all, assumed"],
        ["requests", f"{(writes + plan.images) / 1e6:,.0f} million", "one an image, from tars; four a shard"],
        ["cost: machines", f"${machines:,.0f}", f"${plan.hour:g} a worker hour, assumed"],
        ["cost: requests", f"${requests:,.0f}", f"${plan.put:g} and ${plan.get:g} a thousand, assumed"],
        ["cost: storage, a month", f"${storage:,.0f}", f"${plan.month:g} a gigabyte, assumed"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in vars(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    plan = Plan(**vars(parser.parse_args()))
    print(markdown(["", "", "from"], table(plan)))
    sizes = [(size, simulate(Plan(**vars(plan) | {"per_shard": size}))) for size in (1000, 10_000, 100_000)]
    rows = [
        [f"{size:,}", f"{plan.images // size:,}", f"{found.hours:,.1f}", f"{found.lost_hours:,.0f}",
         f"{found.idle_hours:,.0f}"]
        for size, found in sizes
    ]  # fmt: skip
    print(markdown(["images of a shard", "shards", "hours", "worker hours lost", "idle"], rows))


if __name__ == "__main__":
    main()
