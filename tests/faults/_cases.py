"""The commands that faults are injected into, with small inputs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from PIL import Image

from partzoo import fit_parts
from partzoo.cli import main
from partzoo.errors import PartzooError
from partzoo.models.base import Model
from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.models.sharing import save_pretrained
from partzoo.train import windows
from partzoo.train.tasks import foreground
from tests.helpers.edf import write_edf
from tests.helpers.hub_server import Hub

VIT = {"dim": 24, "depth": 1, "heads": 2, "size": 32}
SEEN = ("toy-vit", "-k", "3", "--background", "none", "--size", "64")
REPO = "tester/toy"
SMALL_FOREGROUND = """
method = "foreground"
architecture = "foreground-lite0"
steps = 2
[config]
width = 0.1
depth = 0.2
pyramid = 8
[data]
sets = ["squares"]
"""


@dataclass(frozen=True)
class Case:
    """A command in a folder in which ``inputs`` are elsewhere, the folder ``o`` is empty, and ``cache`` is for caches.

    Args:
        name: name of the case.
        run: function that runs the command in the current folder.
        again: function that continues or repeats it; None calls ``run``.
        older: function that writes the result that the command replaces.
        model: model, as :func:`partzoo.load` takes it, which must be the old or the new one as a whole.
    """

    name: str
    run: Callable[[], object]
    again: Callable[[], object] | None = None
    older: Callable[[], object] | None = None
    model: str | None = None


def command(*words: object) -> Callable[[], None]:
    """Return a function that runs ``partzoo`` with these arguments."""
    return lambda: main([str(word) for word in words], prog_name="partzoo")


def python(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that ends as the command does if there is an error of partzoo."""

    def run() -> None:
        try:
            function()
        except PartzooError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(1)

    return run


def model_of(name: str, seed: int = 0, **config: Any) -> Model:
    """Return a model with random weights."""
    torch.manual_seed(seed)
    entry = find(name)
    return build(entry, entry.configure(config)).eval()


def write_inputs(place: Path) -> Path:
    """Write images, recordings, models and checkpoints to a new folder, and return it."""
    place.mkdir()
    draw = np.random.default_rng(0)
    for number in range(8):
        pixels = draw.integers(0, 120, (48, 48, 3), dtype=np.uint8)
        pixels[8 + number : 32 + number, 10:30] += 100
        folder = place / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        mask = np.zeros((48, 48), np.uint8)
        mask[8 + number : 32 + number, 10:30] = 1
        for kind, values in (("images", pixels), ("masks", mask)):
            (place / "sets" / "squares" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(place / "sets" / "squares" / kind / f"{number}.png")
        (place / "faces" / "img_celeba").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / "faces" / "img_celeba" / f"{number}.jpg", "PNG")
    (place / "few").mkdir()
    for number in range(4):
        shutil.copy(place / "sets" / "squares" / "images" / f"{number}.png", place / "few")
    lines = [f"{number}.jpg,{8 + number},10,{24 + number},10,{16 + number},20,10,29,22,28\n" for number in range(8)]
    (place / "faces" / "MAFL_train_lm.txt").write_text("".join(lines[:5]))
    (place / "faces" / "MAFL_test_lm.txt").write_text("".join(lines[5:]))
    (place / "nights").mkdir()
    for number in range(2):
        signals = [draw.normal(0, 30, 100 * 130) for _ in range(2)]
        write_edf(place / "nights" / f"{number}.edf", ["A", "B"], signals)
    save_pretrained(model_of("patchresnet14", widths=(8, 16), depths=(1, 1), size=32), place / "encoder")
    save_pretrained(model_of("partformer-resnet18", parts=3, size=32, reconstruction=32), place / "partformer")
    save_pretrained(model_of("part-vitt8", **VIT), place / "parent")
    (place / "foreground.toml").write_text(SMALL_FOREGROUND)
    for seed in (1, 2):
        state: dict[str, dict[str, torch.Tensor]] = {"backbone": {}, "relation": {}}
        for key, value in model_of("spatial-conv4", seed).state_dict().items():
            part, rest = key.split(".", 1)
            state[part][rest] = value
        torch.save(state, place / f"spatial-{seed}.pth")
    return place


def cases(inputs: Path, hub: Hub | None = None) -> list[Case]:
    """Return all cases; the one that downloads needs a hub."""
    few = inputs / "few"
    made = [*_trainings(inputs), *_discoveries(few), *_models(inputs), *_collections(few)]
    for name in ("npz", "safetensors"):
        run = command("features", few, "--model", "toy-vit", "-o", f"o/out.{name}")
        older = command("features", few / "0.png", "--model", "toy-vit", "-o", f"o/out.{name}")
        made.append(Case(f"features, {name}", run, older=older))
    small = ("-k", 2, "--seeds", 1, "--size", 32)
    made.append(
        Case(
            "eval",
            command(
                "eval", "toy-vit", "--protocol", "celeba", "--data", inputs / "faces", *small, "-o", "o/record.json"
            ),
        )
    )
    relate, swap = (
        ("--model", inputs / "parent", "-n", 9, "-o", "o/out"),
        ("--model", inputs / "partformer", "-o", "o/out.png"),
    )
    made += [
        Case(
            "relate", command("relate", few / "0.png", *relate), older=command("relate", few / "1.png", *relate),
        ),
        Case(
            "swap", command("swap", few / "0.png", few / "1.png", *swap),
            older=command("swap", few / "2.png", few / "3.png", *swap),
        ),
    ]  # fmt: skip
    if hub:
        made.append(_download(inputs, hub))
    return made


def _discoveries(few: Path) -> list[Case]:
    many, one = (("discover", images, "--model", *SEEN) for images in (few, few / "0.png"))
    other = ("discover", few / "1.png", "--model", *SEEN)
    save = ("--save-vocabulary", "o/parts.safetensors")
    return [
        Case("discover, folder", command(*many, "--scale", 1, "-o", "o/out")),
        Case("discover, npz", command(*many, "--format", ".npz", "-o", "o/out")),
        Case("discover, json", command(*many, "-o", "o/out.json")),
        Case("discover, one json", command(*one, "-o", "o/out.json"), older=command(*other, "-o", "o/out.json")),
        Case("discover, one image", command(*one, "-o", "o/out.png"), older=command(*other, "-o", "o/out.png")),
        Case("discover, vocabulary", command(*many, *save), older=command(*many, "--seed", 1, *save)),
        Case("fit_parts", python(partial(_fit, few, 0)), older=python(partial(_fit, few, 1))),
    ]


def _collections(few: Path) -> list[Case]:
    features = ("features", few, "--model", "toy-vit", "--pooled", "-o", "o/out", "--format", "parquet")
    parts = ("discover", few, "--model", *SEEN, "-o", "o/out", "--format", "coco")
    return [
        Case("features, shards", command(*features, "--per-shard", 2)),
        Case(
            "features, other shards",
            command(*features, "--per-shard", 2, "--no-resume"),
            older=command(*features, "--per-shard", 3),
        ),
        Case("discover, shards of COCO", command(*parts, "--per-shard", 3)),
    ]


def _fit(images: Path, seed: int) -> None:
    found = fit_parts(str(images), k=3, model="toy-vit", background="none", size=64, seed=seed)
    found.save("o/parts.safetensors")


def _models(inputs: Path) -> list[Case]:
    first, second = (
        command("convert", inputs / f"spatial-{number}.pth", "-o", "o/model", "--set", f"size={size}")
        for number, size in ((1, 32), (2, 64))
    )
    old = python(lambda: save_pretrained(model_of("part-vitt8", 1, **VIT | {"depth": 2}), "o/model"))
    new = python(lambda: save_pretrained(model_of("part-vitt8", 2, **VIT), "o/model"))
    return [
        Case("convert, new folder", first, model="o/model"),
        Case("convert", second, older=first, model="o/model"),
        Case("save_pretrained", new, older=old, model="o/model"),
    ]


def _download(inputs: Path, hub: Hub) -> Case:
    hub.commit(REPO, {path.name: path.read_bytes() for path in (inputs / "parent").iterdir()})
    constants.ENDPOINT, constants.HUGGINGFACE_CO_URL_TEMPLATE = (
        hub.url,
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )

    def run() -> None:
        constants.HF_HUB_CACHE = str(Path("o/hub").resolve())
        command("download", f"hf-hub:{REPO}")()

    return Case("download", run, model=f"hf-hub:{REPO}")


def _trainings(inputs: Path) -> list[Case]:
    images, nights = inputs / "images", inputs / "nights"
    foreground.SIZES = (64, 96)
    windows.AT_ONCE = 1  # so that the operations of a case have an order
    vit = dict(VIT)
    net = {"widths": [8, 16], "depths": [1, 1], "size": 32}
    partformer = {"parts": 3, "size": 32, "reconstruction": 32, "encoder": "toy-vit", "dim": 16, "compress": "linear"}
    mpae = {"parts": 3, "encoder": "toy-vit", "size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2}
    mpae |= {"masked_width": 32, "masked_heads": 2, "decoder_heads": 2}
    signal = {"dim": 24, "depth": 1, "heads": 2, "channels": 2}
    none, network = ("--grow-from", "none"), {"network": "toy-vit"}
    return [
        _training("part", images, *none, config=vit, pairs=16),
        _training("spatial", images, *none, "--model", "spatial-conv4", config={"size": 32, "patch_size": 12}),
        _training("partformer", images, config=partformer, **network),
        _training("mpae", images, config=mpae, group=3, **network),
        _training("classify", images, config=net, small_side=16),
        _training("finetune", images, "--parent", "none", config=vit),
        _training("foreground", inputs / "sets", "--recipe", inputs / "foreground.toml"),
        _training("part-signals", nights, config=signal, **{"data.layout": "edf", "data.channels": ["A", "B"]}),
        _training("objectness", inputs / "few", "--model", inputs / "encoder"),
    ]


def _training(method: str, data: Path, *words: object, config: dict[str, Any] | None = None, **settings: Any) -> Case:
    """Return the training of two steps with a row and a checkpoint at each."""
    given = {"loop.checkpoint_minutes": 0, "loop.log_steps": 1, "loop.precision": "fp32"} | settings
    given |= {f"config.{name}": value for name, value in (config or {}).items()}
    options = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    line = ("train", method, "--data", data, *words, "--steps", 2, "--batch-size", 4, *options, "-o", "o/run")
    return Case(f"train {method}", command(*line), again=command(*line, "--resume"))
