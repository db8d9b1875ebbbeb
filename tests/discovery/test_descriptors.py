import torch
from torch.nn.functional import normalize

from partzoo.discovery.descriptors import Descriptors, angles, centred, coherent, position
from partzoo.discovery.refine import resize


def test_angles_fall_with_distance():
    values = torch.tensor([[0.0, 10, 40]])[..., None]
    found = angles(values, 0.02)[..., 0].T
    cosines = found @ found[0]
    assert torch.allclose(found.norm(dim=1), torch.ones(3)) and cosines[0] > cosines[1] > cosines[2]


def test_places_move_and_grow_with_the_foreground():
    score = torch.zeros(40, 40)
    score[2:12, 2:12] = 1
    whole, small = position(torch.ones(40, 40)), position(score)
    assert torch.equal(position(torch.zeros(40, 40)), whole)
    step = [(p[:, 7, 7] - p[:, 7, 9]).norm() for p in (whole, small)]
    assert step[1] > 1.3 * step[0]


def test_features_are_centred_on_the_foreground():
    layer, score = torch.rand(5, 8, 8), torch.zeros(8, 8)
    score[:4] = 1
    found = centred(layer, score)
    mean = layer[:, :4].mean((1, 2))
    assert torch.allclose(found, normalize(layer - mean[:, None, None], dim=0), atol=1e-5)


def test_upsampling_similarities_equals_upsampling_features():
    random = torch.Generator().manual_seed(0)
    score = torch.ones(12, 16)
    layer = normalize(torch.randn(6, 6, 8, generator=random), dim=0)
    colour, place = angles(torch.rand(3, 12, 16, generator=random), 1.0), position(score)
    given = Descriptors((layer,), colour, place, score)
    weights = (0.5, 0.2, 0.3)
    centres = normalize(torch.randn(3, 6 + 6 + 4, generator=random), dim=1)
    blocks = [w**0.5 * resize(block, (12, 16)) for w, block in zip(weights, given.blocks, strict=True)]
    expected = torch.einsum("kd,dhw->khw", centres, torch.cat(blocks))
    assert torch.allclose(given.similarities(centres, weights), expected, atol=1e-5)


def test_samples_are_unit_descriptors_of_the_foreground():
    score = torch.zeros(12, 16)
    score[:6] = 1
    given = Descriptors(
        (normalize(torch.randn(6, 6, 8), dim=0),),
        angles(torch.rand(3, 12, 16), 0.01), position(score), score,
    )  # fmt: skip
    found = given.sample(1000, 0, (0.5, 0.2, 0.3))
    assert found.shape == (3 * 8, 16) and torch.allclose(found.norm(dim=1), torch.ones(24), atol=1e-5)
    few, again, other = (given.sample(10, seed, (0.5, 0.2, 0.3)) for seed in (0, 0, 1))
    assert len(few) == 5 and torch.equal(few, again) and not torch.equal(few, other)


def test_similar_cells_are_averaged_on_their_own_side_of_the_outline():
    score = torch.zeros(8, 8)
    score[:, :4] = 1
    layer = torch.zeros(3, 8, 8)
    layer[0, :4], layer[1, 4:] = 1, 1
    layer[2] = 0.3 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    layer[2, :, 4:] += 5
    found = coherent(normalize(layer, dim=0), score)
    assert torch.allclose(found.norm(dim=0), torch.ones(8, 8), atol=1e-5)
    upper, lower = found[:, :4, :4].flatten(1), found[:, 4:, :4].flatten(1)
    assert upper.std(1).max() < 0.02 and lower.std(1).max() < 0.02 and (upper.mean(1) - lower.mean(1)).norm() > 1
    assert found[2, :, :4].max() < 0.5 < found[2, :, 4:].min()


def test_large_grids_attend_to_a_coarser_copy():
    layer = normalize(torch.randn(4, 70, 90, generator=torch.Generator().manual_seed(0)), dim=0)
    score = torch.ones(70, 90)
    score[0, 0] = 0  # alone on its side
    found = coherent(layer, score)
    assert found.shape == layer.shape and torch.allclose(found.norm(dim=0), torch.ones(70, 90), atol=1e-5)
    assert torch.allclose(found[:, 0, 0], layer[:, 0, 0], atol=1e-5)


def test_places_are_heights_and_distances_from_the_middle_in_deviations_of_the_foreground():
    score = torch.zeros(12, 20)
    score[2:8, 3:13] = 1  # 6 x 10 cells, with the middle at row 4.5 and column 7.5
    deviation = (((36 - 1) / 12 + (100 - 1) / 12) / 2) ** 0.5  # of rows and columns that are spread evenly
    down, across = torch.meshgrid(torch.arange(12) - 4.5, (torch.arange(20) - 7.5).abs(), indexing="ij")
    expected = angles(torch.stack([across, down]) / deviation, 0.7)
    assert torch.allclose(position(score), expected, atol=1e-5)
