import pytest
import torch
from torch.nn.functional import interpolate

from partzoo.discovery.refine import finer, follow_edges, guided_filter, resize, strips
from partzoo.errors import ShapeError


def edge(height=32, width=48, at=20):
    guide = torch.full((3, height, width), 0.2)
    guide[:, :, at:] = torch.tensor([0.9, 0.4, 0.1])[:, None, None]
    return guide


def test_a_rough_map_snaps_to_the_edge_of_the_image():
    guide = edge()
    rough = torch.zeros(1, 32, 48)
    rough[:, :, 23:] = 1
    smooth = guided_filter(guide, rough, radius=6, epsilon=1e-4)[0]
    assert (smooth[:, 20:] > smooth[:, :20].max()).all()


def test_maps_that_sum_to_one_still_do():
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 30, 20, generator=random).softmax(0)
    smooth = guided_filter(torch.rand(3, 30, 20, generator=random), maps)
    assert torch.allclose(smooth.sum(0), torch.ones(30, 20), atol=1e-4)


def test_matches_the_definition_solved_window_by_window():
    random = torch.Generator().manual_seed(1)
    guide, maps = torch.rand(3, 9, 8, generator=random), torch.rand(2, 9, 8, generator=random)
    fits = torch.zeros(2, 4, 9, 8)
    for y in range(9):
        for x in range(8):
            window = (slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3))
            colours = guide[(slice(None), *window)].flatten(1)
            centred = colours - colours.mean(1, keepdim=True)
            variance = centred @ centred.T / colours.shape[1] + 0.01 * torch.eye(3)
            for i, values in enumerate(maps[(slice(None), *window)].flatten(1)):
                slope = torch.linalg.solve(variance, centred @ values / len(values))
                fits[i, :3, y, x] = slope
                fits[i, 3, y, x] = values.mean() - slope @ colours.mean(1)
    expected = torch.zeros(2, 9, 8)
    for y in range(9):
        for x in range(8):
            window = (slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3))
            mean = fits[(slice(None), slice(None), *window)].mean((2, 3))
            expected[:, y, x] = mean[:, :3] @ guide[:, y, x] + mean[:, 3]
    assert torch.allclose(guided_filter(guide, maps, radius=2, epsilon=0.01), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 64), (64, 2), (5, 7)])
def test_any_size_passes(size):
    maps = torch.rand(3, *size)
    assert guided_filter(torch.rand(3, *size), maps, fine=torch.rand(3, 40, 30)).shape == (3, 40, 30)


@pytest.mark.parametrize("size", [(8, 6), (40, 33), (300, 17), (1, 1)])
def test_strips_are_bilinear_upsampling(size, monkeypatch):
    monkeypatch.setattr("partzoo.discovery.refine.STRIP", 200)
    maps = torch.rand(4, 8, 6, generator=torch.Generator().manual_seed(2))
    expected = interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    assert torch.allclose(torch.cat(list(strips(maps, size)), 1), expected, atol=1e-5)


def test_resize_to_the_same_size_returns_the_maps():
    maps = torch.rand(2, 4, 5)
    assert resize(maps, (4, 5)) is maps


def test_cells_of_more_than_four_pixels_become_cells_of_four():
    pixels = torch.zeros(3, 48, 64)
    coarse = torch.rand(2, 6, 8)
    assert torch.equal(finer(coarse, pixels), resize(coarse, (12, 16)))
    assert finer(coarse[None], pixels[None]).shape == (1, 2, 12, 16)
    for size in ((12, 16), (24, 32)):
        maps = torch.rand(2, *size)
        assert finer(maps, pixels) is maps


def test_a_part_of_four_coarse_cells_does_not_vanish():
    pixels = torch.full((3, 128, 128), 0.5)
    part = torch.zeros(8, 8)
    part[3:5, 3:5] = 1
    maps = torch.stack([1 - part, part])
    assert not follow_edges(maps, pixels).argmax(0).any()
    found = follow_edges(finer(maps, pixels), pixels).argmax(0)
    inside = found[48:80, 48:80]
    assert inside.float().mean() > 0.5 and found.sum() == inside.sum()


def test_guide_and_maps_must_agree():
    with pytest.raises(ShapeError, match=r"\(8, 8\)"):
        guided_filter(torch.rand(3, 8, 8), torch.rand(1, 8, 9))


def test_what_is_linear_in_the_colours_is_so_in_a_finer_image_too():
    fine = torch.rand(3, 36, 60, generator=torch.Generator().manual_seed(0))
    guide = resize(fine, (9, 15))
    maps, expected = (
        torch.stack([0.1 + 0.5 * image[0], 0.9 - 0.3 * image[1] - 0.4 * image[2]]) for image in (guide, fine)
    )
    assert torch.allclose(guided_filter(guide, maps, radius=2, epsilon=1e-8, fine=fine), expected, atol=2e-3)


def test_maps_that_follow_edges_stay_between_zero_and_one():
    fine = torch.rand(3, 36, 60, generator=torch.Generator().manual_seed(0))
    guide = resize(fine, (9, 15))
    rough = ((guide - guide.mean()) * 40 + 0.5).clamp(0, 1)
    found = follow_edges(rough, fine)
    free = guided_filter(guide, rough, radius=2, epsilon=4e-3, fine=fine)
    assert free.min() < -0.1 and free.max() > 1.1
    assert torch.equal(found, free.clamp(0, 1))
