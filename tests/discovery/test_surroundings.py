"""What is found around cells."""

import pytest
import torch

from partzoo.discovery.surroundings import MAPS, WINDOWS, surroundings


def test_windows_have_the_means_of_their_cells_and_nothing_outside():
    shares = torch.rand(2, 40, 60, generator=torch.Generator().manual_seed(0))
    coarse = torch.nn.functional.interpolate(shares[None], (20, 30), mode="bilinear", antialias=True)[0]
    found = surroundings(shares).unflatten(0, (MAPS, 2))
    for (down, across, radius), maps in zip(WINDOWS, found, strict=False):
        for y, x in ((0, 0), (9, 14), (19, 29)):
            rows, columns = (
                slice(max(middle - radius, 0), max(middle + radius + 1, 0)) for middle in (y + down, x + across)
            )
            expected = coarse[:, rows, columns].sum((1, 2)) / (2 * radius + 1) ** 2
            assert torch.allclose(maps[:, y, x], expected, atol=1e-5)
    assert torch.allclose(found[-1], coarse.mean((1, 2), keepdim=True).expand(2, 20, 30))


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (7, 5)])
def test_small_and_odd_grids_are_halved_upwards(size):
    found = surroundings(torch.ones(4, 3, *size))
    assert found.shape == (4, 3 * MAPS, (size[0] + 1) // 2, (size[1] + 1) // 2)
    assert found[:, -3:].unique().item() == pytest.approx(1)
