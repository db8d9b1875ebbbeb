"""Observes the ranges for int8, measures how low precisions agree with float32, and writes the record of both.

    python scripts/int8.py DATA [NAME...]

DATA holds ``photographs.tar`` and, for models of faces, ``masks/celebamask.tar``. Ranges are observed on some of the
images. Agreement is measured on others: the mean cosine of features, and the share of pixels with equal labels; an
encoder's labels are those of the parts that float32 found in the image, a foreground model's say where it finds
foreground.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from partzoo.discovery.factory import FOREGROUND, make_finder
from partzoo.discovery.pipeline import divided
from partzoo.features import model_input
from partzoo.images.opening import OpenedImage, open_image
from partzoo.models.base import Model
from partzoo.models.engines.kept import identity
from partzoo.models.engines.quantizing import Range, observed, quantized
from partzoo.models.engines.recorded import FILE
from partzoo.models.engines.running import PRECISIONS, on_engine
from partzoo.models.foreground import ForegroundModel
from partzoo.models.loading import load
from partzoo.models.part_model import PartModel

NAMES = (
    "efficientnet-lite0.in1k", "foreground-lite0.masks", "part-vitn8.tin", "part-vitt8.tin", "part-vits8.tin",
    "partformer-lite0.faces-k8", "partformer-resnet18.faces-k8", "mpae-patchresnet14.faces-k8",
)  # fmt: skip
CALIBRATION, MEASUREMENT = 32, 48  # numbers of images
ENOUGH = 0.9995  # cosine on calibration images from which no further layer is left in float32
TRIED = 8  # calibration images on which layers are left out
PARTS = 6  # into which an encoder's features are clustered

Compare = Callable[[Model, OpenedImage], tuple[float, float]]


def archive_for(name: str) -> str:
    """Return the archive with the images that a model is for."""
    return "masks/celebamask.tar" if ".faces" in name else "photographs.tar"


def read(file: Path) -> tuple[list[OpenedImage], list[OpenedImage], dict[str, Any]]:
    """Return evenly spaced images for calibration and for measurement, and what to record of them."""
    with tarfile.open(file) as tar:
        members = sorted(
            (each for each in tar if each.isfile() and each.name.startswith("images/")), key=lambda each: each.name
        )
        places = np.linspace(0, len(members) - 1, CALIBRATION + MEASUREMENT).round().astype(int)
        calibrates = np.zeros(len(places), bool)
        calibrates[np.linspace(0, len(places) - 1, CALIBRATION).round().astype(int)] = True
        names = [members[place].name for place in places]
        contents = [tar.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    chosen = [(n, c) for n, c, used in zip(names, contents, calibrates, strict=True) if used]
    digest = hashlib.sha256(b"".join(content for _, content in chosen)).hexdigest()
    about = {"calibration": [name for name, _ in chosen], "sha256": digest, "measured_on": MEASUREMENT}
    images = [open_image(content) for content in contents]
    return (
        [image for image, used in zip(images, calibrates, strict=True) if used],
        [image for image, used in zip(images, calibrates, strict=True) if not used],
        about,
    )


def method(model: Model) -> Callable[[Tensor], Any]:
    """Return the method that reaches all layers that are used."""
    return model.descriptors_and_maps if isinstance(model, PartModel) else model.encode


@torch.inference_mode()
def outputs(model: Model, x: Tensor) -> list[Tensor]:
    """Return an encoder's features, and a part model's descriptors, with channels second."""
    return [model.encode(x).maps(), *([model.descriptors(x).mT] if isinstance(model, PartModel) else [])]


def cosine(one: Tensor, other: Tensor) -> float:
    return cosine_similarity(one, other, dim=1).mean().item()


def tolerable(model: Model, ranges: dict[str, Range], inputs: list[Tensor]) -> dict[str, Range]:
    """Leave out the layers that change features most, each quantized alone, until those of all others agree."""
    expected = [outputs(model, x) for x in inputs]

    def agreement(chosen: dict[str, Range]) -> float:
        other = quantized(copy.deepcopy(model), chosen)
        found = (
            [cosine(*pair) for pair in zip(outputs(other, x), true, strict=True)]
            for x, true in zip(inputs, expected, strict=True)
        )
        return float(np.mean(list(found), axis=0).min())

    alone = {name: agreement({name: each}) for name, each in ranges.items()}
    kept = sorted(ranges, key=alone.__getitem__, reverse=True)
    while kept and agreement({name: ranges[name] for name in kept}) < ENOUGH:
        kept.pop()
    print(f"  in float32: {', '.join(name for name in ranges if name not in kept) or 'none'}", flush=True)
    return {name: ranges[name] for name in ranges if name in kept}


def compare_foreground(reference: Model) -> Compare:
    def compare(model: Model, image: OpenedImage) -> tuple[float, float]:
        expected, found = (each.probability(image.pixels) for each in (reference, model))
        same = ((expected >= 0.5) == (found >= 0.5)).float().mean().item()
        return cosine(expected.flatten()[None], found.flatten()[None]), same

    return compare


def compare_encoder(reference: Model) -> Compare:
    network = load(FOREGROUND, device="cpu", dtype="float32")
    finder = make_finder(reference, network)
    known: dict[str | int, Any] = {}

    def compare(model: Model, image: OpenedImage) -> tuple[float, float]:
        if id(image) not in known:
            look = finder.look(image)
            known[id(image)] = finder.label_alone(image, look, PARTS, 0)
        parts, vocabulary = known[id(image)]
        other = make_finder(model, network)
        found = other.label(image, other.look(image), vocabulary)
        return of_features(reference, model, image), float((found.labels == parts.labels).mean())

    return compare


def compare_parts(reference: Model) -> Compare:
    def labels(model: Model, image: OpenedImage) -> np.ndarray:
        finder = make_finder(model)
        return divided(finder, image, None, None, finder.asked(None), 0).labels

    def compare(model: Model, image: OpenedImage) -> tuple[float, float]:
        same = float((labels(reference, image) == labels(model, image)).mean())
        return of_features(reference, model, image), same

    return compare


def of_features(reference: Model, model: Model, image: OpenedImage) -> float:
    x = model_input(image, reference)
    with torch.inference_mode():
        return cosine(model.encode(x).maps(), reference.encode(x).maps())


def recorded(name: str, data: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a model's identity, its entry of the record, and what to record of the images."""
    model = load(name, device="cpu", dtype="float32")
    calibration, measured, about = read(data / archive_for(name))
    if isinstance(model, ForegroundModel):
        compare, ranges = compare_foreground(model), {}
    else:
        compare = (compare_parts if isinstance(model, PartModel) else compare_encoder)(model)
        inputs = [model_input(image, model) for image in calibration]
        ranges = tolerable(model, observed(model, inputs, method(model)), inputs[:TRIED])
    agreement: dict[str, dict[str, list[float]]] = {}
    for engine, precisions in PRECISIONS.items():
        for precision in precisions[1:]:
            if precision == "int8" and not ranges:
                continue
            other = on_engine(model, engine, precision, ranges if precision == "int8" else {})
            figures = np.mean([compare(other, image) for image in measured], axis=0)
            agreement.setdefault(engine, {})[precision] = [round(float(each), 5) for each in figures]
            print(f"{name}, {engine}, {precision}: cosine {figures[0]:.5f}, labels alike {figures[1]:.3%}", flush=True)
    return identity(model), {"name": name, "agreement": agreement, "ranges": ranges}, {archive_for(name): about}


def main() -> None:
    data, *names = sys.argv[1:]
    content = json.loads(FILE.read_text(encoding="utf-8"))
    for name in names or NAMES:
        key, entry, about = recorded(name, Path(data))
        content["models"] = {k: each for k, each in content["models"].items() if each["name"] != name} | {key: entry}
        content["calibration"] |= about
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
