"""Images to train a part model on, with their foreground."""

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.train.part_images import PartOptions, WithForeground, check_foreground, read_part_images


class BrightIsForeground(torch.nn.Module):
    """A foreground model that takes bright pixels for the foreground, at half the resolution, and counts its images."""

    preprocess = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    seen = 0

    def forward(self, x):
        self.seen += len(x)
        return (x.mean(1, keepdim=True)[..., ::2, ::2] > 0).float()


def halves(count=3, side=16):
    """Images whose left half is bright."""
    pixels = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    pixels[..., : side // 2] = 200
    return ImageSet.from_pixels(pixels, torch.arange(count), ["a", "b", "c"])


def test_the_foreground_is_the_fourth_channel_and_predicted_once():
    model = BrightIsForeground()
    images = WithForeground(halves(), model)
    numbers, found = images.draw(torch.tensor([2, 0]))
    assert numbers.tolist() == [2, 0] and found.shape == (2, 4, 16, 16) and found.dtype == torch.uint8
    assert found[:, :3].equal(halves().batch(numbers))
    assert (found[:, 3, :, :7] == 255).all() and (found[:, 3, :, 9:] == 0).all()
    assert images.batch(torch.tensor([0, 1, 2]))[:, 3].float().mean() == pytest.approx(127.5, abs=10)
    assert model.seen == 3 and len(images) == 3
    assert images.labels.tolist() == [0, 1, 2] and images.classes == ["a", "b", "c"]


def test_images_and_their_foreground_can_be_kept_on_a_device():
    images = WithForeground(halves(), BrightIsForeground())
    before = images.batch(torch.tensor([0, 2]))
    images.move(torch.device("cpu"))
    assert images.batch(torch.tensor([0, 2])).equal(before)
    images.move(torch.device("meta"))  # stands for a GPU: what lies on it can only be on it by having been moved
    assert images.batch(torch.tensor([0, 2])).device.type == "meta"


def test_images_have_a_foreground_only_if_the_options_name_a_model(tmp_path):
    rng = np.random.default_rng(0)
    for name in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    assert read_part_images(tmp_path, PartOptions(), 32).batch(torch.tensor([0])).shape == (1, 3, 32, 32)
    found = read_part_images(tmp_path, PartOptions(foreground="foreground-lite0.masks"), 32)
    assert found.batch(torch.tensor([0])).shape == (1, 4, 32, 32)


def test_no_foreground_is_predicted_of_random_crops(tmp_path):
    options = PartOptions(foreground="foreground-lite0.masks", frame="random-crop")
    with pytest.raises(UsageError, match=r"data\.frame='random-crop' changes images"):
        read_part_images(tmp_path, options, 32)


@pytest.mark.parametrize(
    ("weights", "start", "foreground", "message"),
    [
        ({"masks": 1.0, "anchor": 0.0}, "discovered", "", "masks needs data.foreground"),
        ({"masks": 0.0, "anchor": 0.0}, "clusters", "", "start='clusters' needs data.foreground"),
        ({"masks": 0.0, "anchor": 1.0}, "random", "foreground-lite0.masks", "anchor needs start="),
    ],
)
def test_losses_that_need_a_foreground_say_so(weights, start, foreground, message):
    with pytest.raises(UsageError, match=message):
        check_foreground(PartOptions(foreground=foreground), weights, start)
    check_foreground(PartOptions(foreground="foreground-lite0.masks"), {"masks": 1.0, "anchor": 1.0}, "clusters")
