"""Write the table in docs/discovery.md that compares descriptors and clusterings with the default.

    python experiments/discovery_scores.py DATA --limit 45
    python experiments/discovery_scores.py DATA --only default,colour

DATA is the folder with ``masks/``. Each figure is a mean over random seeds of the clustering.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from partzoo.discovery import cluster, descriptors
from partzoo.discovery.factory import make_finder
from partzoo.evaluate import protocols
from partzoo.evaluate.parts.figures import part_figures

SETS = ("celebamask", "clothing", "cars")
FIGURES = ("labelled_nmi", "labelled_ari", "mirrored")
K = 8
ROWS = {
    "default": {},
    "stride 32 alone": {"layers": (-1,), "weights": (0.8, 0.15, 0.05)},
    "stride 16 alone": {"layers": (-2,), "weights": (0.8, 0.15, 0.05)},
    "strides 8, 16 and 32": {"layers": (-3, -2, -1), "weights": (0.1, 0.25, 0.45, 0.15, 0.05)},
    "colour 0.05": {"weights": (0.3, 0.6, 0.05, 0.05)},
    "colour 0.3": {"weights": (0.22, 0.43, 0.3, 0.05)},
    "place 0.2": {"weights": (0.22, 0.43, 0.15, 0.2)},
    "features less their mean": {"centre": True},
    "320 pixels": {"size": 320},
    "no attention": {"temperature": 1e-3},  # each cell attends to itself
    "softer attention": {"temperature": 0.2},
    "k-means alone": {"more": 1},
    "four times as many groups": {"more": 4},
}
CONSTANTS = {"more": (cluster, "MORE"), "temperature": (descriptors, "TEMPERATURE")}  # constants that are not settings


@contextmanager
def constants(**changes: float) -> Iterator[None]:
    """Replace the values of some of :data:`CONSTANTS` inside the block."""
    before = {name: getattr(*CONSTANTS[name]) for name in changes}
    try:
        for name, value in changes.items():
            setattr(*CONSTANTS[name], value)
        yield
    finally:
        for name, value in before.items():
            setattr(*CONSTANTS[name], value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--split", default="dev", choices=("dev", "report"))
    parser.add_argument("--limit", type=int, default=None, help="images of each split; all by default")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="only rows whose description contains one of these words")
    chosen = parser.parse_args()
    default = make_finder()
    print(f"| what | {' | '.join(SETS)} |\n| --- | {' | '.join('---' for _ in SETS)} |", flush=True)
    for name, changes in ROWS.items():
        if not any(word in name for word in chosen.only.split(",")):
            continue
        finder = default.with_settings(**{name: v for name, v in changes.items() if name not in CONSTANTS})
        cells = []
        for each in SETS:
            with constants(**{name: value for name, value in changes.items() if name in CONSTANTS}):
                runs, _ = part_figures(
                    finder, protocols.get(each), chosen.data, k=[K],
                    seeds=range(chosen.seeds), split=chosen.split, limit=chosen.limit,
                )  # fmt: skip
            found = [[run["metrics"][figure] for figure in FIGURES] for run in runs if run["seed"] is not None]
            cells.append(" / ".join(f"{value:.1f}" for value in np.mean(found, axis=0)))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
