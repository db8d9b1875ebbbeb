from itertools import pairwise, permutations

import numpy as np
import pytest

from partzoo.discovery.foreground import (
    METHODS,
    Cells,
    Regions,
    background_and_contrast,
    boundary_prior,
    colour_distance,
    foreground,
    halved_at,
    method,
    object_scores,
    optimize,
    otsu,
    superpixels,
)  # fmt: skip


def cells(height=40, width=56, place=(slice(12, 30), slice(15, 40)), noise=1.5):
    """Return a reddish square on a greenish ground, with features and objectness that agree with it."""
    random = np.random.default_rng(0)
    lab = np.full((height, width, 3), (50, -30, 20), np.float32)
    lab[place] = (60, 50, 30)
    mask = np.zeros((height, width), np.float32)
    mask[place] = 1
    features = np.stack([mask - 0.4, 0.4 - mask, np.full_like(mask, 0.1)], -1)
    lab += random.normal(0, noise, lab.shape).astype(np.float32)
    return Cells(lab, features, 0.2 + 0.6 * mask), mask > 0


def test_every_method_has_a_summary_and_its_own_name():
    for name, each in METHODS.items():
        assert each.summary.endswith("."), name
    with pytest.raises(ValueError, match="boundary is registered twice"):
        method()(METHODS["boundary"].score)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "none"])
def test_each_method_finds_a_plain_object(name):
    given, mask = cells()
    score = foreground(name, given)
    assert ((score >= 0.5) == mask).mean() > 0.97


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 64), (64, 4), (30, 30)])
def test_each_method_takes_any_grid(name, size):
    random = np.random.default_rng(1)
    given = Cells(
        random.normal(50, 20, (*size, 3)).astype(np.float32), random.normal(0, 1, (*size, 8)), random.random(size)
    )
    score = foreground(name, given)
    assert score.shape == size and score.dtype == np.float32 and np.isfinite(score).all()
    assert score.min() >= 0 and score.max() <= 1


def test_the_boundary_prior_is_surer_of_a_plain_object_than_of_noise():
    plain = cells()[0].lab
    noise = np.random.default_rng(0).normal(50, 15, plain.shape).astype(np.float32)
    assert boundary_prior(superpixels(plain))[1] > boundary_prior(superpixels(noise))[1]


def test_superpixels_follow_colours_and_cover_the_grid():
    given, mask = cells(noise=0)
    regions = superpixels(given.lab)
    count = len(regions.lab)
    assert set(np.unique(regions.labels)) == set(range(count)) and 100 < count < 300
    mixed = [len(np.unique(mask[regions.labels == i])) for i in range(count)]
    assert max(mixed) == 1
    assert (regions.neighbours == regions.neighbours.T).all() and not regions.neighbours.diagonal().any()
    assert regions.border[regions.labels[0]].all() and not regions.border.all()


def test_optimize_minimizes_the_energy():
    regions = superpixels(cells()[0].lab)
    random = np.random.default_rng(2)
    background, objects = random.random((2, len(regions.lab)))
    distance = colour_distance(regions)
    found = optimize(regions, distance, background, objects)
    near = regions.neighbours | (regions.border[:, None] & regions.border)
    two_steps = regions.neighbours.astype(int) @ regions.neighbours > 0
    links = np.where(near | two_steps, np.exp(-(distance**2) / 2), 0) + 0.1 * regions.neighbours
    np.fill_diagonal(links, 0)
    gradient = background * found + objects * (found - 1) + (links * (found[:, None] - found)).sum(1)
    assert np.abs(gradient).max() < 1e-3


def test_a_crumb_beside_an_object_is_not_part_of_it():
    given, mask = cells(noise=0)
    given.lab[3:6, 48:52] = (60, 50, 30)
    regions = superpixels(given.lab)
    score = object_scores(regions, regions.mean((given.lab[..., 1] > 0).astype(float)))
    assert not (score[3:6, 48:52] >= 0.5).any()
    assert ((score >= 0.5) == mask).mean() > 0.99


def test_otsu_parts_two_humps_and_the_bend_keeps_order():
    random = np.random.default_rng(0)
    values = np.clip(np.concatenate([random.normal(0.2, 0.03, 500), random.normal(0.7, 0.05, 200)]), 0, 1)
    threshold = otsu(values)
    assert 0.3 < threshold < 0.6
    bent = halved_at(np.sort(values), threshold)
    assert (np.diff(bent) >= 0).all() and ((bent >= 0.5) == (np.sort(values) >= threshold)).all()
    assert otsu(np.full(5, 0.3)) == 0.5


def test_background_and_contrast_are_those_of_the_paper():
    """Five regions in a row, of which two lie at the border, with geodesic distances by trying every path."""
    random = np.random.default_rng(3)
    lab, place = random.normal(50, 12, (5, 3)), random.random((5, 2))
    neighbours = np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)
    border = np.array([True, False, False, False, True])
    regions = Regions(np.arange(5)[None], lab, place, neighbours, border)
    distance = np.linalg.norm(lab[:, None] - lab, axis=2) / 10
    assert np.allclose(colour_distance(regions), distance, atol=1e-5)
    texture = np.mean([each for row in range(5) for each in sorted(distance[row, neighbours[row]])[:2]])
    linked = neighbours | (border[:, None] & border)

    def geodesic(start, end):
        between = [set(range(5)) - {start, end}] if start != end else []
        paths = [(start, *way, end) for free in between for n in range(4) for way in permutations(free, n)]
        walks = [list(pairwise(path)) for path in paths]
        costs = [
            sum(max(distance[step] - texture, 0) for step in walk) for walk in walks if all(linked[s] for s in walk)
        ]
        return min(costs, default=0.0)

    reach = np.array([[np.exp(-(geodesic(a, b) ** 2) / 2) for b in range(5)] for a in range(5)])
    background = 1 - np.exp(-((reach[:, border].sum(1) / np.sqrt(reach.sum(1))) ** 2) / 2)
    apart = np.linalg.norm(place[:, None] - place, axis=2)
    contrast = (distance * np.exp(-(apart**2) / (2 * 0.4**2)) * background).sum(1)
    found = background_and_contrast(regions, distance)
    assert np.allclose(found[0], background, atol=1e-5)
    assert np.allclose(found[1], (contrast - contrast.min()) / np.ptp(contrast), atol=1e-5)


def test_a_plain_image_is_divided_into_a_regular_grid():
    regions = superpixels(np.full((30, 60, 3), 50, np.float32))
    assert len(regions.lab) == 10 * 20
    assert np.array_equal(regions.labels, np.arange(200).reshape(10, 20).repeat(3, 0).repeat(3, 1))
    assert np.allclose(regions.place[:2], [[1 / 60, 1 / 60], [1 / 60, 4 / 60]])
    assert regions.neighbours.sum() == 2 * (9 * 20 + 10 * 19) and regions.neighbours[0, [1, 20]].all()
    assert regions.border.sum() == 2 * 20 + 2 * 8


def test_otsu_cuts_in_the_middle_between_two_groups():
    assert otsu(np.array([0.1, 0.2, 0.7, 0.9])) == pytest.approx(0.45)
    assert otsu(np.array([[0.9, 0.2], [0.1, 0.8]])) == pytest.approx(0.5)
