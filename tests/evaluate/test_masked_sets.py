"""Protocols over sets with masks and label maps, on drawn images."""

import json

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.discovery.factory import make_finder
from partzoo.errors import UsageError
from partzoo.evaluate.foreground import finder_scorer
from partzoo.evaluate.foreground_measurement import model_scorer
from partzoo.evaluate.run import evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten images of a two-coloured box before a plain ground, as ``horses`` (a mask) and ``cars`` (two labels)."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = np.full((60, 80, 3), (60, 120, 70), np.uint8)
        label = np.zeros((60, 80), np.uint8)
        top, left = rng.integers(12, 24), rng.integers(16, 30)
        for number, colour in ((1, (220, 60, 40)), (2, (240, 220, 90))):
            columns = slice(left + 14 * (number - 1), left + 14 * number)
            pixels[top : top + 24, columns], label[top : top + 24, columns] = colour, number
        pixels = (pixels + rng.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)
        for name, mask in (("horses", (label > 0).astype(np.uint8)), ("cars", label)):
            for kind, values in (("images", pixels), ("masks", mask)):
                (root / "masks" / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(root / "masks" / name / kind / f"{i}.png")
    return root


def test_a_foreground_is_measured_beside_its_floor(data):
    found = {}
    for model, background in (("toy-vit", "boundary"), ("centred-box", "auto")):
        record = evaluate(model, "horses", data, background=background)
        assert record["images"] == 2 and record["split"] == "report"
        found[model] = record["runs"][0]["metrics"]
    assert found["toy-vit"]["iou"] > 90 > found["centred-box"]["iou"]
    assert found["toy-vit"]["max_f"] > 90 and found["toy-vit"]["mae"] < 20
    assert evaluate("toy-vit", "horses", data, background="boundary", split="train")["images"] == 6


def test_a_foreground_model_is_measured_by_its_name(data):
    record = evaluate("foreground-lite0.masks", "horses", data, limit=1)
    assert record["images"] == 1 and len(record["weights_sha256"]) == 64
    assert record["command"].startswith("partzoo eval foreground-lite0.masks --protocol horses")


@pytest.mark.parametrize("refine", [True, False])
def test_a_foreground_model_alone_finds_what_it_finds_beside_an_encoder(refine):
    network = partzoo.load("foreground-lite0.masks", device="cpu")
    finder = make_finder(background=network, refine=refine)
    rng = np.random.default_rng(1)
    for size in ((90, 120), (64, 301)):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels[20:60, 10:50] = (250, 30, 40)
        (score, quality), (other, its) = (
            scorer(pixels) for scorer in (model_scorer(network, refine=refine), finder_scorer(finder))
        )
        assert quality == its and np.array_equal(score, other)


def test_parts_are_measured_against_label_maps(data):
    record = evaluate("colour-position", "cars", data, k=[2], seeds=1, background="boundary")
    figures = record["runs"][0]["metrics"]
    assert figures["labelled_nmi"] > 80 and figures["foreground_iou"] > 90
    assert 0 <= figures["mirrored"] <= 100 and {"fg_nmi", "nmi", "labelled_ari"} <= set(figures)


def test_a_floor_can_stand_inside_a_foreground_model_s_foreground(data):
    record = evaluate("colour-position", "cars", data, k=[2], seeds=1, limit=1, background="foreground-lite0.masks")
    assert record["setting"] == "background=foreground-lite0.masks" and record["runs"][0]["metrics"]["presence"] > 0


def test_a_set_that_is_not_there_is_named(data):
    with pytest.raises(UsageError, match=r"neither ecssd\.tar nor ecssd/"):
        evaluate("centred-box", "ecssd", data)


def test_a_record_of_parts_names_the_foreground_model_s_weights_too(data, tmp_path):
    """A retrained foreground model changes the parts of the same encoder, which an existing record must not hide."""
    asked = {"k": [2], "seeds": 1, "limit": 1, "out": tmp_path / "r.json"}
    with_model = evaluate("toy-vit", "cars", data, background="foreground-lite0.masks", **asked)
    assert len(with_model["foreground_sha256"]) == 64
    assert "foreground_sha256" not in evaluate("toy-vit", "cars", data, background="boundary", k=[2], seeds=1, limit=1)
    stale = json.loads(asked["out"].read_text()) | {"foreground_sha256": "0" * 64}
    asked["out"].write_text(json.dumps(stale))
    with pytest.raises(UsageError, match="foreground_sha256 was '0000"):
        evaluate("toy-vit", "cars", data, background="foreground-lite0.masks", **asked)


def test_a_record_of_an_encoder_s_foreground_names_the_foreground_model_s_weights(data):
    record = evaluate("toy-vit", "horses", data, background="foreground-lite0.masks", limit=1)
    alone = evaluate("foreground-lite0.masks", "horses", data, limit=1)
    assert record["foreground_sha256"] == alone["weights_sha256"] and "foreground_sha256" not in alone
