"""``experiments/flicker.py`` on label maps that are known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "experiments" / "flicker.py"
spec = importlib.util.spec_from_file_location("flicker", FILE)
flicker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(flicker)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_labels_that_stick_to_the_scene_do_not_flicker(step):
    scene = np.random.default_rng(0).integers(0, 4, (30, 40))
    places = flicker.positions(step, (10, 12), 20)
    frames = [scene[y : y + 20, x : x + 28] for y, x in places]
    for before, after, a, b in zip(frames, frames[1:], places, places[1:], strict=False):
        motion = (b[0] - a[0], b[1] - a[1])
        assert flicker.flicker(before, after, motion) == 0
        assert step == 0 or flicker.flicker(before, after, (0, 0)) > 0.5
    assert all(0 <= y <= 10 and 0 <= x <= 12 for y, x in places)


def test_flicker_is_a_share_of_the_object():
    before, after = np.zeros((4, 4), int), np.zeros((4, 4), int)
    before[0, :4], after[0, :2], after[1, 0] = 1, 1, 2
    assert flicker.flicker(before, after, (0, 0)) == pytest.approx(3 / 5)
    assert flicker.flicker(np.zeros((4, 4), int), np.zeros((4, 4), int), (0, 0)) == 0
