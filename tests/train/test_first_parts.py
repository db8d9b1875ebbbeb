"""The parts that a part model can start from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

import partzoo
from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.train.first_parts import (
    FirstParts,
    centred,
    clustered,
    discovered,
    first_parts,
    logistic_regression,
    merged,
)

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def scenes(count=6, side=8, seed=0):
    """Images of four parts, one in each quarter, the last in two looks: features, foreground and the parts.

    The first two columns are the background.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = torch.zeros(count, side, side, dtype=torch.int64)
    half, middle = side // 2, 1 + side // 2
    parts[:, :half, 2:middle], parts[:, :half, middle:], parts[:, half:, 2:middle], parts[:, half:, middle:] = (
        1,
        2,
        3,
        4,
    )
    looks = parts.clone()
    looks[::2][parts[::2] == 4] = 5  # every other image shows the last part in another look
    table = torch.eye(6, 12)
    features = 3 * table[looks].permute(0, 3, 1, 2) + 0.1 * torch.randn(count, 12, side, side, generator=generator)
    return features, parts


def agree(found, parts):
    """Whether two labellings are equal but for the numbers of the parts."""
    pairs = set(zip(found.flatten().tolist(), parts.flatten().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_clusters_that_take_turns_become_one_part():
    parts = scenes()[1]
    labels = parts - 1
    labels[::2][parts[::2] == 4] = 4  # a fifth cluster, in place of the fourth
    part, _ = merged(labels, 5, 4)
    assert part[3] == part[4] and len(part.unique()) == 4


def test_neighbours_are_merged_rather_than_parts_that_lie_apart():
    labels = torch.full((3, 16, 16), -1)
    labels[:, 2:6, 2:5], labels[:, 2:6, 5:8], labels[:, 11:15, 11:14] = 0, 1, 2
    part, cost = merged(labels, 3, 2)
    assert part.tolist() == [0, 0, 1]
    assert cost < merged(labels.clamp(max=1), 2, 2)[1]


def test_features_are_clustered_into_parts_without_the_background():
    features, parts = scenes()
    found = clustered([features[:, :6], features[:, 6:]], parts > 0, 4)
    assert (found == 0).equal(parts == 0) and agree(found, parts)


def test_what_a_foreground_has_in_common_is_left_out():
    level = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, 1:3] = True
    shared = level + 0
    shared[0] += 7
    spread = level.std((0, 2, 3), keepdim=True) / shared.std((0, 2, 3), keepdim=True)
    assert torch.allclose(centred(level, inside).norm(dim=1), torch.ones(2, 4, 4), atol=1e-4)
    assert torch.allclose(centred(shared, inside), centred(level * spread, inside), atol=0.2)


def test_the_classifier_finds_the_parts_again():
    features, parts = scenes()
    first = FirstParts.fit(features, parts, 5)
    assert first.labels(features).equal(parts)
    points = torch.tensor([[1.0, 0.2], [-1.0, 0.1]])
    weight = logistic_regression(points.repeat(10, 1), torch.tensor([0, 1]).repeat(10), 2)
    assert (points @ weight.T).argmax(1).tolist() == [0, 1] and weight[0, 0].item() == pytest.approx(
        -weight[1, 0].item(), rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("partformer-patchresnet14", {"compress": "linear", "size": 64, "reconstruction": 32, "tau": 0.5}),
        ("mpae-patchresnet14", {"encoder": "patchresnet14", "levels": (0, 1), "standardize": True, "size": 64}),
    ],
)
def test_a_model_starts_with_the_maps_of_the_classifier(name, config):
    torch.manual_seed(0)
    entry = find(name)
    if name.startswith("partformer"):
        config = config | {"encoder": "patchresnet14"}
    model = build(entry, entry.configure(config | {"parts": 3})).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.encoded(x)
        mean, std = features.mean((0, 2, 3)), features.std((0, 2, 3)) + 0.1
        weight = torch.randn(4, features.shape[1], generator=torch.Generator().manual_seed(2)) / 10
        model.start_with(mean, std, weight)
        logits = torch.einsum("kc,bchw->bkhw", weight, (features - mean[:, None, None]) / std[:, None, None])
        assert torch.allclose(model.part_maps(x), logits.softmax(1), atol=1e-4)
        size = (96, 96)
        fine = interpolate(logits, size, mode="bilinear", align_corners=False).softmax(1)
        assert torch.allclose(model.part_maps(x, size), fine, atol=1e-4)


def test_a_model_that_cannot_start_with_clusters_says_what_it_needs():
    with pytest.raises(UsageError, match="compress='linear'"):
        first_parts(build(find("partformer-resnet18"), find("partformer-resnet18").config), None, "clusters")
    mpae = find("mpae-patchresnet14")
    with pytest.raises(UsageError, match="standardize=True"):
        first_parts(build(mpae, mpae.configure({"encoder": "patchresnet14"})), None, "clusters")


def test_few_images_and_an_absent_foreground_do_not_stop_the_clustering():
    features, parts = scenes(count=2)
    parts[1] = 0
    found = clustered([features], parts > 0, 3)
    assert np.isin(found.unique(), range(4)).all() and not found[1].any()


def test_parts_can_start_as_they_are_discovered():
    names = ("ibis.jpg", "cat.jpg")
    images = [Image.open(IMAGES / name).convert("RGB").resize((256, 256)) for name in names]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    found = discovered(pixels, (16, 16), 3)
    assert found.shape == (2, 16, 16) and set(found.unique().tolist()) == {0, 1, 2, 3}
    wanted = [parts.labels for parts in partzoo.discover_parts(images, 3)]
    sampled = torch.from_numpy(np.stack(wanted)[:, 8::16, 8::16]).long()
    assert (found == sampled).float().mean() > 0.9
