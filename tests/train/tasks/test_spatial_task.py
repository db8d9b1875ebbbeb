from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import partzoo
from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.models.loading import load
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.train.loop import LoopOptions, fit
from partzoo.train.losses.spatial import relation_loss
from partzoo.train.run import train
from partzoo.train.tasks.spatial import SpatialTask

CASES = Path(__file__).parents[2] / "parity" / "spatial"


def task(patches=2, **config):
    torch.manual_seed(0)
    options = {"size": 32, "patch_size": 12} | config
    model = Spatial(SpatialConfig("conv4", **options))
    model.architecture = "spatial-conv4"
    return SpatialTask(model, patches=patches)


def images(count, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gradients(count, side=32):
    """Images whose red is the row and whose green is the column, without noise."""
    ramp = torch.linspace(0, 250, side).expand(side, side)
    return torch.stack([ramp.T, ramp, torch.zeros(side, side)]).byte().repeat(count, 1, 1, 1)


@pytest.mark.parametrize("additive", [False, True])
def test_a_batch_is_views_and_then_patches(additive):
    x, positions = task(patches=3, additive=additive).sampler.batch(images(5), torch.Generator().manual_seed(0))
    assert x.shape == ((4 + 3) * 5, 3, 32, 32) and x.isfinite().all()
    assert positions.shape == (3 * 5, 2) and positions.min() >= 0 and positions.max() <= 1
    if additive:
        filled = (x[4 * 5 :] != 0).any(1).flatten(1).sum(1)
        assert (filled <= 12 * 12).all() and (filled > 0).all()


@pytest.mark.parametrize("additive", [False, True])
def test_positions_say_where_patches_were(additive, monkeypatch):
    monkeypatch.setattr("partzoo.models.spatial.pairs.random_colours", lambda pixels, generator: pixels)
    subject = task(patches=2, additive=additive)
    x, positions = subject.sampler.batch(gradients(4), torch.Generator().manual_seed(0))
    config = subject.model.config
    patches = x[4 * 4 :] * torch.tensor(config.std)[:, None, None] + torch.tensor(config.mean)[:, None, None]
    middle = positions * config.unit * 32 + (config.patch_size - 1) / 2
    for patch, raw, centre in zip(patches, x[4 * 4 :], middle, strict=True):
        inside = (raw != 0).any(0)
        found = patch[:2][:, inside].mean(1) * 255 / 250 * 31
        torch.testing.assert_close(found, centre, atol=0.35, rtol=0)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "additive"])
def test_positions_are_the_published_ones(kind, count, monkeypatch):
    expected = np.load(CASES / "g_training_patches.npz")[f"{kind}_N{count}_targets"][:, :2]
    additive = kind == "additive"
    subject = SpatialTask(Spatial(SpatialConfig("conv4", additive=additive)), patches=count)
    corners = torch.from_numpy(expected * (40 if additive else 128)).round().long()
    monkeypatch.setattr("partzoo.models.spatial.pairs.patch_corners", lambda *_, **__: corners[None])
    _, positions = subject.sampler.batch(images(1, 64), torch.Generator().manual_seed(0))
    np.testing.assert_allclose(positions, expected, atol=1e-6)


def test_additive_patches_stand_anywhere_in_the_image():
    subject = SpatialTask(Spatial(SpatialConfig("conv4", additive=True)), patches=3)
    x, _ = subject.sampler.batch(images(200, 64), torch.Generator().manual_seed(0))
    filled = (x[4 * 200 :] != 0).any(1)
    for places in (filled.any(2).int().argmax(1), filled.any(1).int().argmax(1)):
        assert places.min() == 0 and places.max() == 64 - 24


def test_additive_patches_in_place_stand_where_they_were(monkeypatch):
    monkeypatch.setattr("partzoo.models.spatial.pairs.random_colours", lambda pixels, generator: pixels)
    subject, pixels = task(patches=3, additive=True, in_place=True), images(4)
    x, positions = subject.sampler.batch(pixels, torch.Generator().manual_seed(0))
    whole = subject.model.preprocess.normalize(pixels.float()).repeat(3, 1, 1, 1)
    for found, image, (top, left) in zip(x[4 * 4 :], whole, (20 * positions).round().long().tolist(), strict=True):
        expected = torch.zeros_like(image)
        expected[:, top : top + 12, left : left + 12] = image[:, top : top + 12, left : left + 12]
        torch.testing.assert_close(found, expected)
    with pytest.raises(UsageError, match="in_place=True is for additive patches"):
        task(in_place=True)


def test_half_of_the_views_are_mirrored(monkeypatch):
    flips = []
    crops = "partzoo.models.spatial.pairs.crop_resize"
    monkeypatch.setattr(crops, lambda pixels, boxes, side, flipped: flips.append(flipped) or pixels)
    task(patches=0).sampler.batch(images(500), torch.Generator().manual_seed(0))
    assert flips[0].shape == (2000,) and flips[0].float().mean() == pytest.approx(0.5, abs=0.04)


def test_what_inference_leaves_behind_serves_training():
    subject = task(patches=3)
    with torch.inference_mode():
        subject(images(7), None, 0.0, torch.Generator().manual_seed(0))
    subject(images(7), None, 0.0, torch.Generator().manual_seed(0))["loss"].backward()


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_without_an_order_distances_are_learned_without_sign(aggregation, monkeypatch):
    model = Spatial(SpatialConfig("conv4", 32, 12, aggregation=aggregation))
    told = []
    monkeypatch.setattr(
        "partzoo.train.tasks.spatial.relation_loss",
        lambda predicted, targets, *rest: told.append(targets) or relation_loss(predicted, targets, *rest),
    )
    SpatialTask(model)(images(6), None, 0.0, torch.Generator().manual_seed(0))
    assert told[0][:, :2].min() == 0 < told[0][-6:, :2].max()


def test_plain_relational_reasoning_has_no_patches_and_no_positions():
    subject = task(patches=0)
    x, positions = subject.sampler.batch(images(3))
    assert len(x) == 12 and len(positions) == 0
    terms = subject(images(3), None, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(terms["loss"], terms["same"])


def overlapping(positions, config):
    """Return whether the first two patches of each image overlap."""
    first, second = (positions * config.unit * config.size).unflatten(0, (2, -1))
    return ((first - second).abs() < config.patch_size - 1e-3).all(1)


@pytest.mark.parametrize("additive", [False, True])
def test_the_first_two_patches_overlap_only_where_they_may(additive):
    model = Spatial(SpatialConfig("conv4", size=32, patch_size=12, additive=additive))
    _, kept = SpatialTask(model).sampler.batch(images(300), torch.Generator().manual_seed(0))
    _, free = SpatialTask(model, apart=False).sampler.batch(images(300), torch.Generator().manual_seed(0))
    assert not overlapping(kept, model.config).any()
    assert 0.5 < overlapping(free, model.config).float().mean() < 0.9


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
@pytest.mark.parametrize("patch_negatives", [False, True])
def test_every_aggregation_trains_with_and_without_patch_negatives(aggregation, patch_negatives):
    model = Spatial(SpatialConfig("conv4", size=32, patch_size=12, aggregation=aggregation))
    subject = SpatialTask(model, views=2, patches=3, patch_negatives=patch_negatives)
    terms = subject(images(4), None, 0.0, torch.Generator().manual_seed(0))
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_step_is_drawn_from_its_generator():
    subject = task()
    x, again, other = (subject.sampler.batch(images(3), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(x, again) and not torch.equal(x, other)


def test_training_learns_to_distinguish_images(tmp_path):
    colours = torch.rand(12, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 255
    data = ImageSet.from_pixels(((colours + images(12)) / 2).byte(), None, [])
    options = LoopOptions(
        steps=25, batch_size=12, lr=3e-3, weight_decay=0.0, clip_grad=float("inf"), log_steps=1,
        channels_last=True,
    )  # fmt: skip
    fit(task(), data, options, tmp_path, progress=False)
    header, *rows = (line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines())
    losses = [float(row[header.index("loss")]) for row in rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    model = load(tmp_path / "model.safetensors", dtype="float32")
    assert model.represent(torch.randn(1, 3, 32, 32), 3).shape == (1, 4 * 64)


def test_wrong_settings_are_one_clear_error():
    model = Spatial(SpatialConfig("conv4", size=32, patch_size=17))
    with pytest.raises(UsageError, match=r"patch_size=17: two patches do not fit.*apart=False"):
        SpatialTask(model)
    assert SpatialTask(Spatial(SpatialConfig("conv4", 32, 16))).sampler.batch(images(3))[1].shape == (6, 2)
    assert SpatialTask(model, apart=False).sampler.batch(images(3))[1].shape == (6, 2)
    assert SpatialTask(model, patches=0).alpha == 0
    with pytest.raises(UsageError, match="views=1, patches=2"):
        SpatialTask(model, views=1)


@pytest.mark.parametrize("additive", [False, True])
def test_recipes_train_models_that_find_parts(additive, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, each in enumerate(images(4, 64)):
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    recipe = "spatial-resnet32.tin-additive" if additive else None
    out = tmp_path / "run"
    train(
        "spatial", data=folder, out=out, recipe=recipe, model="spatial-resnet8", steps=1, batch_size=2, progress=False
    )
    model = load(out / "model.safetensors", dtype="float32")
    assert model.config.additive is additive and model.preprocess.mean == (0.1307,) * 3
    side = model.config.size
    assert model.represent(torch.randn(1, 3, side, side)).shape == (1, 64 * (1 if additive else 10))
    assert partzoo.discover_parts(folder / "0.png", k=2, model=model).labels.shape == (64, 64)
