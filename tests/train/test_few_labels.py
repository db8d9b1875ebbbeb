"""The experiment with few labels: same images for all, rows that are kept, means over seeds."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.errors import UsageError
from partzoo.locks import locked
from partzoo.models.loading import build, load
from partzoo.models.part.model import PartConfig
from partzoo.models.registry import find
from partzoo.train.few_labels import TABLE, few_labels, means
from partzoo.train.loop import fit
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
        few_labels(folder, parents, tmp_path / "out", every=2, **options)


def test_a_folder_of_other_settings_is_refused_and_more_parents_are_not(folder, parent, tmp_path):
    options = {"seeds": (0,), "per_class": (2,), "steps": 1, "every": 2, "task": TASK, "loop": {"batch_size": 4}}
    few_labels(folder, {"off.grid": parent, "scratch": None}, tmp_path / "out", **options)
    table = (tmp_path / "out" / TABLE).read_bytes()
    other = shutil.copy(parent, tmp_path / "other.safetensors")
    for change, message in (
        ({"steps": 2}, "steps was 1, is 2"),
        ({"loop": {"batch_size": 4, "lr": 0.5}}, "loop.lr was None, is 0.5"),
        ({"parents": {"off.grid": other}}, r"parents\.off\.grid was '.*part.safetensors', is '.*other.safetensors'"),
    ):
        asked = {"parents": {"off.grid": parent}} | options | change
        with pytest.raises(UsageError, match=f"holds results of other settings \\({message}\\)"):
            few_labels(folder, out=tmp_path / "out", **asked)
    assert (tmp_path / "out" / TABLE).read_bytes() == table
    rows = few_labels(folder, {"more": other}, tmp_path / "out", **options)
    assert [row["parent"] for row in rows] == ["off.grid", "scratch", "more"]
    with pytest.raises(UsageError, match=r"parents\.scratch was '', is"):  # settings of earlier calls are kept
        few_labels(folder, {"scratch": other}, tmp_path / "out", **options)


def test_a_second_process_and_half_a_row(folder, parent, tmp_path):
    options = {"seeds": (0,), "per_class": (2,), "steps": 1, "every": 2, "task": TASK, "loop": {"batch_size": 4}}
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(UsageError, match="is being written by process"):
        few_labels(folder, {"part": parent}, tmp_path / "out", **options)
    assert not list((tmp_path / "out").iterdir())
    whole = few_labels(folder, {"part": parent}, tmp_path / "out", **options)
    file = tmp_path / "out" / TABLE
    file.write_text(file.read_text() + "part,2,")  # as an older version left it when it was killed
    assert few_labels(folder, {"part": parent}, tmp_path / "out", **options) == whole


def started(folder, parents, out, **options):
    """Return the networks that runs start with, by folder: a step at a tiny rate hardly changes them."""
    loop = {"batch_size": 4, "lr": 1e-12, "precision": "fp32"}
    few_labels(
        folder, parents, out, **({"steps": 1, "task": TASK, "loop": loop, "every": 2, "per_class": (2,)} | options)
    )
    return {file.parent.name: load(file, device="cpu", dtype="float32") for file in out.glob("*/model.safetensors")}


def test_each_training_begins_with_its_parent_or_from_scratch(folder, parent, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = build(find("part-vitt8"), PartConfig(dim=24, depth=1, heads=2, size=16))
    write_weights(tmp_path / "other.safetensors", other.state_dict(), other.architecture, vars(other.config))
    parents = {"part": parent, "other": tmp_path / "other.safetensors", "scratch": None}
    found = started(folder, parents, tmp_path / "out", seeds=(0, 1))
    weights = {name: model.blocks[0].mlp.fc1.weight for name, model in found.items()}
    assert set(weights) == {f"{label}-2-{seed}" for label in parents for seed in (0, 1)}
    for label in ("part", "other"):
        own = load(parents[label], device="cpu", dtype="float32").blocks[0].mlp.fc1.weight
        for seed in (0, 1):
            assert torch.allclose(weights[f"{label}-2-{seed}"], own, atol=1e-6)
            assert not torch.allclose(weights[f"scratch-2-{seed}"], own, atol=1e-3)
    assert not torch.allclose(weights["scratch-2-0"], weights["scratch-2-1"], atol=1e-3)
    heads = [found[f"part-2-{seed}"].head.weight for seed in (0, 1)]
    assert not torch.allclose(*heads, atol=1e-6)


def test_a_seed_draws_the_same_images_for_every_parent(folder, parent, tmp_path, monkeypatch):
    drawn = {}

    def watched(task, images, options, out, **rest):
        drawn[out.name] = images.files
        return fit(task, images, options, out, **rest)

    monkeypatch.setattr("partzoo.train.few_labels.fit", watched)
    started(folder, {"part": parent, "scratch": None}, tmp_path / "out", seeds=(0, 1), per_class=(3,))
    assert drawn["part-3-0"] == drawn["scratch-3-0"] and drawn["part-3-1"] == drawn["scratch-3-1"]
    assert len(drawn["part-3-0"]) == 2 * 3 and set(drawn["part-3-0"]) != set(drawn["part-3-1"])


def test_only_every_nth_class_is_learned(folder, parent, tmp_path):
    for every, names in ((1, "abcd"), (2, "ac"), (3, "ad")):
        [made] = started(folder, {"part": parent}, tmp_path / str(every), seeds=(0,), every=every).values()
        assert made.config.names == tuple(names) and made.config.classes == len(names)


def test_settings_of_task_and_loop_reach_the_training(folder, parent, tmp_path):
    with pytest.raises(UsageError, match="layer_decay"):
        started(folder, {"part": parent}, tmp_path / "task", seeds=(0,), task={"layer_decay": 2.0})
    rows = few_labels(folder, {"part": parent}, tmp_path / "loop", seeds=(0,), task=TASK, loop={"steps": 3}, every=2)
    assert [row["steps"] for row in rows] == [3]


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
    with pytest.raises(UsageError, match="at least one model"):
        few_labels(folder, {"scratch": None}, tmp_path / "out")
