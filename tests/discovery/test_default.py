"""The results for a user who names no model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import partzoo
from partzoo.discovery.factory import FOREGROUND, blend, default_size, is_foreground_model
from partzoo.discovery.segmentation import (
    at_least_something,
    certainty,
    plausibility,
    separation,
    wholeness,
    without_crumbs,
)
from partzoo.errors import UsageError, WeightsError
from partzoo.features import DEFAULT_MODEL
from partzoo.hub import save_pretrained

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def ibis():
    return np.asarray(Image.open(EXAMPLES / "ibis.jpg").convert("RGB"))


def test_the_bird_is_found_on_its_lawn(ibis):
    parts = partzoo.discover_parts(ibis, 6)
    height, width = parts.size
    middle = parts.labels[height // 3 : height // 2, width // 3 : 2 * width // 3] > 0
    border = np.concatenate([parts.labels[:5].ravel(), parts.labels[-5:].ravel(), parts.labels[:, :5].ravel()])
    assert middle.mean() > 0.6 and not border.any() and 0.05 < (parts.labels > 0).mean() < 0.4
    assert len(parts.present) == 6 and parts.quality > 0.7


def test_a_mirrored_image_keeps_its_numbers(ibis):
    words = partzoo.fit_parts(ibis, 6)
    labels = partzoo.discover_parts(ibis, vocabulary=words).labels
    mirror = partzoo.discover_parts(np.ascontiguousarray(ibis[:, ::-1]), vocabulary=words).labels[:, ::-1]
    found = (labels > 0) | (mirror > 0)
    assert (labels == mirror)[found].mean() > 0.85


def test_quality_is_the_iou_to_expect():
    assert certainty(torch.tensor([[1.0, 1.0], [0.0, 0.0]])) == 1
    assert certainty(torch.tensor([[0.9, 0.7], [0.3, 0.1]])) == pytest.approx(1.6 / 2.4)
    assert certainty(torch.full((3, 3), 0.4)) == 0


def test_a_foreground_is_separate_by_its_scores():
    assert separation(torch.tensor([[1.0, 0.8], [0.4, 0.0]])) == pytest.approx(0.9 - 0.2)
    assert separation(torch.ones(2, 2)) == separation(torch.zeros(2, 2)) == 0


def test_plausibility_is_the_geometric_mean_of_four_shares():
    score = torch.full((10, 12), 0.1)
    score[3:, 3:7] = 0.9  # 28 of 120 cells, four of the forty at the border
    expected, apart, whole = 28 * 0.9 / (28 + 92 * 0.1), 0.8, 36 / 40
    assert plausibility(score) == pytest.approx((expected * apart * whole) ** 0.25)
    assert plausibility(torch.zeros(10, 12)) == 0


def test_a_foreground_in_pieces_or_at_the_border_is_less_whole():
    score = torch.zeros(10, 12)
    score[3:6, 3:7] = 1
    assert wholeness(score) == 1
    score[8, 9:11] = 0.5  # two of fourteen cells in a piece of their own
    assert wholeness(score) == pytest.approx(12 / 14)
    score[8, 9:11] = 0
    score[6:, 3:7] = 1  # four of the forty cells at the border
    assert wholeness(score) == pytest.approx(36 / 40)
    assert wholeness(torch.ones(10, 12)) == 0 and wholeness(torch.zeros(10, 12)) == 0


def test_a_method_without_learned_probabilities_doubts_a_foreground_at_the_border(ibis):
    found = {}
    for name, pixels in (("whole", ibis), ("cut", ibis[40:90, 40:130])):
        found[name] = partzoo.discover_parts(np.ascontiguousarray(pixels), 3, background="boundary").quality
    assert found["whole"] > found["cut"]


def test_python_has_another_word_for_a_models_own_parts_than_the_command_line(ibis):
    with pytest.raises(UsageError, match=r"k='own' must be a whole number, 'auto' or None\."):
        partzoo.discover_parts(ibis, "own")


def test_taking_everything_for_foreground_is_no_doubtful_choice(ibis):
    assert partzoo.discover_parts(ibis, 3, background=None).quality == 1


def test_the_likeliest_region_is_taken_where_nothing_is_likely():
    faint = torch.tensor([[0.30, 0.10], [0.05, 0.20]])
    assert (at_least_something(faint) >= 0.5).tolist() == [[True, False], [False, True]]
    sure = torch.tensor([[0.95, 0.45], [0.55, 0.10]])
    assert (at_least_something(sure) >= 0.5).tolist() == [[True, False], [True, False]]


def test_a_blank_image_has_no_parts_and_no_quality():
    parts = partzoo.discover_parts(np.full((60, 80, 3), 120, np.uint8), 4)
    assert not parts.present and parts.quality == 0


def test_quality_is_kept_in_files(ibis, tmp_path):
    parts = partzoo.discover_parts(ibis, 3)
    parts.save(tmp_path / "ibis.npz")
    assert partzoo.Parts.load(tmp_path / "ibis.npz").quality == pytest.approx(parts.quality)


def test_settings_follow_from_the_encoder():
    lite, toy = partzoo.load(DEFAULT_MODEL), partzoo.load("toy-vit")
    assert blend(lite)[0] == (-2, -1) and blend(toy)[0] == (-1,)
    assert sum(blend(lite)[1]) == pytest.approx(1) and sum(blend(toy)[1]) == pytest.approx(1)
    assert default_size(lite) == 448 and default_size(toy) == 224


def test_a_foreground_model_can_be_named_or_lie_in_a_folder(ibis, tmp_path):
    assert is_foreground_model(FOREGROUND) and not is_foreground_model(DEFAULT_MODEL)
    save_pretrained(partzoo.load(FOREGROUND, dtype="float32"), tmp_path / "mine")
    mine = partzoo.discover_parts(ibis, 3, background=str(tmp_path / "mine"))
    assert (mine.labels == partzoo.discover_parts(ibis, 3).labels).mean() > 0.99
    with pytest.raises(UsageError, match=r"Unknown background 'boundry'.*boundary.*foreground-lite0"):
        partzoo.discover_parts(ibis, 3, background="boundry")


def test_a_vocabulary_of_an_older_version_is_refused_in_one_sentence(tmp_path):
    save_file({"centres": torch.zeros(2, 4)}, tmp_path / "old.safetensors", {"format": "partzoo-vocabulary-1"})
    with pytest.raises(WeightsError, match="vocabulary of an older version of partzoo: fit it again"):
        partzoo.PartVocabulary.load(tmp_path / "old.safetensors")


def test_a_foreground_model_that_was_trained_on_is_read_again(ibis, tmp_path):
    model = partzoo.load(FOREGROUND, dtype="float32")
    save_pretrained(model, tmp_path / "mine")
    before = partzoo.discover_parts(ibis, 2, background=str(tmp_path / "mine"))
    model.heads[0].bias.fill_(-20)
    save_pretrained(model, tmp_path / "mine")
    after = partzoo.discover_parts(ibis, 2, background=str(tmp_path / "mine"))
    assert before.quality > 0.7 and after.quality == 0


def test_pieces_much_smaller_than_the_largest_are_background():
    score = torch.zeros(20, 30)
    score[2:12, 2:12], score[15:18, 20:25], score[0, 29], score[19, 0] = 0.9, 0.8, 0.7, 1.0  # 100, 15, 1 and 1 cells
    expected = torch.zeros(20, 30, dtype=torch.bool)
    expected[2:12, 2:12] = expected[15:18, 20:25] = True
    assert torch.equal(without_crumbs(score) >= 0.5, expected)
    diagonal = torch.eye(12)  # pieces that touch at corners are one
    assert torch.equal(without_crumbs(diagonal) >= 0.5, diagonal > 0)
    assert not (without_crumbs(torch.zeros(4, 4)) >= 0.5).any()
