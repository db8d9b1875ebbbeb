"""The experiment with few labels: same images for all, rows that are kept, means over seeds."""

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.part.model import PartConfig
from partzoo.models.registry import find
from partzoo.train.few_labels import TABLE, few_labels, means
from partzoo.weights.tensors import write_weights

TASK = {"mixup": 0.0, "cutmix": 0.0, "policy": "", "erasing": 0.0}


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
                tmp_path / "data" / name / f"{index}.png"
            )
    return tmp_path / "data"


@pytest.fixture
def parent(tmp_path):
    torch.manual_seed(0)
    part = build(find("part-vitt8"), PartConfig(dim=24, depth=1, heads=2, size=16))
    file = tmp_path / "part.safetensors"
    write_weights(file, part.state_dict(), part.architecture, vars(part.config))
    return file


def test_every_parent_count_and_seed_is_a_row_and_is_run_once(folder, parent, tmp_path):
    told, parents = [], {"part": parent, "scratch": None}
    options = {"per_class": (2, 3), "steps": 2, "task": TASK, "loop": {"batch_size": 4}, "progress": told.append}
    rows = few_labels(folder, parents, tmp_path / "out", seeds=(0, 1), every=2, **options)
    assert [(r["parent"], r["per_class"], r["seed"]) for r in rows] == [
        (label, count, seed) for count in (2, 3) for seed in (0, 1) for label in ("part", "scratch")
    ]
    assert {row["images"] for row in rows} == {2} and {row["steps"] for row in rows} == {2} and rows == told
    more = few_labels(folder, parents, tmp_path / "out", seeds=(0, 1, 2), every=2, **options)
    assert more[:8] == rows and len(more) == 12 and len(told) == 12
    assert (tmp_path / "out" / TABLE).read_text().count("\n") == 13
    (tmp_path / "out" / TABLE).write_text("something,else\n1,2\n")
    with pytest.raises(UsageError, match="not a table of this experiment"):
        few_labels(folder, parents, tmp_path / "out", **options)


def test_means_are_over_seeds():
    rows = [
        {"parent": label, "per_class": 5, "seed": seed, "top1": value + seed}
        for label, value in (("part", 30.0), ("scratch", 20.0))
        for seed in (0, 1, 2)
    ]
    assert means(rows) == [
        {"parent": "part", "per_class": 5, "top1": 31.0, "std": 1.0, "seeds": 3},
        {"parent": "scratch", "per_class": 5, "top1": 21.0, "std": 1.0, "seeds": 3},
    ]


def test_there_must_be_a_parent(folder, tmp_path):
    with pytest.raises(UsageError, match="at least one that is a model"):
        few_labels(folder, {"scratch": None}, tmp_path / "out")
