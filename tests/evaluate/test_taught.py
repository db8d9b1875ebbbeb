"""Protocols that teach parts, on drawn images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.errors import UsageError
from partzoo.evaluate import protocols
from partzoo.evaluate.protocols.taught import TAUGHT_CELEBAMASK, TAUGHT_CLOTHING
from partzoo.evaluate.run import evaluate
from partzoo.evaluate.taught import mean_iou, plain_regression

COLOURS = np.array([(60, 120, 70), (220, 60, 40), (240, 220, 90)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten images of a two-coloured box, as the set ``cars``."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "cars" / kind).mkdir(parents=True)
    for number in range(10):
        labels = np.zeros((60, 80), np.uint8)
        top, left = random.integers(12, 24), random.integers(16, 30)
        labels[top : top + 24, left : left + 16], labels[top : top + 24, left + 16 : left + 32] = 1, 2
        pixels = (COLOURS[labels] + random.integers(-6, 7, (60, 80, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "cars" / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "cars" / "masks" / f"{number}.png")
    return root


def test_taught_parts_are_measured_beside_a_plain_regression(data, tmp_path):
    record = evaluate("toy-vit", "taught-cars", data, seeds=2, out=tmp_path / "record.json")
    assert record["images"] == 2 and [run["seed"] for run in record["runs"]] == [0, 1]
    assert record["command"] == "partzoo eval toy-vit --protocol taught-cars --data DIR --seeds 2"
    for run in record["runs"]:
        metrics = run["metrics"]
        assert set(metrics) == {f"{floor}{figure}_{count}" for floor in ("", "regression_") for figure in
                                ("iou", "accuracy") for count in (1, 5)}  # fmt: skip
        assert metrics["iou_5"] > 85 and metrics["regression_iou_5"] > 60 and metrics["accuracy_5"] > 95
    assert json.loads((tmp_path / "record.json").read_text()) == record


@pytest.mark.parametrize(("option", "message"), [({"k": [4]}, "k cannot be set"), ({"rotate": 5.0}, "cannot be")])
def test_taught_protocols_have_no_number_of_parts_and_no_rotation(data, option, message):
    with pytest.raises(UsageError, match=message):
        evaluate("toy-vit", "taught-cars", data, **option)


def test_the_iou_counts_frequent_labels_alone():
    counts = np.array([[500, 0, 0], [100, 400, 0], [1, 0, 1]])
    assert mean_iou(counts) == pytest.approx((500 / 601 + 400 / 500) / 2)


def test_the_regression_separates_what_is_separable():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    rows = plain_regression([(x[:150], y[:150], torch.ones(150)), (x[150:], y[150:], torch.ones(150))], 5)
    found = torch.cat([x, torch.ones(300, 1)], 1) @ rows.T
    assert (found.argmax(1) == y).float().mean() > 0.95


def test_garments_are_joined_to_seven_kinds():
    mask = np.array([[0, 19, 41, 13, 25, 39, 2, 20]], np.uint8)  # hair, skin, coat, jeans, shoes, bag, hat
    assert TAUGHT_CLOTHING.labels_of(mask).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert TAUGHT_CELEBAMASK.labels_of(mask) is mask and len(TAUGHT_CELEBAMASK.labels) == 18
    assert protocols.get("taught-cars").labels[17] == "wheel"
