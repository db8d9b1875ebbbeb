"""Connected pieces of a mask."""

import numpy as np
import pytest
from scipy import ndimage

from partzoo.discovery.pieces import connected_pieces


@pytest.mark.parametrize("share", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_pieces_are_those_of_scipy(share):
    rng = np.random.default_rng(int(10 * share))
    for _ in range(40):
        mask = rng.random(rng.integers(1, 40, 2)) < share
        assert np.array_equal(connected_pieces(mask), ndimage.label(mask, np.ones((3, 3)))[0])


def test_a_spiral_is_one_piece():
    mask = np.zeros((9, 9), bool)
    mask[0], mask[:, 8], mask[8], mask[2:, 0], mask[2, :7], mask[2:7, 6], mask[6, 2:7], mask[4:7, 2] = (True,) * 8
    assert connected_pieces(mask).max() == 1


def test_an_empty_mask_has_no_piece():
    assert not connected_pieces(np.zeros((3, 4), bool)).any()
