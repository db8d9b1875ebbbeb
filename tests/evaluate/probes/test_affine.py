import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomAffine, RandomErasing
from torchvision.transforms import functional as tv

from partzoo.data.warp import warp
from partzoo.evaluate.probes.affine import affine_matrices, random_affine, random_erasing


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_warps_are_torchvision_s():
    x = torch.rand(5, 3, 32, 32, generator=generator())
    angle, shear = torch.tensor([0.0, 18.0, -7.5, 0.0, 12.0]), torch.tensor([0.0, 0.0, 10.0, -9.0, 4.0])
    shift = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-2.0, 1.0], [0.0, -3.0], [2.0, 3.0]])
    scale = torch.tensor([1.0, 0.9, 1.1, 1.05, 0.95])
    found = warp(x, affine_matrices(angle.deg2rad(), shift, scale, shear.deg2rad(), 32))
    for each, a, t, s, h, result in zip(x, angle, shift, scale, shear, found, strict=True):
        expected = tv.affine(each, a.item(), t.int().tolist(), s.item(), [h.item(), 0.0], InterpolationMode.BILINEAR)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_draws_are_distributed_as_torchvision_s():
    count, side = 4000, 32
    ramp = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).float()
    middle = random_affine(ramp.repeat(count, 1, 1, 1), generator=generator(), warped=1.0)[:, :, 15:17, 15:17].mean(
        (2, 3)
    )
    torch.manual_seed(0)
    transform = RandomAffine(18, (0.1, 0.1), (0.9, 1.1), 10, InterpolationMode.BILINEAR)
    theirs = torch.stack([transform(ramp)[:, 15:17, 15:17].mean((1, 2)) for _ in range(500)])
    for axis in (0, 1):
        torch.testing.assert_close(middle[:, axis].mean(), theirs[:, axis].mean(), atol=0.4, rtol=0)
        torch.testing.assert_close(middle[:, axis].std(), theirs[:, axis].std(), atol=0.3, rtol=0)


def test_half_of_the_images_are_warped_and_half_have_a_square_erased():
    x = torch.rand(2000, 3, 32, 32, generator=generator()) + 1
    kept = (random_affine(x, generator=generator(1)) == x).flatten(1).all(1)
    assert kept.float().mean() == pytest.approx(0.5, abs=0.04)
    erased = (random_erasing(x, generator=generator(1)) == 0).all(1)
    area = erased.flatten(1).sum(1)
    assert (area > 0).float().mean() == pytest.approx(0.5, abs=0.04)
    torch.manual_seed(0)
    theirs = (RandomErasing(1.0, (0.111, 0.111), (1.0, 1.0))(x[0]) == 0).all(0).sum()
    assert set(area.tolist()) == {0, int(theirs)}
    filled = erased[area > 0].float().mean(0)
    assert filled[16, 16] > 0.2 and filled[0].sum() > 0 and filled[:, 31].sum() > 0
