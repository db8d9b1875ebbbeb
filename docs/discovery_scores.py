"""Writes the table of docs/discovery.md: what was tried, on the faces' dev or report split.

    python docs/discovery_scores.py FACES            (a folder with train.avif, train.npz, dev.avif, ...)
    python docs/discovery_scores.py FACES --split report --only floor,default
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import partzoo
from partzoo.discovery.describe import SIZE
from partzoo.discovery.finder import Finder
from partzoo.discovery.pipeline import blend
from partzoo.discovery.vocabulary import Settings
from partzoo.evaluate.protocols import faces68
from partzoo.features import DEFAULT_MODEL
from partzoo.image import Picture

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


def discoverer(settings: Settings, k: int, train: np.ndarray, seen: dict) -> Callable[[np.ndarray], np.ndarray]:
    """Labels of pictures by a vocabulary fitted on ``train``. ``seen`` keeps views that other rows need again."""
    found = finder(settings)
    key = dataclasses.replace(settings, weights=())
    if seen.get("key") != key:
        seen.clear()
        seen["key"] = key

    def view(pixels: np.ndarray):
        name = pixels.tobytes()
        if name not in seen:
            seen[name] = found.look(Picture(pixels))
        return seen[name]

    vocabulary = found.fit([found.sample(view(pixels), 200) for pixels in train], k)
    return lambda pictures: np.stack(
        [found.parts(Picture(p), view(p), vocabulary).labels for p in pictures]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces")
    parser.add_argument("--split", default="dev", choices=("dev", "report"))
    parser.add_argument("--fit", type=int, default=500, help="training pictures for vocabulary and regression")
    parser.add_argument("--pictures", type=int, default=None, help="of the split; all by default")
    parser.add_argument("--only", default="", help="rows whose description holds one of these words")
    arguments = parser.parse_args()
    train = faces68.load(arguments.faces, "train").head(arguments.fit).pictures
    print("| what | K | NMI 5 | ARI 5 | NMI 68 | ARI 68 | NME |\n|---|---|---|---|---|---|---|", flush=True)
    seen: dict = {}
    words = arguments.only.split(",")
    chosen = [row for row in rows() if any(word in row[0] for word in words)]
    for name, settings, k in sorted(chosen, key=lambda row: str(dataclasses.replace(row[1], weights=()))):
        scores = faces68.evaluate(
            discoverer(settings, k, train, seen), arguments.faces, k, split=arguments.split,
            fit_pictures=arguments.fit, pictures=arguments.pictures,
        )  # fmt: skip
        figures = (f"{scores[key]:.1f}" for key in ("nmi5", "ari5", "nmi68", "ari68", "nme"))
        print(f"| {name} | {k} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
