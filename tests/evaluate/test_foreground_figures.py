import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from partzoo.data.masks import MaskedImage
from partzoo.evaluate.foreground import THRESHOLDS, ForegroundTally, boundary_f, box_scorer, f_measure, precision_recall


def example(mask):
    return MaskedImage("one", np.zeros((*mask.shape, 3), np.uint8), mask)


def test_figures_of_a_hand_drawn_mask():
    mask = np.zeros((4, 10), np.uint8)
    mask[:, :5] = 1
    score = np.where(np.arange(10) < 6, 0.75, 0.0) * np.ones((4, 1))
    tally = ForegroundTally()
    tally.update(example(mask), score, 0.9)
    found = tally.figures()
    assert found["accuracy"] == pytest.approx(90) and found["iou"] == pytest.approx(100 * 5 / 6)
    assert found["mae"] == pytest.approx(100 * (5 * 0.25 + 0.75) / 10)
    precision, recall = 5 / 6, 1.0
    assert found["max_f"] == pytest.approx(100 * 1.3 * precision * recall / (0.3 * precision + recall))
    assert found["failures"] == 0 and "failure_auroc" not in found


def test_the_curve_is_the_f_of_every_threshold():
    rng = np.random.default_rng(0)
    true, score = rng.random((20, 30)) < 0.3, rng.random((20, 30))
    curve = f_measure(*precision_recall(true, score))
    for i in (0, 60, 128, 200):
        f = precision_recall_fscore_support(
            true.ravel(), score.ravel() >= THRESHOLDS[i], beta=0.3**0.5, average="binary", zero_division=0
        )[2]
        assert curve[i] == pytest.approx(f)
    assert f_measure(*precision_recall(np.zeros((3, 3), bool), np.zeros((3, 3)))).max() == 0


def test_low_quality_foretells_failures():
    good, bad = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    good[:4], bad[4:] = 1, 1
    tally = ForegroundTally()
    for mask, quality in ((good, 0.9), (good, 0.8), (bad, 0.3)):
        tally.update(example(mask), (good > 0).astype(float), quality)
    assert tally.figures()["failures"] == pytest.approx(100 / 3)
    assert tally.figures()["failure_auroc"] == pytest.approx(100)


def test_outlines_within_the_tolerance_agree():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    assert boundary_f(mask, mask) == 1
    assert boundary_f(mask, np.roll(mask, 1, 0)) == 1
    assert boundary_f(mask, np.roll(mask, 10, 0)) < 0.8
    assert boundary_f(mask, np.zeros_like(mask)) == 0
    assert boundary_f(np.zeros_like(mask), np.zeros_like(mask)) == 1


def test_the_box_is_two_thirds_of_each_side():
    score, _ = box_scorer(np.zeros((30, 60, 3), np.uint8))
    assert score.sum() == 20 * 40 and score[5:25, 10:50].all()


def test_three_kinds_of_maximal_f():
    """For two images with different best thresholds, two thresholds are better than one."""
    true = np.zeros((10, 10), bool)
    true[:5] = True
    tally = ForegroundTally()
    for inside, outside in ((0.9, 0.6), (0.5, 0.1)):
        tally.update(
            MaskedImage("x", np.zeros((10, 10, 3), np.uint8), true.astype(np.uint8)),
            np.where(true, inside, outside),
            1.0,
        )
    found = tally.figures()
    assert found["max_f_each"] == found["max_f_selfmask"] == pytest.approx(100)
    half = 1.3 * 0.5 / (0.3 * 0.5 + 1)  # the other image's F: everything is found, or nothing
    assert found["max_f"] == pytest.approx(100 * (1 + half) / 2)
