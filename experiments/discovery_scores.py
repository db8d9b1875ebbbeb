"""Writes the table of docs/discovery.md: what was tried, on the faces' dev or report split.

    python experiments/discovery_scores.py FACES --limit 250
    python experiments/discovery_scores.py FACES --only floor,default

FACES is the folder of the protocol faces68. A figure is the mean over seeds of the clustering.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch
from torch import nn

import partzoo
from partzoo.discovery.describe import SIZE
from partzoo.discovery.finder import Finder
from partzoo.discovery.pipeline import blend
from partzoo.discovery.vocabulary import Settings
from partzoo.evaluate.parts.figures import part_figures
from partzoo.evaluate.protocols.faces68 import FACES68
from partzoo.features import DEFAULT_MODEL

LAYERS, WEIGHTS = blend(partzoo.load(DEFAULT_MODEL, device="cpu"))
DEFAULT = Settings(DEFAULT_MODEL, SIZE, LAYERS, WEIGHTS, "objectness")
PLAIN = dataclasses.replace(DEFAULT, weights=(0.0, 0.5, 0.5))
Row = tuple[str, Settings, int]


def rows() -> list[Row]:
    """What is compared: a description, settings, and K."""
    change = dataclasses.replace
    random = change(DEFAULT, model="random", background="none")
    part = change(DEFAULT, model="part-vitt8.tin", layers=(-1,), background="boundary")
    found = [
        ("floor: random features, colour, position", random, 8),
        ("floor: colour and position", change(PLAIN, background="none"), 8),
        ("floor: boundary prior, colour and position", change(PLAIN, background="boundary"), 8),
        *((f"**default**, K = {k}", DEFAULT, k) for k in (4, 8, 16)),
        *((f"background: {name}", change(DEFAULT, background=name), 8) for name in ("boundary", "ncut", "none")),
        ("features alone", change(DEFAULT, weights=(1.0, 0.0, 0.0)), 8),
        ("no features: colour and position", PLAIN, 8),
        ("less position, more colour", change(DEFAULT, weights=(0.4, 0.2, 0.4)), 8),
        ("more features", change(DEFAULT, weights=(0.6, 0.1, 0.3)), 8),
        ("more position", change(DEFAULT, weights=(0.2, 0.1, 0.7)), 8),
        ("stride 4 in place of stride 8", change(DEFAULT, layers=(0,)), 8),
        ("both strides", change(DEFAULT, layers=(0, 1), weights=(0.1, 0.2, 0.1, 0.6)), 8),
        *((f"{size} pixels", change(DEFAULT, size=size), 8) for size in (160, 288)),
        ("PART features (part-vitt8.tin), boundary prior", part, 8),
    ]
    return found


def finder(settings: Settings) -> Finder:
    """The model of the settings' name, ``"random"`` being the default one without its weights."""
    model: nn.Module
    if settings.model == "random":
        torch.manual_seed(0)
        model = partzoo.load("patchresnet14", pretrained=False, device="cpu", dtype="float32")
    else:
        model = partzoo.load(settings.model, device="cpu", dtype="float32")
    return Finder(model, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces")
    parser.add_argument("--split", default="dev", choices=("dev", "report"))
    parser.add_argument("--limit", type=int, default=None, help="pictures of each split; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose description holds one of these words")
    arguments = parser.parse_args()
    print("| what | K | NMI 5 | ARI 5 | NMI 68 | ARI 68 | NME |\n|---|---|---|---|---|---|---|", flush=True)
    words = arguments.only.split(",")
    for name, settings, k in rows():
        if not any(word in name for word in words):
            continue
        runs, _ = part_figures(
            finder(settings), FACES68, arguments.faces, k=[k], seeds=range(arguments.seeds), split=arguments.split,
            limit=arguments.limit,
        )  # fmt: skip
        metrics = [run["metrics"] for run in runs if run["seed"] is not None]
        figures = (f"{np.mean([m[key] for m in metrics]):.1f}" for key in ("nmi5", "ari5", "nmi68", "ari68", "nme"))
        print(f"| {name} | {k} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
