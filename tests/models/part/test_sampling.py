import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.models.part import sampling
from partzoo.models.part.sampling import (
    SAMPLINGS,
    box_targets,
    coverage,
    gather_patches,
    grid_positions,
    relative_targets,
    resample_boxes,
    sample,
    sample_boxes,
    sample_pairs,
    sample_positions,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_patches_lie_inside_the_image(height, width, patch, continuous, weighted):
    weights = torch.rand(3, height, width) if weighted else None
    corners = sample_positions(3, 50, (height, width), patch, continuous=continuous, weights=weights)
    assert corners.shape == (3, 50, 2)
    assert corners.is_floating_point() == continuous
    assert (corners >= 0).all()
    assert (corners[..., 0] <= width - patch).all() and (corners[..., 1] <= height - patch).all()


@given(st.integers(8, 40), st.integers(8, 40), st.integers(2, 8), st.booleans())
@settings(max_examples=25)
def test_boxes_lie_inside_the_image_and_keep_their_sizes(height, width, patch, weighted):
    weights = torch.rand(height, width) if weighted else None
    corners, sizes = sample_boxes(3, 50, (height, width), patch, weights=weights).chunk(2, -1)
    room = torch.tensor([width, height])
    assert (corners >= 0).all() and (corners + sizes <= room + 1e-4).all()
    assert (sizes >= patch / 2).all() and (sizes <= torch.minimum(room, torch.tensor(2 * patch)) + 1e-5).all()


def test_positions_are_uniform():
    whole = sample_positions(1, 60_000, (12, 12), 8, generator=seeded())
    counts = torch.bincount(whole[0, :, 0], minlength=5)
    assert counts.float().div(60_000).sub(1 / 5).abs().max() < 0.01
    real = sample_positions(1, 60_000, (64, 64), 8, continuous=True, generator=seeded())
    assert real.mean((0, 1)).sub(28).abs().max() < 0.3
    assert real.var((0, 1)).sub(56**2 / 12).abs().max() < 4


def test_boxes_are_uniform_in_size_and_in_place():
    corners, sizes = sample_boxes(1, 60_000, (64, 48), 8, generator=seeded())[0].chunk(2, -1)
    assert torch.corrcoef(torch.cat([corners, sizes], 1).T)[2, 3].abs() < 0.02
    for axis, side in enumerate((48, 64)):
        for values in (sizes[:, axis].sub(4).div(12), corners[:, axis] / (side - sizes[:, axis])):
            share = torch.histc(values, 10, 0, 1) / len(values)
            assert share.sub(0.1).abs().max() < 0.01


@pytest.mark.parametrize("continuous", [True, False])
def test_positions_have_the_density_of_the_weights(continuous):
    weights = torch.zeros(2, 20, 30)
    weights[0, 6:8, 10:12] = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    weights[1, 15, 6] = 1
    centres = 4 + sample_positions(2, 40_000, (20, 30), 8, continuous=continuous, weights=weights, generator=seeded())
    pixels = centres.floor().long()
    assert (pixels[1] == torch.tensor([6, 15])).all()
    counts = torch.zeros(20, 30).index_put_((pixels[0, :, 1], pixels[0, :, 0]), torch.ones(40_000), accumulate=True)
    assert counts.div(40_000).sub(weights[0] / 8).abs().max() < 0.01


def test_even_weights_are_no_weights():
    drawn = sample_positions(1, 60_000, (64, 48), 8, continuous=True, weights=torch.ones(64, 48), generator=seeded())
    for axis, side in enumerate((48, 64)):
        share = torch.histc(drawn[0, :, axis] / (side - 8), 10, 0, 1) / 60_000
        assert share.sub(0.1).abs().max() < 0.01
    corners, sizes = sample_boxes(1, 60_000, (64, 48), 8, weights=torch.ones(64, 48), generator=seeded())[0].chunk(2, 1)
    place = corners / (torch.tensor([48, 64]) - sizes)
    assert place.mean(0).sub(0.5).abs().max() < 0.01 and place.var(0).sub(1 / 12).abs().max() < 0.002


@pytest.mark.parametrize("sampling", ["off-grid", "integer", "multi-scale"])
def test_patches_focus_on_an_object_or_its_surroundings(sampling):
    mask = torch.zeros(64, 64)
    mask[20:40, 10:50] = 1
    pixels = torch.zeros(4, 3, 64, 64)
    for weights, inside in ((mask, True), (1 - mask, False)):
        boxes = sample(pixels, 8, sampling, weights=weights, generator=seeded()).boxes.float()
        x, y = (boxes[..., :2] + boxes[..., 2:] / 2).floor().long().unbind(-1)
        assert (mask[y, x].bool() == inside).all()


@pytest.mark.parametrize("continuous", [True, False])
def test_weights_of_zero_everywhere_inside_are_uniform(continuous):
    weights = torch.zeros(64, 64)
    weights[0, 0] = 1  # no patch has its centre here
    drawn = sample_positions(1, 20_000, (64, 64), 8, continuous=continuous, weights=weights, generator=seeded())
    assert drawn.float().mean((0, 1)).sub(28).abs().max() < 1


def test_the_grid_is_taken_whole_and_in_random_order():
    corners = grid_positions(2, (24, 18), 8, generator=seeded())
    cells = {(x, y) for x in (0, 8) for y in (0, 8, 16)}
    assert [set(map(tuple, image.tolist())) for image in corners] == [cells, cells]
    assert not torch.equal(corners[0], corners[1])
    first = grid_positions(6_000, (16, 16), 8, generator=seeded())[:, 0]
    counts = torch.bincount(first[:, 0] // 8 + first[:, 1] // 4, minlength=4)
    assert counts.float().div(6_000).sub(0.25).abs().max() < 0.03


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


def test_boxes_are_resampled_as_by_pillow():
    pixels = torch.rand(2, 1, 40, 50)
    boxes = sample_boxes(2, 20, (40, 50), 8, generator=seeded())
    patches = resample_boxes(pixels, boxes, 8)
    for b in range(2):
        image = Image.fromarray(pixels[b, 0].numpy())
        for n in range(20):
            x, y, w, h = boxes[b, n].tolist()
            resized = image.resize((8, 8), Image.Resampling.BILINEAR, box=(x, y, min(x + w, 50), min(y + h, 40)))
            np.testing.assert_allclose(patches[b, n, 0].numpy(), np.asarray(resized), atol=2e-4)


def test_a_large_batch_is_resampled_in_pieces(monkeypatch):
    pixels = torch.randint(0, 256, (5, 3, 24, 32), dtype=torch.uint8)
    boxes = sample_boxes(5, 6, (24, 32), 8, generator=seeded())
    whole = resample_boxes(pixels, boxes, 8)
    monkeypatch.setattr(sampling, "AT_ONCE", 2 * 6 * 3 * 8 * 32)
    torch.testing.assert_close(resample_boxes(pixels, boxes, 8), whole)


def test_boxes_of_one_patch_are_cut_as_patches():
    pixels = torch.rand(2, 3, 20, 30)
    corners = sample_positions(2, 9, (20, 30), 8, continuous=True)
    boxes = torch.cat([corners, torch.full_like(corners, 8)], -1)
    torch.testing.assert_close(resample_boxes(pixels, boxes, 8), gather_patches(pixels, corners, 8), atol=1e-4, rtol=0)


def test_targets_are_displacements_over_the_patch():
    corners = torch.tensor([[[0, 8], [16, 8], [4, 0]]])
    pairs = torch.tensor([[[0, 1], [1, 2]]])
    assert relative_targets(corners, 8, pairs).tolist() == [[[2.0, 0.0], [-1.5, -1.0]]]
    every = relative_targets(corners, 8)
    assert every.shape == (1, 9, 2)
    assert every[0, 1].tolist() == [2.0, 0.0]
    assert torch.equal(every.reshape(1, 3, 3, 2), -every.reshape(1, 3, 3, 2).transpose(1, 2))


def test_targets_of_boxes_are_measured_from_centre_to_centre_by_the_reference():
    boxes = torch.tensor([[[0.0, 0, 8, 4], [20, 10, 4, 16]]])  # centres 4, 2 and 22, 18
    there, back = [18 / 8, 16 / 4, 4 / 8, 16 / 4], [-18 / 4, -16 / 16, 8 / 4, 4 / 16]
    pairs = torch.tensor([[[0, 1], [1, 0]]])
    assert box_targets(boxes, pairs, sizes=True).tolist() == [[there, back]]
    assert box_targets(boxes, pairs).tolist() == [[there[:2], back[:2]]]
    assert box_targets(boxes, sizes=True).tolist() == [[[0, 0, 1, 1], there, back, [0, 0, 1, 1]]]


def test_the_constant_predictor_has_the_variance_that_the_facts_state():
    corners = sample_positions(200, 64, (64, 64), 8, continuous=True, generator=seeded())
    targets = relative_targets(corners, 8, sample_pairs(200, 64, 2048))
    assert targets.square().mean((0, 1)).tolist() == pytest.approx([49 / 6, 49 / 6], rel=0.03)


def test_pairs_are_of_different_patches_and_uniform():
    pairs = sample_pairs(4, 5, 50_000, generator=seeded())
    assert (pairs[..., 0] != pairs[..., 1]).all()
    counts = torch.bincount((pairs[..., 0] * 5 + pairs[..., 1]).flatten(), minlength=25).reshape(5, 5)
    off_diagonal = counts[~torch.eye(5, dtype=torch.bool)]
    assert off_diagonal.float().div(200_000).sub(1 / 20).abs().max() < 0.003


def test_coverage_counts_the_boxes_over_each_pixel():
    boxes = torch.tensor([[[1.0, 0, 2, 2], [2.4, 1, 1, 3]], [[0, 0, 4, 4], [0, 0, 4, 4]]])
    assert coverage(boxes, (4, 4))[0].tolist() == [[0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert (coverage(boxes, (4, 4))[1] == 2).all()
    assert coverage(torch.tensor([[[1.0, 2]]]), (5,)).tolist() == [[0, 1, 1, 0, 0]]


def test_the_grid_covers_all_and_off_the_grid_two_fifths_are_masked():
    pixels = torch.zeros(50, 3, 64, 64)
    assert (coverage(sample(pixels, 8, "on-grid").boxes, (64, 64)) == 1).all()
    seen = coverage(sample(pixels, 8, "off-grid", generator=seeded()).boxes, (64, 64)) > 0
    assert seen.float().mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("shape", [(2, 3, 24, 32), (2, 6, 96)])
def test_a_sample_is_patches_pairs_and_their_exact_targets(sampling, shape):
    axes = len(shape) - 2
    # Channel d holds each pixel's own place along axis d, so that patches tell where they are.
    places = torch.meshgrid(*[torch.arange(side) + 0.5 for side in reversed(shape[2:])], indexing="xy")
    pixels = torch.stack([*places, *[torch.zeros(shape[2:])] * (shape[1] - axes)])[None].expand(2, *shape[1:])
    inner = torch.zeros(shape[2:])
    inner[(slice(8, -8),) * axes] = 1  # away from the borders, where interpolation sees no more than them
    weights = None if sampling == "on-grid" else inner
    drawn = sample(pixels, 8, sampling, pairs=40, sizes=True, weights=weights, generator=seeded())
    assert drawn.patches.shape == (2, 12, shape[1], *[8] * axes)
    assert drawn.pairs.shape == (2, 40, 2) and drawn.targets.shape == (2, 40, 2 * axes)
    centres = drawn.patches[:, :, :axes].flatten(3).mean(3)
    torch.testing.assert_close(centres, drawn.boxes[..., :axes] + drawn.boxes[..., axes:] / 2, atol=0.05, rtol=0)
    index = torch.arange(2)[:, None]
    first, second = drawn.boxes[index, drawn.pairs[..., 0]], drawn.boxes[index, drawn.pairs[..., 1]]
    ratio = second[..., axes:] / first[..., axes:]
    torch.testing.assert_close(drawn.targets[..., axes:], ratio.float())
    moved = (second[..., :axes] + second[..., axes:] / 2) - (first[..., :axes] + first[..., axes:] / 2)
    torch.testing.assert_close(drawn.targets[..., :axes], (moved / first[..., axes:]).float())


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_seed_gives_one_sample_and_all_pairs_are_row_by_reference(sampling):
    pixels = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    first, again = (sample(pixels, 8, sampling, generator=seeded(3)) for _ in range(2))
    assert torch.equal(first.patches, again.patches) and torch.equal(first.boxes, again.boxes)
    assert first.pairs is None
    assert torch.equal(first.targets.unflatten(1, (9, 9)).diagonal(dim1=1, dim2=2), torch.zeros(2, 2, 9))


def test_integer_positions_keep_bytes():
    pixels = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    assert sample(pixels, 8, "integer", count=5).patches.dtype == torch.uint8
    patches = sample(pixels, 8, "off-grid", count=5).patches
    assert patches.shape == (2, 5, 3, 8, 8) and patches.dtype == torch.float32 and patches.max() > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "hexagonal"}, "choose one of off-grid, integer, on-grid, multi-scale"),
        ({"sampling": "on-grid", "count": 3}, "every cell once"),
        ({"count": 1}, "count=1"),
        ({"pairs": -1}, "pairs=-1"),
        ({"weights": torch.ones(3, 3)}, r"must be \(24, 24\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        sample(torch.zeros(2, 3, 24, 24), 8, **options)


def test_an_image_smaller_than_a_patch_is_named():
    with pytest.raises(ShapeError, match=r"\(1, 3, 4, 24\)"):
        sample(torch.zeros(1, 3, 4, 24), 8)
