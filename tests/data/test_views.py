from pathlib import Path

import numpy as np
import pytest
import torch
from parity.synthetic import image
from PIL import Image
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms import functional as tv

from partzoo.data import views
from partzoo.data.views import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    crop_resize,
    cut,
    enlarged_patches,
    grey,
    jitter,
    patch_corners,
    place,
    random_boxes,
    random_colours,
    shift_hue,
)
from partzoo.models.spatial.model import SpatialConfig

CASES = Path(__file__).parents[1] / "parity" / "spatial"


def noise(count, height, width, seed=0):
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed)).float()


def pil(pixels):
    return Image.fromarray(pixels.byte().permute(1, 2, 0).numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.mark.parametrize("side", [64, 20])
def test_crops_are_torchvision_s_of_pil_images(side):
    pixels = noise(6, 64, 48)
    boxes = torch.tensor(
        [[0, 0, 64, 48], [3, 5, 20, 31], [10, 0, 54, 17], [60, 44, 4, 4], [1, 2, 33, 40], [7, 9, 1, 1]]
    )
    flipped = torch.tensor([0, 1, 0, 1, 0, 1]).bool()
    found = crop_resize(pixels.double(), boxes, side, flipped).float()
    for each, box, mirror, result in zip(pixels, boxes.tolist(), flipped, found, strict=True):
        image = tv.resized_crop(pil(each), *box, [side, side])
        expected = tensor(tv.hflip(image) if mirror else image)
        # Where the height shrinks, recent versions of PIL may take rows first, and round otherwise.
        assert (result - expected).abs().max() <= (side < 64)
    single = crop_resize(pixels, boxes, side, flipped)
    assert (single - found).abs().max() <= 1 and (single != found).float().mean() < 1e-2


def test_boxes_are_distributed_as_torchvision_s():
    torch.manual_seed(0)
    size, count = (64, 64), 5_000
    image = torch.zeros(3, *size)
    params = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    expected = torch.tensor([[float(v) for v in each] for each in params])
    found = random_boxes(count, size, generator=torch.Generator().manual_seed(1)).float()
    ends = found[:, :2] + found[:, 2:]
    assert found[:, :2].min() == 0 and found[:, 2:].min() > 0 and ends.max() == 64
    for axis in range(4):
        levels = torch.arange(65)
        ours = (found[:, axis, None] <= levels).float().mean(0)
        theirs = (expected[:, axis, None] <= levels).float().mean(0)
        assert (ours - theirs).abs().max() < 1.95 * (2 / count) ** 0.5  # Kolmogorov-Smirnov, 0.1 %


def test_boxes_that_never_fit_are_the_middle():
    found = random_boxes(5, (10, 100), scale=(0.9, 1.0))
    expected = RandomResizedCrop.get_params(torch.zeros(3, 10, 100), [0.9, 1.0], [3 / 4, 4 / 3])
    assert found.tolist() == [list(expected)] * 5


def test_hues_greys_and_blends_are_torchvision_s():
    x = noise(40, 8, 8) / 255
    x[0] = 0.5
    x[1, 1:] = x[1, :1]
    torch.testing.assert_close(grey(x), tv.rgb_to_grayscale(x))
    factors = torch.linspace(0.2, 1.8, 40)
    turns = torch.linspace(-0.5, 0.5, 40)
    expected = torch.stack([tv.adjust_hue(each, turn.item()) for each, turn in zip(x, turns, strict=True)])
    torch.testing.assert_close(shift_hue(x, turns), expected, atol=1e-5, rtol=0)
    operators = {BRIGHTNESS: tv.adjust_brightness, CONTRAST: tv.adjust_contrast, SATURATION: tv.adjust_saturation}
    for kind, operator in operators.items():
        values = torch.tensor([1.0, 1, 1, 0]).repeat(40, 1)
        values[:, kind] = factors
        expected = torch.stack([operator(each, factor.item()) for each, factor in zip(x, factors, strict=True)])
        found = jitter(x, torch.arange(4).repeat(40, 1), values)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_each_image_is_jittered_in_its_own_order():
    generator = torch.Generator().manual_seed(0)
    x = noise(24, 8, 8) / 255
    order = torch.rand(24, 4, generator=generator).argsort(1)
    factors = torch.tensor([0.2, 0.2, 0.2, -0.2]) + torch.rand(24, 4, generator=generator) * torch.tensor(
        [1.6, 1.6, 1.6, 0.4]
    )
    operators = {
        BRIGHTNESS: tv.adjust_brightness, CONTRAST: tv.adjust_contrast,
        SATURATION: tv.adjust_saturation, HUE: tv.adjust_hue,
    }  # fmt: skip
    found = jitter(x, order, factors)
    for each, kinds, values, result in zip(x, order.tolist(), factors, found, strict=True):
        for kind in kinds:
            each = operators[kind](each, values[kind].item())
        torch.testing.assert_close(result, each, atol=1e-5, rtol=0)


def test_colours_are_drawn_for_each_image():
    x = (noise(1, 4, 4) / 255).repeat(4000, 1, 1, 1)
    found = random_colours(x, generator=torch.Generator().manual_seed(0))
    kept = (found == x).flatten(1).all(1).float().mean()
    grey_ones = ((found - found[:, :1]).abs() < 1e-6).flatten(1).all(1).float().mean()
    assert kept == pytest.approx(0.2 * 0.8, abs=0.02)
    assert grey_ones == pytest.approx(0.2, abs=0.02)
    assert len(found.flatten(1).unique(dim=0)) > 3000
    x = torch.full((4000, 3, 1, 1), 0.25)
    shade = random_colours(x, generator=torch.Generator().manual_seed(0))[:, 0, 0, 0]
    changed = shade[shade != 0.25] / 0.25  # of plain grey images, brightness alone is seen
    assert changed.min() == pytest.approx(0.2, abs=0.01) and changed.max() == pytest.approx(1.8, abs=0.01)
    assert changed.mean() == pytest.approx(1, abs=0.03)


def test_changes_and_their_order_are_drawn_as_torchvision_s(monkeypatch):
    drawn = []
    monkeypatch.setattr(views, "jitter", lambda *given: drawn.append(given) or given[0])
    random_colours(torch.rand(4000, 3, 1, 1), jittered=1.0, generator=torch.Generator().manual_seed(0))
    (_, order, factors), count = drawn[0], 1000
    ranges = [(0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2)]
    torch.manual_seed(0)
    theirs = torch.tensor([ColorJitter.get_params(*map(list, ranges))[1:] for _ in range(count)])
    for ours, other, (low, high) in zip(factors.unbind(1), theirs.unbind(1), ranges, strict=True):
        assert low <= ours.min() < low + 0.01 and high - 0.01 < ours.max() <= high
        levels = torch.linspace(0.1, 0.9, 9)
        torch.testing.assert_close(ours.quantile(levels), other.quantile(levels), atol=0.1 * (high - low), rtol=0)
    assert factors.mT.corrcoef().fill_diagonal_(0).abs().max() < 0.06
    orders, counts = order.unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 4000 / 24 * 0.7


def test_patches_are_the_published_ones():
    expected = np.load(CASES / "g_training_patches.npz")
    pixels = (255 * torch.from_numpy(image("spatial/tiny", (1, 3, 64, 64))) + 0.5).floor().double()
    config = SpatialConfig()

    def normalized(x):
        return (x / 255 - config.mean[0]) / config.std[0]

    positions = torch.from_numpy(expected["plain_N2_targets"][:, :2])
    corners = (positions * config.unit * config.enlarged).round().long()
    assert corners.tolist() == [[12, 46], [74, 7]]
    found = normalized(enlarged_patches(pixels.repeat(2, 1, 1, 1), corners, config.enlarged))
    assert (
        np.abs(found[0].numpy() - expected["plain_first_patch"]).max()
        <= 1e-6 * np.abs(expected["plain_first_patch"]).max()
    )
    for patch, (mean, std) in zip(found, expected["plain_mean_std"], strict=True):
        assert patch.mean().item() == pytest.approx(mean, rel=1e-6)
        assert patch.std().item() == pytest.approx(std, rel=1e-6)
    corners = torch.from_numpy(expected["additive_N2_targets"][:, :2] * 40).round().long()
    placed = torch.from_numpy(expected["additive_N2_placed"][:, :2]).long()
    found = place(normalized(cut(pixels.repeat(2, 1, 1, 1), corners, 24)), placed, 64)[0]
    assert (
        np.abs(found.numpy() - expected["additive_first_patch"]).max()
        <= 1e-6 * np.abs(expected["additive_first_patch"]).max()
    )


def test_enlarged_patches_are_windows_of_the_image_that_pil_enlarges():
    pixels, corners = noise(3, 32, 32), torch.tensor([[0, 0], [53, 53], [17, 40]])
    found = enlarged_patches(pixels.double(), corners, 85)
    for each, (top, left), result in zip(pixels, corners.tolist(), found, strict=True):
        enlarged = tensor(pil(each).resize((85, 85), Image.Resampling.BILINEAR))
        assert torch.equal(result.float(), enlarged[:, top : top + 32, left : left + 32])


def test_the_first_two_patches_never_overlap_and_all_their_places_are_as_likely():
    places, side, count = 5, 3, 60_000
    corners = patch_corners(count, 3, places, side, generator=torch.Generator().manual_seed(0))
    assert corners.shape == (count, 3, 2)
    apart = (corners[:, 0] - corners[:, 1]).abs().amax(1)
    assert apart.min() == side
    grid = torch.cartesian_prod(*[torch.arange(places)] * 4)
    allowed = (grid[:, :2] - grid[:, 2:]).abs().amax(1) >= side
    flat = corners[:, :2].flatten(1) @ torch.tensor([125, 25, 5, 1])
    seen = torch.bincount(flat, minlength=625)
    assert torch.equal(seen > 0, allowed)
    expected = count / allowed.sum()
    squares = (((seen[allowed] - expected) ** 2) / expected).sum().item()
    freedom = int(allowed.sum()) - 1
    assert abs(squares - freedom) < 4 * (2 * freedom) ** 0.5
    third = torch.bincount(corners[:, 2] @ torch.tensor([5, 1]), minlength=25) / count
    assert third.min() > 0.03 and third.max() < 0.05


def test_patches_without_a_side_lie_anywhere():
    corners = patch_corners(20_000, 2, 5, 0, generator=torch.Generator().manual_seed(0))
    seen = torch.bincount(corners.flatten(1) @ torch.tensor([125, 25, 5, 1]), minlength=625)
    assert seen.min() > 0 and (seen - 32).abs().max() < 32
