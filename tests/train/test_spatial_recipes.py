import numpy as np
import pytest
import torch

import partzoo
from partzoo.train.recipe import read_recipe
from partzoo.train.run import train

PAPER = {
    "spatial-resnet32.cifar10": (32, 12, 200),
    "spatial-resnet32.cifar100": (32, 12, 200),
    "spatial-resnet32.tin-200": (64, 24, 200),
    "spatial-resnet34.stl10": (96, 36, 300),
}


def cifar10(folder, count):
    """The binary version of CIFAR-10, with that many noisy images in each file."""
    draw = np.random.default_rng(0)
    root = folder / "cifar-10-batches-bin"
    root.mkdir(parents=True)
    (root / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = draw.integers(0, 256, (count, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(root / f"{name}.bin")
    return folder


@pytest.mark.parametrize("name", PAPER)
def test_recipes_hold_the_paper_s_settings(name):
    recipe = read_recipe(name)
    architecture = partzoo.load(recipe.architecture, pretrained=False, **recipe.config)
    size, patch, epochs = PAPER[name]
    assert (architecture.config.size, architecture.config.patch_size, recipe.epochs) == (size, patch, epochs)
    wanted = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0, "schedule": "constant", "warmup": 0, "clip_grad": 0}
    assert {key: recipe.loop[key] for key in wanted} == wanted and recipe.loop["batch_size"] == 64
    assert recipe.task == {"views": 4, "patches": 2, "patch_negatives": False, "alpha": 2.0}


@pytest.mark.parametrize(
    ("task", "config", "width"), [({}, {}, 10), ({"patches": 12}, {"additive": True}, 1), ({"patches": 0}, {}, 10)]
)
def test_a_recipe_trains_on_the_official_files_of_cifar(tmp_path, task, config, width):
    data = cifar10(tmp_path / "data", 2)
    model, state = train(
        "spatial", data=data, out=tmp_path / "run", recipe="spatial-resnet32.cifar10", model="spatial-conv4",
        epochs=1, batch_size=5, task=task, config=config, progress=False,
    )  # fmt: skip
    assert (state.step, state.images) == (2, 10)
    again = partzoo.load(tmp_path / "run/model.safetensors", dtype="float32")
    assert again.config == model.config and again.config.additive == bool(config) and again.config.size == 32
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = again.preprocess.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert again.represent(x).shape == (1, 64 * width)
