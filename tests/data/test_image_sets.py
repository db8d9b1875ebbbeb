import json
import re
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.data.folders import load_images
from partzoo.data.image_sets import ImageSet
from partzoo.errors import ImageError, UsageError
from partzoo.skipping import SkippedWarning
from partzoo.train.augmentation.geometry import random_crop_flip


def save(path, size, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def test_subfolders_are_classes_and_images_are_cut_square(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate("ab"):
            save(tmp_path / split / name / "1.png", (30, 50), 100 + number)
    images = load_images(tmp_path, "val", side=16)
    assert (len(images), images.classes, images.labels.tolist()) == (2, ["a", "b"], [0, 1])
    batch = images.batch(torch.tensor([1, 0]))
    assert batch.shape == (2, 3, 16, 16) and batch[:, 0, 0, 0].tolist() == [101, 100]


def test_a_flat_folder_has_no_labels_and_every_tenth_image_is_held_out(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i:02}.png", (8, 8), i)
    train, held_out = load_images(tmp_path, side=8), load_images(tmp_path, "val", side=8)
    assert train.labels is None
    assert (len(train), len(held_out)) == (18, 2)
    assert held_out.batch(torch.arange(2))[:, 0, 0, 0].tolist() == [0, 10]


def test_sheets_are_read_as_far_as_they_are_there(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    sheet = tiles.swapaxes(1, 2).reshape(128, 192, 3)
    Image.fromarray(sheet).save(tmp_path / "train-00.avif", quality=100, subsampling="4:4:4")
    np.save(tmp_path / "train-labels.npy", np.arange(50, dtype=np.uint8))
    (tmp_path / "classes.json").write_text(json.dumps([{"wnid": f"n{i}", "words": str(i)} for i in range(6)]))
    images = load_images(tmp_path)
    assert len(images) == 6 and images.labels.tolist() == list(range(6)) and images.classes == list("012345")
    decoded = np.asarray(Image.open(tmp_path / "train-00.avif").convert("RGB"))
    assert np.array_equal(images.batch(torch.tensor([4]))[0].permute(1, 2, 0), decoded[64:, 64:128])
    assert load_images(tmp_path, side=32, limit=5).batch(torch.arange(5)).shape == (5, 3, 32, 32)
    (tmp_path / "train-01.avif").write_bytes(b"decoded only if the first sheet has too few tiles")
    assert len(load_images(tmp_path, limit=6)) == 6
    with pytest.raises((UsageError, ImageError, OSError)):
        load_images(tmp_path, limit=7)


def test_one_sheet_per_split_has_as_many_tiles_as_its_arrays_have_rows(tmp_path):
    tiles = np.arange(6, dtype=np.uint8).repeat(16 * 16 * 3).reshape(2, 3, 16, 16, 3) * 40
    for name in ("train", "dev"):
        Image.fromarray(tiles.swapaxes(1, 2).reshape(32, 48, 3)).save(tmp_path / f"{name}.avif", quality=100)
        np.savez(tmp_path / f"{name}.npz", person=np.arange(5))
    for split in ("train", "val"):
        images = load_images(tmp_path, split, side=8)
        assert len(images) == 5 and images.labels is None
        seen = images.batch(torch.arange(5))
        assert seen.shape == (5, 3, 8, 8)
        assert torch.allclose(seen[:, 0, 4, 4].float(), 40 * torch.arange(5.0), atol=3)
    np.savez(tmp_path / "train.npz", person=np.arange(7000))
    with pytest.raises(UsageError, match="too small for 7000 tiles"):
        load_images(tmp_path)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_random_crops_are_squares_along_the_longer_side(tmp_path, size):
    """Red is the place along the longer side."""
    ramp = np.broadcast_to(2 * np.arange(96, dtype=np.uint8)[None, :, None], (32, 96, 3))
    Image.fromarray(ramp if size[0] == 96 else ramp.swapaxes(0, 1)).save(tmp_path / "ramp.png")
    images = ImageSet([tmp_path / "ramp.png"] * 300, 32, None, [], "random-crop")
    numbers, drawn = images.draw(torch.arange(300), 7)
    first = drawn[:, 0, 0, 0] / 2
    across = drawn[0, 0, 0] if size[0] == 96 else drawn[0, 0, :, 0]
    assert numbers.tolist() == list(range(300)) and drawn.shape == (300, 3, 32, 32)
    assert (across.float().diff() - 2).abs().max() <= 1  # neither squashed nor resized
    assert first.min() < 2 and first.max() > 62 and first.mean() == pytest.approx(32, abs=4)
    assert torch.equal(images.draw(torch.arange(300), 7)[1], drawn)
    assert torch.equal(images.draw(torch.tensor([5, 3]), 7)[1], drawn[[5, 3]])  # by another process
    assert not torch.equal(images.draw(torch.arange(300), 8)[1], drawn)
    centre = ImageSet([tmp_path / "ramp.png"], 32, None, []).batch(torch.tensor([0]))
    assert torch.equal(images.batch(torch.tensor([0])), centre)


def test_epochs_are_permutations_and_start_at_the_given_position():
    images = ImageSet.from_pixels(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), None, [])
    stream = images.epochs(4, seed=0)
    seen = torch.cat([next(stream) for _ in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(next(images.epochs(4, seed=0, start=8)), seen[8:12])


def test_images_are_read_as_everywhere_else(tmp_path):
    grey = np.full((8, 8), 40_000, np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.png")
    assert load_images(tmp_path, side=8).batch(torch.tensor([0])).unique().tolist() == [156]


@pytest.mark.parametrize("packed", [False, True])
def test_usable_images_are_those_that_can_be_read(tmp_path, packed):
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no image")
    data, bad = tmp_path, str(tmp_path / "4.png")
    if packed:
        data, bad = tmp_path / "six.tar", f"{tmp_path / 'six.tar'}: 4.png"
        with tarfile.open(data, "w") as tar:
            for number in range(6):
                tar.add(tmp_path / f"{number}.png", f"{number}.png")
    images = load_images(data, side=8)  # the first is held out
    images.labels = torch.arange(1, 6)
    with pytest.warns(SkippedWarning, match=f"Skipped: {re.escape(bad)} ") as warned:
        usable = images.usable()
    assert [name for each in warned for name, _ in each.message.items] == [bad]
    assert usable.labels.tolist() == [1, 2, 3, 5]
    assert usable.batch(torch.arange(4)).amax((1, 2, 3)).tolist() == [1, 2, 3, 5]
    assert usable.usable() is usable
    with pytest.raises(ImageError, match="cannot be read"):
        load_images(data, side=8).usable(None).batch(torch.arange(5))


def test_bad_data_is_one_clear_error(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no images"):
        load_images(tmp_path)
    (tmp_path / "a.jpg").write_text("text")
    (tmp_path / "b.jpg").write_text("text")
    with pytest.raises(ImageError, match=r"b\.jpg cannot be read as an image"):
        load_images(tmp_path).batch(torch.tensor([0]))


def test_crops_and_flips_keep_the_image_s_values():
    ramp = torch.linspace(0, 1, 64).expand(50, 3, 64, 64).contiguous()
    out = random_crop_flip(ramp, 32, scale=(0.5, 1.0), generator=torch.Generator().manual_seed(0))
    assert out.shape == (50, 3, 32, 32)
    slopes = (out[:, 0, 16, 1:] - out[:, 0, 16, :-1]).mean(1) * 31
    assert (slopes > 0).any() and (slopes < 0).any()
    assert slopes.abs().min() > 0.45 and slopes.abs().max() < 1.05
    whole = random_crop_flip(ramp, 64, scale=(1.0, 1.0), generator=torch.Generator().manual_seed(0))
    for image in whole:
        assert torch.allclose(image, ramp[0], atol=1e-5) or torch.allclose(image, ramp[0].flip(-1), atol=1e-5)


def test_training_takes_the_next_image_in_place_of_a_bad_one_and_names_it(tmp_path):
    for number, name in enumerate("abc"):
        for file in "12":
            save(tmp_path / "train" / name / f"{file}.png", (8, 8), 100 + number)
    for name in ("a/2", "b/1"):
        (tmp_path / "train" / f"{name}.png").write_bytes(b"no image")
    images = load_images(tmp_path, side=8)
    with pytest.warns(UserWarning) as warned:
        numbers, pixels = images.draw(torch.tensor([1, 0]))
    assert ["a/2.png" in str(each.message) for each in warned] == [True, False]
    assert numbers.tolist() == [3, 0] and pixels[:, 0, 0, 0].tolist() == [101, 100]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each is named once
        numbers, pixels = images.draw(torch.arange(6))
    assert numbers.tolist() == [0, 3, 3, 3, 4, 5]
    assert images.labels[numbers].tolist() == (pixels[:, 0, 0, 0] - 100).tolist()


def test_training_on_images_of_which_none_can_be_read_is_an_error(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    with pytest.warns(UserWarning), pytest.raises(ImageError, match="None of the 2 images can be read"):
        load_images(tmp_path, side=8).draw(torch.tensor([0, 1]))
