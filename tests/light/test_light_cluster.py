"""The clustering without torch equals the one in torch."""

import numpy as np
import pytest
import torch

from partzoo.discovery import cluster
from partzoo.discovery.numbering import by_area
from partzoo.light import cluster as light
from partzoo.light.draws import permutation, uniform


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 + 5, -3])
def test_random_numbers_are_torch_s(seed):
    for shape in ((1, 3), (16, 3), (24, 3), (40, 3)):
        drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).numpy()
        assert np.array_equal(uniform(seed, *shape), drawn)
    for count in (0, 1, 2, 154, 1000):
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
        assert np.array_equal(permutation(seed, count), drawn)


def groups(seed: int, count: int, dim: int = 40) -> np.ndarray:
    """Return noisy unit vectors around a few directions, as the cells of an image are."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(7, dim))
    points = directions[generator.integers(7, size=count)] + 0.8 * generator.normal(size=(count, dim))
    return light.normalized(points.astype(np.float32))


@pytest.mark.parametrize("k", [1, 2, 5, 8, "auto"])
@pytest.mark.parametrize("count", [1, 3, 30, 196])
def test_clusters_are_those_of_torch(k, count):
    for seed in range(3):
        points = groups(seed, count)
        expected = cluster.merged_kmeans(torch.from_numpy(points), k, seed=seed)
        centres, labels = light.merged_kmeans(points, k, seed=seed)
        ours, theirs = by_area(labels, len(centres)), by_area(expected.labels.numpy(), len(expected.centres))
        assert np.allclose(centres[ours], expected.centres.numpy()[theirs], atol=1e-5)
        assert np.array_equal(ours.argsort()[labels], theirs.argsort()[expected.labels.numpy()])


def test_duplicates_are_no_second_centre():
    points = np.repeat(groups(0, 3), 20, axis=0)
    centres, labels = light.merged_kmeans(points, 5)
    assert len(centres) == 3 and np.array_equal(np.bincount(labels), [20, 20, 20])


def test_the_constants_are_those_of_torch():
    for name in ("SMALL", "MOST", "APART", "MORE", "RESTARTS", "ITERATIONS", "TOLERANCE"):
        assert getattr(light, name) == getattr(cluster, name), name
