import numpy as np
import pytest

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.metrics import Contingency, foreground_labels

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def test_hand_computed_case():
    table = Contingency(2, 2).update([0, 0, 1, 1], [0, 0, 0, 1])
    assert table.counts.tolist() == [[2, 0], [1, 1]]
    information = 0.5 * np.log(4 / 3) + 0.25 * np.log(2 / 3) + 0.25 * np.log(2)
    entropies = np.log(2), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert table.nmi() == pytest.approx(information / np.mean(entropies), abs=1e-12)
    # Of 6 pairs one is together in both, two in the truth, three in the prediction: expected 2 * 3 / 6 = 1.
    assert table.ari() == pytest.approx(0.0, abs=1e-12)


def test_three_against_two_by_hand():
    # Together in both: 1 pair of 6; in the truth 2, in the prediction 1; expected 1/3, at most 3/2.
    table = Contingency(2, 3).update([0, 0, 1, 1], [0, 0, 1, 2])
    assert table.ari() == pytest.approx((1 - 1 / 3) / (3 / 2 - 1 / 3), abs=1e-12)
    assert table.nmi() == pytest.approx(np.log(2) / np.mean([np.log(2), 1.5 * np.log(2)]), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_scikit_learn_in_one_pass_and_in_many(seed):
    rng = np.random.default_rng(seed)
    n, n_true, n_pred = int(rng.integers(1, 400)), int(rng.integers(1, 12)), int(rng.integers(1, 12))
    true = rng.integers(0, n_true, n)
    pred = np.where(rng.random(n) < rng.random(), true % n_pred, rng.integers(0, n_pred, n))
    once, streamed = Contingency(n_true, n_pred).update(true, pred), Contingency(n_true, n_pred)
    for batch in np.array_split(np.arange(n), rng.integers(1, 7)):
        streamed.update(true[batch], pred[batch])
    assert (once.counts == streamed.counts).all()
    assert once.nmi() == pytest.approx(sklearn_metrics.normalized_mutual_info_score(true, pred), abs=1e-9)
    assert once.ari() == pytest.approx(sklearn_metrics.adjusted_rand_score(true, pred), abs=1e-9)


@pytest.mark.parametrize(
    ("true", "pred"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 1, 2]),
        ([0], [0]),
        ([0, 1, 2], [0, 0, 0]),
        ([0, 1, 2], [2, 0, 1]),
    ],
)
def test_degenerate_labellings_as_scikit_learn(true, pred):
    table = Contingency(3, 3).update(true, pred)
    assert table.nmi() == pytest.approx(sklearn_metrics.normalized_mutual_info_score(true, pred), abs=1e-9)
    assert table.ari() == pytest.approx(sklearn_metrics.adjusted_rand_score(true, pred), abs=1e-9)


def test_renaming_the_parts_changes_nothing():
    rng = np.random.default_rng(0)
    true, pred, names = rng.integers(0, 5, (7, 9)), rng.integers(0, 6, (7, 9)), rng.permutation(6)
    table, renamed = Contingency(5, 6).update(true, pred), Contingency(5, 6).update(true, names[pred])
    assert table.nmi() == pytest.approx(renamed.nmi(), abs=1e-12)
    assert table.ari() == pytest.approx(renamed.ari(), abs=1e-12)


def test_as_many_pixels_as_a_data_set_holds_do_not_overflow():
    table = Contingency(2, 2)
    table.counts += np.array([[4, 1], [1, 4]]) * 10**10
    small = Contingency(2, 2)
    small.counts += np.array([[4, 1], [1, 4]]) * 10**6
    assert table.ari() == pytest.approx(small.ari(), abs=1e-5)


def test_foreground_labels_leave_the_background_out():
    scores = np.array([[9.0, 9.0, 9.0], [1.0, 2.0, 3.0], [2.0, 2.0, 1.0]])
    assert foreground_labels(scores).tolist() == [2, 1, 1]
    assert foreground_labels(scores.T[None], axis=2).tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(
    ("true", "pred", "error"),
    [
        ([0, 1], [0], ShapeError),
        ([0, 3], [0, 0], UsageError),
        ([0, 1], [0, -1], UsageError),
        ([0, 1], [0, 0.5], UsageError),
    ],
)
def test_labels_that_do_not_fit_are_refused(true, pred, error):
    with pytest.raises(error):
        Contingency(2, 2).update(true, pred)
