import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn.functional import normalize

from partzoo.discovery.cluster import assign, merged_kmeans, spherical_kmeans, ward
from partzoo.errors import ShapeError, UsageError


def blobs(k=5, each=40, dim=16, noise=0.05):
    random = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(k, dim, generator=random), dim=1)
    points = centres.repeat_interleave(each, 0)
    return points + noise * torch.randn(points.shape, generator=random), torch.arange(k).repeat_interleave(each)


def same_partition(a, b):
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_separated_groups_are_found():
    points, truth = blobs()
    found = spherical_kmeans(points, 5)
    assert same_partition(found.labels, truth)
    assert torch.allclose(found.centres.norm(dim=1), torch.ones(5))


def test_agrees_with_scikit_learn_on_unit_points():
    cluster = pytest.importorskip("sklearn.cluster")
    points = normalize(blobs(noise=0.6)[0], dim=1)
    ours = spherical_kmeans(points, 5, restarts=16)
    theirs = cluster.KMeans(5, n_init=16, random_state=0).fit(points.numpy())
    centres = normalize(torch.from_numpy(theirs.cluster_centers_), dim=1)
    similarity = (points @ centres.T).max(1).values.mean().item()
    assert ours.similarity >= similarity - 1e-3


def test_a_fixed_point_of_assigning_and_averaging():
    points = normalize(blobs(noise=0.6)[0], dim=1)
    found = spherical_kmeans(points, 4, tolerance=0, iterations=500)
    means = torch.stack([points[found.labels == i].mean(0) for i in range(4)])
    assert torch.allclose(normalize(means, dim=1), found.centres, atol=1e-5)


def test_length_and_scale_of_points_do_not_matter():
    points, _ = blobs()
    scaled = points * torch.arange(1, len(points) + 1)[:, None]
    assert torch.equal(spherical_kmeans(points, 5).labels, spherical_kmeans(scaled, 5).labels)


def test_fewer_distinct_points_give_fewer_clusters():
    points = normalize(torch.eye(3), dim=1).repeat(10, 1)
    found = spherical_kmeans(points, 8)
    assert len(found.centres) == 3
    assert found.similarity == pytest.approx(1)


def test_same_seed_same_clusters():
    points = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    first, second = (spherical_kmeans(points, 6, seed=5) for _ in range(2))
    assert torch.equal(first.centres, second.centres)


def test_assign_takes_the_nearest():
    assert assign(torch.tensor([[2.0, 1], [-1, 5]]), torch.eye(2)).tolist() == [0, 1]


def test_errors_name_the_values():
    with pytest.raises(UsageError, match="k=0"):
        spherical_kmeans(torch.ones(3, 2), 0)
    with pytest.raises(ShapeError, match=r"\(0, 2\)"):
        spherical_kmeans(torch.ones(0, 2), 1)
    with pytest.raises(ShapeError, match="3 channels"):
        assign(torch.ones(4, 3), torch.ones(2, 2))


def test_ward_merges_as_scipy_does():
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    for k in (1, 3, 7, 13):
        found = np.zeros(20, int)
        for number, group in enumerate(ward(points, k)):
            found[group] = number
        expected = hierarchy.fcluster(hierarchy.linkage(points.numpy(), "ward"), k, "maxclust")
        assert adjusted_rand_score(expected, found) == 1
    for k in (20, 30):
        assert sorted(ward(points, k)) == [[point] for point in range(20)]


def test_a_small_group_that_looks_different_keeps_its_cluster():
    random = torch.Generator().manual_seed(0)
    large = torch.tensor([1.0, 0, 0]) + 0.15 * torch.randn(3000, 3, generator=random)
    small = torch.tensor([0.0, 0, 1]) + 0.05 * torch.randn(300, 3, generator=random)
    found = merged_kmeans(torch.cat([large, small]), 2, seed=0)
    assert len(found.centres) == 2 and len(found.labels[3000:].unique()) == 1
    assert (found.labels[:3000] != found.labels[3000]).float().mean() > 0.99


def test_auto_gives_as_many_clusters_as_look_different():
    random = torch.Generator().manual_seed(0)
    for count in (1, 3, 6):
        centres = torch.eye(8)[:count]
        points = (centres[:, None] + 0.1 * torch.randn(count, 200, 8, generator=random)).flatten(0, 1)
        assert len(merged_kmeans(points, "auto").centres) == count
