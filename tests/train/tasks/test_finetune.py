"""Finetuning from a PART model and from scratch, on drawn classes."""

import json
import multiprocessing
import random

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

import partzoo as zoo
from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.part.classifier import PartClassifier, PartClassifierConfig
from partzoo.models.part.model import PartConfig
from partzoo.models.registry import find
from partzoo.skipping import SkippedWarning
from partzoo.train.augmentation import deit
from partzoo.train.augmentation.deit import CHUNK, RandAugment, random_crops, seeded
from partzoo.train.datasets import DataOptions, read_images
from partzoo.train.loop import LoopOptions, _optimizer
from partzoo.train.recipe import read_recipe
from partzoo.train.run import RECIPE, train
from partzoo.train.tasks.finetune import FinetuneTask, write_top1
from partzoo.weights.tensors import write_weights

SIZES = {"dim": 24, "depth": 2, "heads": 2, "size": 32}
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "policy": "", "erasing": 0.0, "scale": [0.9, 1.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Classes that differ in colour, 20 images each: two are held out."""
    root, draw = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for index in range(20):
            pixels = draw.integers(0, 90, (32, 32, 3), dtype=np.uint8)
            pixels[..., 2 - number] += 120
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    torch.manual_seed(0)
    part = build(find("part-vitt8"), PartConfig(**SIZES))
    file = tmp_path_factory.mktemp("part") / "model.safetensors"
    write_weights(file, part.state_dict(), part.architecture, vars(part.config))
    return file


def task(**options):
    torch.manual_seed(0)
    return FinetuneTask(PartClassifier(PartClassifierConfig(**SIZES, classes=5)), **options)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_finetuning_learns_classes_and_the_result_is_loaded_and_classifies(folder, parent, tmp_path):
    options = [word for key, value in PLAIN.items() for word in ("--set", f"{key}={value}")]
    ran = partzoo(
        "train", "finetune", "--data", folder, "--parent", parent, "--steps", 30, "--batch-size", 18, "--lr", 3e-3,
        "-o", tmp_path / "run", *options,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    figures = json.loads((tmp_path / "run/held-out.json").read_text())
    assert figures["images"] == 6 and figures["top1"] > 80
    assert f"Top-1 on 6 held-out images: {figures['top1']:.2f} %." in ran.out
    model = zoo.load(tmp_path / "run/model.safetensors", device="cpu", dtype="float32")
    assert model.config.names == ("blue", "green", "red") and model.architecture == "part-classifier-vitt8"
    x = model.preprocess.normalize(torch.tensor([200, 30, 30], dtype=torch.uint8)[:, None, None].expand(1, 3, 40, 32))
    assert model.config.names[model.classify(x).argmax()] == "red"
    recipe = read_recipe(tmp_path / "run" / RECIPE)
    assert (recipe.parent, recipe.config["dim"], recipe.config["classes"]) == (str(parent), 24, 3)


def test_training_starts_with_the_parent_s_encoder_or_with_random_weights(folder, parent, tmp_path):
    pretrained = zoo.load(parent, device="cpu", dtype="float32").blocks[1].mlp.fc1.weight
    options = {"data": folder, "steps": 1, "batch_size": 2, "lr": 1e-12, "task": PLAIN, "progress": False}
    tuned, _ = train("finetune", out=tmp_path / "tuned", parent=str(parent), **options)
    assert torch.allclose(tuned.blocks[1].mlp.fc1.weight, pretrained, atol=1e-6)
    scratch, _ = train("finetune", out=tmp_path / "scratch", parent="none", config=SIZES, **options)
    assert not torch.allclose(scratch.blocks[1].mlp.fc1.weight, pretrained, atol=1e-3)
    assert "parent" not in (tmp_path / "scratch" / RECIPE).read_text().split("[config]")[0]
    assert (tmp_path / "scratch/held-out.json").exists()


def test_a_runs_recipe_takes_the_sizes_of_another_parent(folder, parent, tmp_path):
    larger = tmp_path / "larger.safetensors"
    part = build(find("part-vitt8"), PartConfig(**(SIZES | {"dim": 32})))
    write_weights(larger, part.state_dict(), part.architecture, vars(part.config))
    options = {"data": folder, "steps": 1, "batch_size": 2, "progress": False}
    train("finetune", out=tmp_path / "a", parent=str(parent), task=PLAIN, config={"drop_path": 0.2}, **options)
    recipe = tmp_path / "a" / RECIPE
    tuned, _ = train("finetune", out=tmp_path / "b", recipe=recipe, parent=str(larger), **options)
    scratch, _ = train("finetune", out=tmp_path / "c", recipe=recipe, parent="none", **options)
    assert (tuned.config.dim, tuned.config.drop_path) == (32, 0.2)
    assert (scratch.config.dim, scratch.config.drop_path) == (24, 0.2)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(folder, parent, tmp_path):
    options = {"data": folder, "parent": str(parent), "batch_size": 6, "progress": False, "schedule": "constant"}
    options |= {"warmup": 0.0, "task": {"repeats": 2}, "config": {"drop_path": 0.0}}
    whole, _ = train("finetune", out=tmp_path / "whole", steps=4, **options)
    train("finetune", out=tmp_path / "parts", steps=2, **options)
    resumed, state = train("finetune", data=folder, out=tmp_path / "parts", steps=4, resume=True, progress=False)
    assert state.step == 4
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_few_images_of_each_class_are_drawn_by_the_seed(folder):
    def drawn(count, seed):
        return read_images(folder, DataOptions(per_class=count), 32, seed=seed)

    first, again, other = drawn(4, 0), drawn(4, 0), drawn(4, 1)
    assert torch.bincount(first.labels).tolist() == [4, 4, 4]
    assert first.files == again.files and set(first.files) != set(other.files)
    assert len(drawn(100, 0)) == 54
    unseen = read_images(folder, DataOptions(per_class=4), 32, split="val")
    assert len(unseen) == 6 and not set(unseen.files) & set(drawn(100, 0).files)
    with pytest.raises(UsageError, match=r"per_class=0 must be at least 1"):
        drawn(0, 0)


def test_tiny_imagenet_s_official_validation_images_are_held_out(tmp_path):
    for name in ("n1", "n2"):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "train" / name / "images" / "0.JPEG")
    (tmp_path / "val/images").mkdir(parents=True)
    rows = [("a.JPEG", "n2"), ("b.JPEG", "n1")]
    for file, _ in rows:
        Image.new("RGB", (64, 64)).save(tmp_path / "val/images" / file)
    (tmp_path / "val/val_annotations.txt").write_text("".join(f"{file}\t{name}\t0\t0\t1\t1\n" for file, name in rows))
    unseen = read_images(tmp_path, DataOptions(), 32, split="val")
    assert unseen.labels.tolist() == [1, 0] and unseen.classes == ["n1", "n2"]
    assert unseen.batch(torch.arange(2)).shape == (2, 3, 32, 32)


def test_a_held_out_image_that_cannot_be_read_is_passed_over_and_in_the_figures(folder, tmp_path):
    model = PartClassifier(PartClassifierConfig(**SIZES, classes=3))
    unseen = read_images(folder, DataOptions(), 32, split="val")
    whole = write_top1(model, unseen, tmp_path)
    assert whole["images"] == len(unseen) and whole["failed"] == []
    bad = tmp_path / "bad.png"
    bad.write_bytes(unseen.files[0].read_bytes()[:300])
    with_bad = ImageSet([bad, *unseen.files], 32, torch.cat([unseen.labels[:1], unseen.labels]), unseen.classes)
    with pytest.warns(SkippedWarning, match=r"Skipped: .*bad\.png"):
        figures = write_top1(model, with_bad, tmp_path)
    assert [each["path"] for each in figures["failed"]] == [str(bad)]
    assert figures | {"failed": []} == whole and json.loads((tmp_path / "held-out.json").read_text()) == figures


# Rates by layer


def test_layers_learn_at_their_share_of_the_rate():
    made = task(layer_decay=0.5)
    factors = {name: made.rate_factor(name) for name, _ in made.named_parameters()}
    assert {factors[f"model.{name}"] for name in ("head.weight", "head.bias", "norm.weight")} == {1.0}
    assert factors["model.blocks.1.mlp.fc1.weight"] == 0.5 and factors["model.blocks.0.norm1.bias"] == 0.25
    assert {factors[f"model.{name}"] for name in ("cls_token", "pos_embed", "patch_embed.weight")} == {0.125}
    groups = _optimizer(made, LoopOptions(steps=1, weight_decay=0.3)).param_groups
    assert sorted({group["factor"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(factors)
    assert decay[id(made.model.pos_embed)] == decay[id(made.model.cls_token)] == 0
    assert decay[id(made.model.patch_embed.weight)] == 0.3


# Augmentation


def test_augmentation_is_the_generator_s_alone():
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator())
    labels = torch.arange(6) % 5
    made = task()
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    one = made.augmented(pixels, labels, generator(1))
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[2])
    assert (np.random.get_state()[1] == state[1]).all()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    for mine, other in zip(one, made.augmented(pixels, labels, generator(1)), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(one[0], made.augmented(pixels, labels, generator(2))[0])


def test_mixed_labels_are_smoothed_shares():
    pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    x, shares = task(smoothing=0.1).augmented(pixels, torch.tensor([0, 1, 2, 3]), generator())
    assert x.shape == (4, 3, 32, 32) and shares.shape == (4, 5)
    assert torch.allclose(shares.sum(1), torch.ones(4)) and shares.min() >= 0.1 / 5 - 1e-6
    with pytest.raises(UsageError, match="even batch size in each process, not 3"):
        task().augmented(pixels[:3], torch.arange(3), generator())


def test_repeats_are_one_image_augmented_apart():
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator())
    made = task(**PLAIN | {"scale": (0.3, 0.5), "repeats": 3})
    x, labels = made.augmented(pixels, torch.arange(6) % 5, generator())
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1] and len(x.unique(dim=0)) == 6


def test_shifted_images_are_parts_of_the_padded_ones():
    pixels = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4).expand(64, 3, 4, 4).contiguous()
    shifted = random_crops(pixels, padding=1, generator=generator())
    padded = torch.nn.functional.pad(pixels[0, 0], (1,) * 4)
    windows = padded.unfold(0, 4, 1).unfold(1, 4, 1).flatten(0, 1)
    allowed = {tuple(w.flatten().tolist()) for w in [*windows, *windows.flip(-1)]}
    found = {tuple(each[0].flatten().tolist()) for each in shifted}
    assert found <= allowed and len(found) > 12


def test_randaugment_does_not_depend_on_how_many_processes_there_are(monkeypatch):
    monkeypatch.setattr(deit, "get_context", lambda _: multiprocessing.get_context("fork"))  # ready at once
    pixels = torch.randint(0, 256, (CHUNK + 3, 3, 16, 16), dtype=torch.uint8, generator=generator())
    policy, mean = "rand-m9-mstd0.5-inc1", (0.5, 0.5, 0.5)
    seeds = range(CHUNK + 3)
    alone = RandAugment(policy, mean)(pixels, seeds)
    assert torch.equal(RandAugment(policy, mean, workers=2)(pixels, seeds), alone)
    assert not torch.equal(alone, pixels) and alone.dtype == torch.uint8
    assert torch.equal(RandAugment(policy, mean)(pixels[5:6], [5]), alone[5:6])


def test_randaugment_posterizes_down_to_no_bits_at_all():
    pixels = torch.randint(100, 256, (300, 3, 4, 4), dtype=torch.uint8, generator=generator())
    strongest = RandAugment("rand-m10-inc1-n1", (0.5, 0.5, 0.5))(pixels, range(300))
    assert (strongest == 0).flatten(1).all(1).any()


def test_a_failure_puts_random_states_back():
    before = random.getstate()
    with pytest.raises(ValueError), seeded(3):
        random.random()
        raise ValueError
    assert random.getstate() == before


# What cannot be


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("finetune", {"parent": "patchresnet14.tin"}, r"patchresnet14\.tin is not a PART model"),
        ("part", {"parent": "part-vitt8"}, r"an option of 'finetune' only"),
        ("finetune", {"model": "part-classifier-vits8"}, r"part-vitt8\.tin determines the size\. Leave model out"),
        ("finetune", {"reading": {"layout": "cub"}, "parent": "none"}, r"cub"),
        ("finetune", {"task": {"layer_decay": 2.0}, "parent": "none"}, r"layer_decay must be in 0\.\.1"),
    ],
)
def test_what_cannot_be_is_one_clear_error(folder, tmp_path, method, options, message):
    with pytest.raises(UsageError, match=message):
        train(method, data=folder, out=tmp_path / "run", steps=1, progress=False, **options)


def test_images_without_classes_are_an_error(tmp_path):
    for number in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    with pytest.raises(UsageError, match="'finetune' needs one subfolder per class"):
        train("finetune", data=tmp_path, out=tmp_path / "run", parent="none", steps=1, progress=False)
