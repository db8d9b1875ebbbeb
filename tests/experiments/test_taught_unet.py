"""``experiments/taught_unet.py`` on drawn images."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from partzoo.data.masks import MaskedImage
from partzoo.discovery.given_labels import UNKNOWN
from partzoo.evaluate.protocols.taught import TaughtProtocol

FILE = Path(__file__).parents[2] / "experiments" / "taught_unet.py"
spec = importlib.util.spec_from_file_location("taught_unet", FILE)
taught_unet = importlib.util.module_from_spec(spec)
spec.loader.exec_module(taught_unet)

COLOURS = np.array([(60, 120, 70), (220, 60, 40), (240, 220, 90)], np.uint8)


def example(left=60):
    """An image whose left half of an object is part 1, and whose right half is part 2."""
    labels = np.zeros((120, 200), np.uint8)
    labels[30:90, left : left + 40], labels[30:90, left + 40 : left + 80] = 1, 2
    return MaskedImage("", COLOURS[labels], labels)


def test_labels_follow_the_crop_and_sides_are_exchanged_in_mirror_images():
    image, orders = example(), set()
    random = np.random.default_rng(0)
    for _ in range(20):
        pixels, labels = taught_unet.cropped(image, image.mask, {1: 2, 2: 1}, random)
        assert pixels.shape == (taught_unet.SIDE, taught_unet.SIDE, 3) and pixels.dtype == np.uint8
        assert {*np.unique(labels)} <= {0, 1, 2, UNKNOWN}
        assert (pixels[labels == UNKNOWN].std(0) < 1).all()  # grey, in one colour
        columns = [np.nonzero(labels == part)[1].mean() for part in (1, 2) if (labels == part).any()]
        reds = [pixels[labels == part].mean(0) for part in (1, 2) if (labels == part).any()]
        if len(columns) == 2:
            orders.add((columns[0] < columns[1], reds[0][1] < reds[1][1]))
    assert orders == {(True, True), (True, False)}  # part 1 is always on the left, and red only if not mirrored


@pytest.mark.slow  # training takes half a minute
def test_a_network_learns_drawn_parts():
    rules = TaughtProtocol("taught-x", "x", ("left", "right"), "", "")
    model = taught_unet.train(rules, [example(40), example(60), example(80)], minutes=0.5, seed=0)
    image = example(70)
    found = taught_unet.label(model, image.pixels, {1: 2, 2: 1})
    assert found.shape == image.mask.shape and (found == image.mask).mean() > 0.9
    with torch.no_grad():
        assert model.logits(torch.zeros(1, 3, 64, 96))[0].shape == (1, 3, 32, 48)
