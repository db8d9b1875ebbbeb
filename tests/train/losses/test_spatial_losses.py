from pathlib import Path

import numpy as np
import pytest
import torch
from parity.synthetic import image, normal, parameter

from partzoo.models.loading import build
from partzoo.models.registry import find
from partzoo.models.spatial.model import RelationModule
from partzoo.models.spatial.pairs import relation_targets, shifted_pairs
from partzoo.train.losses.spatial import relation_loss

CASES = Path(__file__).parents[2] / "parity" / "spatial"


def assert_near(found, expected, tolerance):
    """Compare within a share of the largest value, as the cases state."""
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def published(module, prefix=""):
    drawn = {key: parameter(prefix + key, tuple(value.shape)) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in drawn.items()})
    return module


def sizes(tag):
    return int(tag[1]), int(tag[3]), int(tag[5])


@pytest.mark.parametrize("tag", ["M3K3N2", "M4K4N3", "M2K3N4", "M5K4N2", "M1K3N2"])
def test_pairs_and_targets_are_the_published_ones(tag):
    expected = np.load(CASES / "c_aggregation.npz")
    images, views, patches = sizes(tag)
    pairs = shifted_pairs(images, views, patches, patch_negatives=True)
    assert torch.stack([pairs.first, pairs.second], dim=1).tolist() == expected[f"{tag}_pairs"].tolist()
    positions = torch.from_numpy(
        normal(f"spatial/positions/{images}-{views}-{patches}", (patches * images, 2)).astype(np.float64)
    )
    assert_near(relation_targets(pairs, positions), expected[f"{tag}_targets"], 1e-6)
    of_views = pairs.second < views * images
    negative = int(pairs.different[of_views].sum())
    counts = [int(of_views.sum()), int((~of_views).sum()), int(of_views.sum()) - negative, negative]
    assert counts == expected[f"{tag}_counts"].tolist()


def test_the_paper_s_example_has_192_pairs_of_patches_in_960():
    pairs = shifted_pairs(64, 4, 3)
    assert len(pairs.first) == 960
    assert int((pairs.first >= 4 * 64).sum()) == 192
    assert not pairs.different[pairs.first >= 4 * 64].any()


def test_targets_by_hand():
    pairs = shifted_pairs(2, 2, 2)
    positions = torch.tensor([[0.2, 0.6], [0.0, 0.0], [0.4, 0.1], [0.5, 1.0]])
    assert torch.stack([pairs.first, pairs.second]).tolist() == [[0, 1, 0, 1, 4, 5], [2, 3, 3, 2, 6, 7]]
    expected = [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1], [-0.2, 0.5, 0], [-0.5, -1.0, 0]]
    torch.testing.assert_close(relation_targets(pairs, positions), torch.tensor(expected))


def test_without_patches_there_are_pairs_of_views_alone():
    pairs = shifted_pairs(3, 2, 0)
    assert pairs.different.tolist() == [0, 0, 0, 1, 1, 1]
    assert relation_targets(pairs, torch.zeros(0, 2)).tolist() == 3 * [[0, 0, 0]] + 3 * [[1, 1, 1]]


def test_the_loss_by_hand():
    predicted = torch.tensor([[0.5, 1.0, 0.0], [1.0, 1.0, 0.0]])
    targets = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = relation_loss(predicted, targets)
    assert found["same"].item() == pytest.approx(np.log(2))
    assert found["position"].item() == pytest.approx(1.25 / 4)
    assert found["loss"].item() == pytest.approx(np.log(2) + 2 * 1.25 / 4)


def test_the_focal_loss_by_hand():
    predicted = torch.tensor([[0.0, 0, 0], [0, 0, np.log(3.0)]])
    targets = torch.tensor([[0.0, 0, 1], [0, 0, 0]])
    found = relation_loss(predicted, targets, focus=2.0)["same"].item()
    assert found == pytest.approx((0.5 * 0.5**2 * np.log(2) + 0.5 * 0.75**2 * np.log(4)) / 2)


@pytest.mark.parametrize("tag", ["M4K4N3F64", "M5K3N2F64", "M4K2N2F512"])
@pytest.mark.parametrize("alpha", [1, 2])
def test_the_loss_and_its_gradients_are_the_published_ones(tag, alpha):
    expected = np.load(CASES / "d_loss.npz")
    (images, views, patches), dim = sizes(tag), int(tag[7:])
    features = normal(f"spatial/features/{tag}", ((views + patches) * images, dim))
    features = torch.from_numpy(features).requires_grad_()
    drawn = normal(f"spatial/positions/{tag}", (patches * images, 2)).astype(np.float64)
    positions = torch.from_numpy(1 / (1 + np.exp(-drawn)))
    relation = published(RelationModule(dim), "relation.").train()
    pairs = shifted_pairs(images, views, patches, patch_negatives=True)
    predicted = relation(features[pairs.first], features[pairs.second])
    targets = relation_targets(pairs, positions)
    terms = relation_loss(predicted, targets, alpha)
    found = np.array([terms[name].item() for name in ("loss", "same", "position")])
    assert_near(found, expected[f"{tag}_alpha{alpha}_loss"], 1e-6)
    assert_near(predicted, expected[f"{tag}_prediction"], 1e-5)
    right = ((predicted[:, 2] > 0) == (targets[:, 2] > 0)).float().mean()
    assert 100 * right.item() == pytest.approx(float(expected[f"{tag}_accuracy"]))
    if alpha == 1:
        terms["loss"].backward()
        assert_near(features.grad, expected[f"{tag}_grad_features"], 1e-5)
        assert_near(relation.linear2.weight.grad, expected[f"{tag}_grad:linear2.weight"], 1e-5)


@pytest.mark.parametrize("tag", ["conv4_64_M4K3N2", "resnet8_32_M3K2N3"])
def test_a_training_step_is_the_published_one(tag):
    expected = np.load(CASES / "d2_training_step.npz")
    backbone, side, size = tag.split("_")
    side, (images, views, patches) = int(side), sizes(size)
    entry = find(f"spatial-{backbone}")
    model = build(entry, entry.config).train()
    published(model.backbone)
    published(model.relation, "relation.")
    names = [f"aug{k}" for k in range(views)] + [f"patch{n}" for n in range(patches)]
    x = torch.from_numpy(
        np.concatenate([image(f"spatial/step/{tag}/{name}", (images, 3, side, side)) for name in names])
    )
    drawn = normal(f"spatial/step/{tag}/positions", (patches * images, 2)).astype(np.float64)
    positions = torch.from_numpy(1 / (1 + np.exp(-drawn)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    features = model.features(x)
    pairs = shifted_pairs(images, views, patches, patch_negatives=True)
    predicted = model.relation(features[pairs.first], features[pairs.second])
    loss = relation_loss(predicted, relation_targets(pairs, positions), alpha=1)["loss"]
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert loss.item() == pytest.approx(float(expected[f"{tag}_loss"]), rel=1e-5)
    assert_near(predicted, expected[f"{tag}_prediction"], 2e-5)
    norms = np.array([gradients[name].norm().item() for name in expected[f"{tag}_grad_names"]])
    assert len(norms) == len(gradients)
    assert_near(norms, expected[f"{tag}_grad_norms"], 1e-5)
    optimizer.step()
    for key in expected.files:
        if key.startswith(f"{tag}_grad:"):
            assert_near(gradients[key.partition(":")[2]], expected[key], 1e-3)
        if key.startswith(f"{tag}_after:"):
            assert_near(model.state_dict()[key.partition(":")[2]], expected[key], 1e-5)
