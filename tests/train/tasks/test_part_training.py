import math

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.evaluate.probes.held_out import part_positions
from partzoo.models.loading import load
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.part.sampling import SAMPLINGS
from partzoo.train.losses.part import relative_position_loss
from partzoo.train.part_images import PartOptions
from partzoo.train.tasks.part import PartTask

TINY = {"dim": 24, "depth": 1, "heads": 3, "size": 32}


def gradients(count=8):
    """Images whose red is x and whose green is y: where a patch lies can be read off it."""
    place = (torch.arange(32) * 8).byte()
    red, green = place.expand(32, 32), place[:, None].expand(32, 32)
    return torch.stack([red, green, torch.full((32, 32), 128, dtype=torch.uint8)]).expand(count, -1, -1, -1)


def trained(task, steps):
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(steps):
        terms = task(gradients(), None, 0.0, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    return {name: term.item() for name, term in terms.items()}


def test_the_loss_is_the_mean_over_pairs_and_coordinates():
    predicted, true = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    assert relative_position_loss(predicted, true) == (1 + 4 + 9 + 0) / (2 * 2)


@pytest.mark.parametrize("relative", ["cross-attention", "pairwise-mlp"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_positions_that_show_are_learned(sampling, relative):
    torch.manual_seed(0)
    task = PartTask(Part(PartConfig(**TINY, relative_encoder=relative)), pairs=64, sampling=sampling)
    first = task(gradients(), None, 0.0, torch.Generator().manual_seed(0))["loss"].item()
    assert trained(task, 60)["loss"] < first / 3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_patches_follow_the_sampling(sampling, monkeypatch):
    model, shown = Part(PartConfig(**TINY)), []
    monkeypatch.setattr(model, "relate", lambda patches, pairs: shown.extend([patches, pairs]) or torch.zeros(1))
    monkeypatch.setattr("partzoo.train.tasks.part.relative_position_loss", lambda *_: torch.zeros(()))
    PartTask(model, pairs=5, sampling=sampling)(gradients(), None, 0.0, torch.Generator().manual_seed(0))
    patches, pairs = shown
    assert patches.shape == (8, 16, 3, 8, 8) and pairs.shape == (8, 5, 2)
    across = patches[:, :, 0, 0] * (255 * model.preprocess.std[0]) + 255 * model.preprocess.mean[0]
    left, step = across[..., 0] / 8, (across[..., 4] - across[..., 3]) / 8
    whole = ((left - left.round()).abs() < 1e-3).float().mean()
    cells = (left[..., None] - torch.tensor([0.0, 8, 16, 24])).abs().min(-1).values < 1e-3
    assert cells.all() if sampling == "on-grid" else cells.float().mean() < 0.4
    assert whole == 1 if sampling in ("integer", "on-grid") else whole < 0.3
    assert (step.std() > 0.2) == (sampling == "multi-scale")


def test_relative_sizes_are_learned():
    torch.manual_seed(0)
    task = PartTask(Part(PartConfig(**TINY, targets=4)), pairs=0, sampling="multi-scale")
    first = task(gradients(), None, 0.0, torch.Generator().manual_seed(0))
    assert first["loss"].item() == pytest.approx((first["positions"] + first["sizes"]).item() / 2, rel=1e-5)
    assert trained(task, 120)["sizes"] < first["sizes"].item() / 4


def test_all_pairs_and_some_of_them_have_one_expectation():
    torch.manual_seed(0)
    model = Part(PartConfig(**TINY))
    generator = torch.Generator().manual_seed(0)
    some = PartTask(model, pairs=4000, sampling="on-grid")(gradients(), None, 0.0, generator)["loss"]
    every = PartTask(model, pairs=0, sampling="on-grid")(gradients(), None, 0.0, generator)["loss"]
    # All 16 * 16 pairs hold 16 of a patch with itself, whose translation is nothing.
    assert every.item() == pytest.approx(some.item() * 15 / 16, rel=0.05)


def test_the_mlp_trains_on_as_many_patches_as_it_was_built_for():
    torch.manual_seed(0)
    task = PartTask(Part(PartConfig(**TINY, relative_encoder="mlp")), pairs=64)
    first = task(gradients(), None, 0.0, torch.Generator().manual_seed(0))["loss"].item()
    assert trained(task, 60)["loss"] < first


@pytest.mark.parametrize("sampling", ["off-grid", "integer", "multi-scale"])
@pytest.mark.parametrize("focus", ["object", "background"])
def test_patches_are_centred_on_the_focus(focus, sampling, monkeypatch):
    """The object is the left half, whose red, x, is below 128."""
    model, shown = Part(PartConfig(**TINY)), []
    monkeypatch.setattr(model, "relate", lambda patches, pairs: shown.append(patches) or torch.zeros(1))
    monkeypatch.setattr("partzoo.train.tasks.part.relative_position_loss", lambda *_: torch.zeros(()))
    mask = 255 * (torch.arange(32) < 16).byte().expand(8, 1, 32, 32)
    pixels = torch.cat([gradients(), mask], dim=1)
    PartTask(model, sampling=sampling, focus=focus)(pixels, None, 0.0, torch.Generator().manual_seed(0))
    red = shown[0][:, :, 0] * (255 * model.preprocess.std[0]) + 255 * model.preprocess.mean[0]
    # A patch's mean red is 8 times the column of its centre, less half a pixel.
    centres = red.mean((2, 3)) / 8 + 0.5
    assert (centres < 16.6).all() if focus == "object" else (centres > 15.4).all()
    assert centres.std() > 1.5


def test_the_focus_needs_a_foreground_and_patches_that_can_move(tmp_path):
    model = Part(PartConfig(**TINY))
    with pytest.raises(UsageError, match="focus='object' cannot move the patches of sampling='on-grid'"):
        PartTask(model, focus="object", sampling="on-grid")
    with pytest.raises(UsageError, match=r"focus='object' needs data\.foreground"):
        PartTask(model, focus="object").prepare(tmp_path, PartOptions(), None)
    with pytest.raises(UsageError, match=r"data\.foreground needs focus="):
        PartTask(model).prepare(tmp_path, PartOptions(foreground="foreground-lite0.masks"), None)


@pytest.mark.parametrize("options", [{"sampling": "hexagonal"}, {"pairs": -1}, {"focus": "subject"}])
def test_wrong_options_are_named(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}='?{next(iter(options.values()))}"):
        PartTask(Part(PartConfig(**TINY)), **options)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_position_errors_are_those_of_x_and_y_under_any_sampling(sampling):
    torch.manual_seed(0)
    model = Part(PartConfig(**TINY, targets=4)).eval()
    found = part_positions(model, ImageSet.from_pixels(gradients(4), None, []), sampling=sampling)
    assert found["loss"] == pytest.approx((found["mse_x"] + found["mse_y"]) / 2)
    ratio = 1.75 - (1.25 * math.log(4) / 1.5) ** 2  # variance of that of two sides uniform in P/2..2P
    assert found["constant_mse_w"] == pytest.approx(ratio if sampling == "multi-scale" else 0, abs=0.1)
    assert found["mse_h"] > found["constant_mse_h"]
    if sampling == "on-grid":  # columns 0..3 and 0..3, all pairs: twice the variance of 0, 1, 2, 3
        assert found["constant_mse_x"] == pytest.approx(2 * 1.25)


def test_the_command_chooses_sampling_encoder_and_targets(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"images/{number}.png")
    config = {**TINY, "relative_encoder": "pairwise-mlp", "targets": 4}
    settings = [f"config.{key}={value}" for key, value in config.items()] + ["sampling=multi-scale", "pairs=0"]
    options = [word for setting in settings for word in ("--set", setting)]
    ran = partzoo(
        "train", "part", "--data", tmp_path / "images", "--steps", 2, "-o", tmp_path / "out", *options, "--resume"
    )
    assert ran.code == 0 and "out has no run to continue: the training starts from the beginning" in ran.err, ran.err
    found = load(tmp_path / "out" / "model.safetensors", device="cpu").config
    assert (found.relative_encoder, found.targets) == ("pairwise-mlp", 4)
    assert 'sampling = "multi-scale"' in (tmp_path / "out" / "recipe.toml").read_text()
    focused = [*options, "--set", "focus=object", "--set", "data.foreground=foreground-lite0.masks"]
    ran = partzoo("train", "part", "--data", tmp_path / "images", "--steps", 2, "-o", tmp_path / "focused", *focused)
    assert ran.code == 0 and (tmp_path / "focused" / "model.safetensors").exists(), ran.err
    ran = partzoo("train", "part", "--data", tmp_path, "--steps", 2, "--set", "sampling=none", "-o", tmp_path / "no")
    assert ran.code == 2 and "sampling" in ran.err
