import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partzoo.models.sampling import gather_patches, relative_targets, sample_pairs, sample_positions


@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_patches_lie_inside_the_picture(height, width, patch, continuous):
    corners = sample_positions(3, 50, (height, width), patch, continuous=continuous)
    assert corners.shape == (3, 50, 2)
    assert corners.is_floating_point() == continuous
    assert (corners >= 0).all()
    assert (corners[..., 0] <= width - patch).all() and (corners[..., 1] <= height - patch).all()


def test_positions_are_uniform():
    whole = sample_positions(1, 60_000, (12, 12), 8, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(whole[0, :, 0], minlength=5)
    assert counts.float().div(60_000).sub(1 / 5).abs().max() < 0.01
    real = sample_positions(1, 60_000, (64, 64), 8, continuous=True, generator=torch.Generator().manual_seed(0))
    assert real.mean((0, 1)).sub(28).abs().max() < 0.3
    assert real.var((0, 1)).sub(56**2 / 12).abs().max() < 4


def test_whole_positions_cut_out_the_pixels_themselves():
    pixels = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    corners = sample_positions(2, 7, (20, 30), 8)
    patches = gather_patches(pixels, corners, 8)
    for b in range(2):
        for n in range(7):
            x, y = corners[b, n].tolist()
            assert torch.equal(patches[b, n], pixels[b, :, y : y + 8, x : x + 8])


def test_real_positions_agree_with_whole_ones_and_interpolate_between_them():
    pixels = torch.rand(2, 3, 20, 30)
    corners = sample_positions(2, 7, (20, 29), 8)
    cut = gather_patches(pixels, corners, 8)
    torch.testing.assert_close(gather_patches(pixels, corners.float(), 8), cut, atol=1e-4, rtol=0)
    right = gather_patches(pixels, corners + torch.tensor([1, 0]), 8)
    halfway = gather_patches(pixels, corners + torch.tensor([0.5, 0.0]), 8)
    torch.testing.assert_close(halfway, (cut + right) / 2, atol=1e-4, rtol=0)


def test_targets_are_displacements_over_the_patch():
    corners = torch.tensor([[[0, 8], [16, 8], [4, 0]]])
    pairs = torch.tensor([[[0, 1], [1, 2]]])
    assert relative_targets(corners, 8, pairs).tolist() == [[[2.0, 0.0], [-1.5, -1.0]]]
    every = relative_targets(corners, 8)
    assert every.shape == (1, 9, 2)
    assert every[0, 1].tolist() == [2.0, 0.0]
    assert torch.equal(every.reshape(1, 3, 3, 2), -every.reshape(1, 3, 3, 2).transpose(1, 2))


def test_the_constant_predictor_has_the_variance_that_the_facts_state():
    corners = sample_positions(200, 64, (64, 64), 8, continuous=True, generator=torch.Generator().manual_seed(0))
    targets = relative_targets(corners, 8, sample_pairs(200, 64, 2048))
    assert targets.square().mean((0, 1)).tolist() == pytest.approx([49 / 6, 49 / 6], rel=0.03)


def test_pairs_are_of_different_patches_and_uniform():
    pairs = sample_pairs(4, 5, 50_000, generator=torch.Generator().manual_seed(0))
    assert (pairs[..., 0] != pairs[..., 1]).all()
    counts = torch.bincount((pairs[..., 0] * 5 + pairs[..., 1]).flatten(), minlength=25).reshape(5, 5)
    off_diagonal = counts[~torch.eye(5, dtype=torch.bool)]
    assert off_diagonal.float().div(200_000).sub(1 / 20).abs().max() < 0.003
