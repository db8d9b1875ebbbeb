import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import partzoo
from partzoo.errors import UsageError
from partzoo.hub import save_pretrained
from partzoo.models.registry import find
from partzoo.skipping import SkippedWarning
from partzoo.train.augmentation.masked import random_colours, random_view
from partzoo.train.losses.foreground import pyramid_loss, structure_loss
from partzoo.train.masked_images import MaskedImages, MaskedOptions, read_masked
from partzoo.train.run import train
from partzoo.train.tasks.foreground import ForegroundTask
from partzoo.train.teachers import prior


def drawn(seed, size=(60, 80)):
    """Make an image of a bright disc on a dark, blotted ground, with its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = (y - rng.integers(20, 40)) ** 2 + (x - rng.integers(25, 55)) ** 2 < rng.integers(10, 18) ** 2
    blots = Image.fromarray(rng.integers(0, 120, (5, 6, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    ground = np.asarray(blots).astype(float)
    pixels = np.where(mask[..., None], 220 - 40 * rng.random(3), ground) + rng.normal(0, 4, (*size, 3))
    return pixels.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of ten drawn images with masks, and a tar of five without."""
    root = tmp_path_factory.mktemp("masks")
    for number, name in enumerate(("discs", "more")):
        for i in range(10):
            pixels, mask = drawn(100 * number + i)
            for kind, values in (("images", pixels), ("masks", mask)):
                (root / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(root / name / kind / f"{i}.png")
    with tarfile.open(root / "plain.tar", "w") as tar:
        for i in range(5):
            Image.fromarray(drawn(500 + i)[0]).save(root / f"{i}.png")
            tar.add(root / f"{i}.png", f"{i}.png")
    return root


def test_the_loss_is_small_where_mask_and_logits_agree():
    target = torch.zeros(2, 1, 32, 32)
    target[:, :, 8:24, 8:24] = 1
    good, bad = structure_loss(20 * target - 10, target), structure_loss(10 - 20 * target, target)
    assert (good < 1e-2).all() and (bad > 5).all()


def test_the_loss_by_hand_of_an_even_target():
    target, logits = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    expected = np.log(2) + 1 - (64 * 0.5 + 1) / (64 + 1)
    assert structure_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_levels_count_by_their_weights():
    target = torch.ones(1, 1, 16, 16)
    levels = [torch.zeros(1, 1, side, side) for side in (16, 8, 4, 2, 1)]
    single = [structure_loss(level, torch.ones_like(level)).item() for level in levels]
    expected = sum(w * s for w, s in zip((1, 0.6, 0.4, 0.3, 0.2), single, strict=True))
    assert pyramid_loss(levels, target, torch.ones(1)).item() == pytest.approx(expected, rel=1e-5)
    assert pyramid_loss(levels, target, torch.zeros(1)).item() == 0


def test_a_view_keeps_image_and_mask_together():
    image = torch.zeros(4, 4, 64, 64)
    image[:, :, 20:44, 10:50] = 1
    generator = torch.Generator().manual_seed(0)
    view = random_view(image, torch.tensor([1.0, 1.5, 0.7, 2.0]), 96, generator)
    assert view.shape == (4, 4, 96, 96)
    assert torch.allclose(view[:, 0], view[:, 3]) and (view.amax((1, 2, 3)) > 0.9).all()
    again = random_view(image, torch.tensor([1.0, 1.5, 0.7, 2.0]), 96, torch.Generator().manual_seed(0))
    assert torch.equal(view, again)
    colours = random_colours(torch.rand(4, 3, 16, 16), generator)
    assert colours.shape == (4, 3, 16, 16) and 0 <= colours.min() and colours.max() <= 1


def test_only_training_splits_are_read_and_copies_of_other_images_are_left_out(folder):
    found = read_masked(folder, MaskedOptions(sets=("discs",)), 32)
    assert len(found) == 6 and found.batch(torch.arange(2)).shape == (2, 4, 32, 32)
    assert found.aspects[0].item() == pytest.approx(80 / 60) and not found.taught.any()
    with pytest.raises(UsageError, match="no image is left"):
        read_masked(folder, MaskedOptions(sets=("discs",), report_only=("discs",)), 32)


def test_damaged_images_and_masks_are_passed_over_and_named(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    options = MaskedOptions(sets=("discs",), report_only=("more",))
    whole = read_masked(data, options, 32)
    image, mask, held = (data / name for name in ("discs/images/2.png", "discs/masks/3.png", "more/images/4.png"))
    for file in (image, mask, held):
        file.write_bytes(file.read_bytes()[:45])
    with pytest.warns(SkippedWarning) as warned:
        found = read_masked(data, options, 32)
    names = sorted(name for each in warned for name, _ in each.message.items)
    assert names == [f"{data}/discs: images/{i}.png" for i in (2, 3)] + [f"{data}/more: images/4.png"]
    assert torch.equal(found.batch(torch.arange(4)), whole.batch(torch.arange(2, 6)))
    assert found._weights.sum().item() == pytest.approx(1)


def test_a_damaged_image_without_a_mask_is_passed_over_and_named(folder, tmp_path):
    network = partzoo.load("foreground-lite0", pretrained=False, device="cpu")
    save_pretrained(network, tmp_path / "teacher")
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        for i in range(3):
            (tmp_path / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes()[: 500 if i == 1 else None])
            tar.add(tmp_path / f"{i}.png", f"{i}.png")
    options = MaskedOptions(unlabelled=("plain.tar",), teacher=str(tmp_path / "teacher"), sure=-1e9)
    with pytest.warns(SkippedWarning, match=r"Skipped: .*plain\.tar: 1\.png"):
        assert len(read_masked(tmp_path, options, 32, progress=False)) <= 2


def test_shares_are_kept_and_batches_do_not_depend_on_where_a_run_began(folder):
    options = MaskedOptions(sets=("discs", "more"), shares=(3, 1))
    found = read_masked(folder, options, 32)
    assert len(found) == 12
    batches = found.epochs(50, seed=1)
    drawn = torch.cat([next(batches) for _ in range(40)])
    assert (drawn < 6).float().mean().item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(next(found.epochs(50, seed=1, start=100)), drawn[100:150])
    with pytest.raises(UsageError, match="1 numbers for 2 sets"):
        read_masked(folder, MaskedOptions(sets=("discs", "more"), shares=(3,)), 32)


def test_a_teacher_draws_masks_of_images_without(folder):
    network = partzoo.load("foreground-lite0", pretrained=False, device="cpu")
    save_pretrained(network, folder / "teacher")
    options = MaskedOptions(unlabelled=("plain.tar",), teacher=str(folder / "teacher"), sure=-1e9, exclude=("3.png",))
    found = read_masked(folder, options, 32, progress=False)
    assert found.taught.all() and len(found) <= 4
    with pytest.raises(UsageError, match="go together"):
        read_masked(folder, MaskedOptions(unlabelled=("plain.tar",)), 32)


def test_the_prior_finds_a_disc_without_having_seen_masks():
    encoder = partzoo.load("efficientnet-lite0.in1k", device="cpu", dtype="float32")
    _, mask = drawn(7, (120, 160))
    noise = np.random.default_rng(0).normal(0, 4, (120, 160, 3))
    pixels = (np.where(mask[..., None], (220, 180, 60), (60, 90, 80)) + noise).astype(np.uint8)
    found, sure = prior(pixels, encoder)
    union = ((found > 0.5) | (mask > 0)).sum()
    assert ((found > 0.5) & (mask > 0)).sum() / union > 0.8 and 0 < sure <= 1


def test_steps_lower_the_loss_and_leave_early_stages_alone():
    entry = find("foreground-lite0")
    torch.manual_seed(0)
    network = ForegroundTask.start(entry, entry.config, None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task = ForegroundTask(network).train()
    squares = [np.dstack([pixels, mask * 255]) for pixels, mask in (drawn(i, (64, 64)) for i in range(4))]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    task.examples = MaskedImages(pixels, torch.ones(4), torch.zeros(4, dtype=torch.bool), torch.ones(4))
    trained = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 2e-3)
    losses = []
    for step in range(6):
        loss = task(pixels, torch.arange(4), 0.5, torch.Generator().manual_seed(step % 2))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-2:]) < 0.95 * np.mean(losses[:2])
    after = task.student.state_dict()
    early = ("encoder.conv_stem", "encoder.blocks.0.", "encoder.blocks.1.")
    still = [name for name in before if name.startswith(early)]
    assert still and all(torch.equal(before[name], after[name]) for name in still)
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("encoder.") and "running" in n)
    moved = task.model.state_dict()["heads.0.weight"]
    assert not torch.equal(moved, before["heads.0.weight"]) and not torch.equal(moved, after["heads.0.weight"])


def test_a_run_goes_on_from_a_parent(folder, tmp_path):
    network = partzoo.load("foreground-lite0", pretrained=False, device="cpu")
    save_pretrained(network, tmp_path / "parent")
    entry = find("foreground-lite0")
    heir = ForegroundTask.start(entry, entry.config, str(tmp_path / "parent"))
    assert torch.equal(heir.heads[0].weight, network.heads[0].weight)
    reading = {
        "sets": ["discs"], "shares": [1], "unlabelled": [], "every": [], "teacher": "", "report_only": [],
        "evaluated": ["more"], "exclude": [],
    }  # fmt: skip
    model, state = train(
        "foreground", data=folder, out=tmp_path / "run", recipe="foreground-lite0.masks-first", steps=1, batch_size=2,
        reading=reading, progress=False,
    )  # fmt: skip
    assert state.finished and model.architecture == "foreground-lite0"
    found = partzoo.load(tmp_path / "run" / "model.safetensors", dtype="float32", device="cpu")
    assert torch.equal(found.heads[0].weight, model.heads[0].weight)
