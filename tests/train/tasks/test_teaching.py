import numpy as np
import pytest
import torch
from PIL import Image

import partzoo
from partzoo.train.loop import LoopOptions
from partzoo.train.tasks.objectness import teach, with_objectness


def scene(seed):
    """A bright block somewhere on a dark, noisy ground, and where it is."""
    random = np.random.default_rng(seed)
    pixels = random.normal(60, 8, (96, 112, 3))
    y, x = random.integers(20, 40, 2)
    pixels[y : y + 36, x : x + 44] += random.integers(60, 120, 3)
    mask = np.zeros((96, 112), bool)
    mask[y : y + 36, x : x + 44] = True
    return pixels.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def taught():
    torch.manual_seed(0)
    model = with_objectness(partzoo.load("patchresnet14", pretrained=False, device="cpu", dtype="float32"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = [Image.fromarray(scene(seed)[0]) for seed in range(12)]
    loss = teach(model, images, LoopOptions(steps=60, batch_size=512, lr=3e-3), rounds=2, progress=False)
    return model, before, loss


def test_the_student_finds_objects_in_unseen_images(taught):
    model, _, loss = taught
    assert loss < 0.3
    pixels, mask = scene(99)
    labels = partzoo.discover_parts(pixels, 2, model=model).labels
    assert ((labels > 0) == mask).mean() > 0.95


def test_only_the_head_is_taught(taught):
    model, before, _ = taught
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all(name.startswith("objectness.") for name in changed)
