"""The page's clustering, run by node, finds the clusters of ``partzoo.discovery.cluster``."""

import numpy as np
import pytest
import torch
from helpers.javascript import needs_node, run
from torch.nn.functional import normalize

from partzoo.discovery.cluster import merged_kmeans
from partzoo.discovery.numbering import by_area

pytestmark = needs_node
SETTINGS = {"most": 12, "more": 2, "small": 0.25, "apart": 0.6, "iterations": 50, "tolerance": 3e-4}
SETTINGS["draws"] = torch.rand(24, 3, generator=torch.Generator().manual_seed(0)).tolist()


def clustered(points: torch.Tensor, k) -> np.ndarray:
    call = "mergedKmeans(points.map((each) => Float64Array.from(each)), k, settings).map((each) => [...each])"
    return np.array(run("clustering.js", call, points=points.tolist(), k=k, settings=SETTINGS))


def blobs(count: int, groups: int, spread: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = normalize(torch.randn(groups, 40, generator=generator), dim=1)
    chosen = torch.randint(groups, (count,), generator=generator)
    return means[chosen] + spread * torch.randn(count, 40, generator=generator)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 12, "auto"])
@pytest.mark.parametrize("seed", range(3))
def test_centres_are_those_of_discovery(k, seed):
    points = blobs(150, 9, 0.12, seed)
    expected = merged_kmeans(points, k).centres.numpy()
    found = clustered(points, k)
    assert found.shape == expected.shape
    cosines = found @ expected.T  # the order may differ: parts are numbered later
    assert np.allclose(cosines.max(1), 1, atol=1e-5) and sorted(cosines.argmax(1)) == list(range(len(found)))


def test_fewer_distinct_points_than_clusters_give_fewer_centres():
    points = torch.eye(40)[[0, 0, 1, 1, 1, 2]]
    found = clustered(points, 8)
    assert sorted(found.argmax(1)) == [0, 1, 2] and len(merged_kmeans(points, 8).centres) == 3


def test_a_single_point_is_one_cluster():
    assert np.allclose(clustered(3 * torch.eye(40)[:1], "auto"), np.eye(40)[:1])


def test_parts_are_numbered_as_in_discovery():
    labels = np.random.default_rng(0).integers(0, 5, (9, 11))
    labels[labels == 4] = 0
    labels[0, 0], labels[8, 10] = 6, 5  # equally small; part 4 has no pixels
    order = by_area(labels, 7, start=1)
    expected = np.concatenate([[0], (order - 1).argsort() + 1])[labels]
    found = run("clustering.js", "[...numberedByArea(labels, 6)]", labels=labels.ravel().tolist())
    assert np.array_equal(np.array(found).reshape(labels.shape), expected)
