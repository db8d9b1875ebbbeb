"""Every released weight has a reproduction card, with our figures from the results and the manifest only."""

import dataclasses

import pytest
from helpers.weight_records import record_of, toy

from partzoo.errors import UsageError
from partzoo.evaluate.report import Row
from partzoo.evaluate.reproduction import cards, faces, notes
from partzoo.weights.manifest import WeightFile, manifest

COMMAND = "partzoo eval toy-vit.test --protocol tiny-imagenet --data DIR"
CARD = {"paper": "Toys, table 2", "setup": "ten epochs", "why": "Fewer\nepochs."}


@pytest.fixture
def record():
    return record_of(toy(), (WeightFile("weights/toy-vit.test.safetensors", "0" * 64, 1),))


def result(metric: str, mean: float, model: str = "toy-vit.test", k: int | None = None) -> Row:
    return Row(model, "default", k, metric, mean, 0.25, None, None, 3, 100, COMMAND)


def written(record, rows: list[Row], *figures: dict) -> str:
    return cards({record.name: record}, lambda _: rows, {"weights": {record.name: CARD | {"figures": figures}}})


def test_every_card_has_a_weight():
    assert set(notes()["weights"]) <= set(manifest())


def test_every_figure_that_a_card_takes_from_the_manifest_is_there():
    for name, card in notes()["weights"].items():
        recorded = {metric["name"] for metric in manifest()[name].metrics}
        assert {each["metric"] for each in card["figures"] if each["from"] == "manifest"} <= recorded


def test_a_card_has_paper_ours_gap_floor_reason_and_commands(record):
    rows = [result("mse_x", 8.027), result("constant_mse_x", 8.03)]
    text = written(record, rows, {"from": "tiny-imagenet", "metric": "mse_x", "paper": 1.14})
    assert "| MSE x, tiny-imagenet | 1.14 | 8.03 ± 0.25 | +6.89 | 8.03 (constant) |" in text
    for words in (
        "### `toy-vit.test`",
        "- The paper's figures are from Toys, table 2, for this setting: ten epochs.",
        "Fewer epochs.",
        COMMAND,
        record.command,
    ):
        assert words in text


def test_without_a_paper_there_is_no_gap(record):
    rows = [result("nme", 30.0, k=8), result("nme", 48.0, "random-weights", k=8), result("nme", 1.0, k=4)]
    text = written(record, rows, {"from": "faces68", "metric": "nme", "k": 8})
    assert "| figure | ours | floor |" in text
    assert "| NME, faces68, K = 8 | 30.0 ± 0.2 | 48.0 (random-weights) |" in text


def test_a_weight_without_a_card_shows_its_own_figures(record):
    found = {"knn": 24.0, "knn_random_weights": 3.5, "constant_distance": 3.6}
    metrics = tuple({"name": name, "value": value, "protocol": "20 images", "command": COMMAND}
                    for name, value in found.items())  # fmt: skip
    text = cards({record.name: dataclasses.replace(record, metrics=metrics)}, lambda _: [], {"weights": {}})
    assert "- No paper reports this model." in text and f"```bash\n{record.command}\n{COMMAND}\n```" in text
    assert "| kNN: 20 images | 24 | 3.5 |" in text and "constant" not in text


def test_a_card_without_a_weight_is_an_error():
    with pytest.raises(UsageError, match=r"gone\.tin has a card and is not released"):
        cards({}, lambda _: [], {"weights": {"gone.tin": CARD}})


def test_a_figure_that_was_not_measured_names_the_command(record):
    with pytest.raises(UsageError, match=r"no nmi5 at K = 8 of toy-vit\.test.*partzoo eval --all --protocol faces68"):
        written(record, [result("nmi5", 1.0, k=4)], {"from": "faces68", "metric": "nmi5", "k": 8})


def test_a_figure_that_the_manifest_lacks_is_an_error(record):
    record = dataclasses.replace(record, metrics=())
    with pytest.raises(UsageError, match="manifest has no top1"):
        written(record, [], {"from": "manifest", "metric": "top1"})


def test_faces_of_papers_stand_beside_ours_at_the_same_k():
    rows = [result(metric, 20.0 + k, name, k) for k in (4, 8) for metric in ("nmi5", "ari5", "nme")
            for name in ("toy-vit.test", "colour-position")]  # fmt: skip
    text = faces(lambda _: rows, notes())
    assert "| PartFormer, from scratch | AFLW | 54.40 | 40.99 | 11.83 | PartFormer, table 2 |" in text
    assert "| `toy-vit.test` | faces68 | 28.0 ± 0.2 | 28.0 ± 0.2 | 28.0 ± 0.2 |" in text
    assert "floor: `colour-position`" in text and "24.0" not in text
