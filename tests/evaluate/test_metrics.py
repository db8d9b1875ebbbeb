import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.metrics import (
    Contingency,
    ForegroundIoU,
    Presence,
    foreground_labels,
    labels_by_class,
    stability,
)

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


@st.composite
def labellings(draw):
    """Draw two labellings of the same points, from independent to equal, and where to cut them into batches."""
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 400))
    n_true, n_pred, alike = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.floats(0, 1))
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_true, n)
    pred = np.where(rng.random(n) < alike, true % n_pred, rng.integers(0, n_pred, n))
    return true, pred, draw(st.lists(st.integers(0, n), max_size=6).map(sorted)), rng.permutation(12)


@given(labellings())
def test_equal_to_scikit_learn_in_one_pass_and_in_many(drawn):
    true, pred, cuts, _ = drawn
    once, streamed, apart = Contingency(12, 12).update(true, pred), Contingency(12, 12), Contingency(12, 12)
    for batch in zip(np.split(true, cuts), np.split(pred, cuts), strict=True):
        streamed.update(*batch)
        apart = apart + Contingency(12, 12).update(*batch)
    for table in (once, streamed, apart):
        assert table.nmi() == pytest.approx(sklearn_metrics.normalized_mutual_info_score(true, pred), abs=1e-9)
        assert table.ari() == pytest.approx(sklearn_metrics.adjusted_rand_score(true, pred), abs=1e-9)


@given(labellings())
def test_renaming_labels_changes_neither_nmi_nor_ari(drawn):
    true, pred, _, names = drawn
    table = Contingency(12, 12).update(true, pred)
    for renamed in ((true, names[pred]), (names[true], pred)):
        other = Contingency(12, 12).update(*renamed)
        assert (other.nmi(), other.ari()) == pytest.approx((table.nmi(), table.ari()), abs=1e-12)


@given(labellings())
def test_kappa_equals_scikit_learn(drawn):
    true, pred, *_ = drawn
    if len({*true, *pred}) > 1:
        expected = sklearn_metrics.cohen_kappa_score(true, pred)
        assert Contingency(12, 12).update(true, pred).kappa() == pytest.approx(expected, abs=1e-9)


def test_kappa_by_hand_and_where_chance_always_agrees():
    # They agree on 3 of 4; by chance on (2 * 3 + 2 * 1) / 16 = 1/2.
    assert Contingency(2, 2).update([0, 0, 1, 1], [0, 0, 0, 1]).kappa() == pytest.approx(0.5)
    assert np.isnan(Contingency(2, 2).update([0, 0], [0, 0]).kappa())
    with pytest.raises(ShapeError, match="2 true and 3"):
        Contingency(2, 3).kappa()


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


def test_as_many_pixels_as_a_data_set_holds_do_not_overflow():
    table = Contingency(2, 2)
    table.counts += np.array([[4, 1], [1, 4]]) * 10**10
    # Shares .4 .1 .1 .4: pairs together are 34, 50 and 50 hundredths of all, by chance a quarter.
    assert table.ari() == pytest.approx((0.34 - 0.25) / (0.50 - 0.25), abs=1e-9)
    assert table.nmi() == pytest.approx(1 + (0.8 * np.log(0.8) + 0.2 * np.log(0.2)) / np.log(2), abs=1e-12)
    assert table.kappa() == pytest.approx((0.8 - 0.5) / (1 - 0.5), abs=1e-12)


def test_masks_without_the_true_background():
    true, pred = np.array([[0, 0, 2], [1, 1, 2]]), np.array([[1, 2, 2], [1, 1, 2]])
    table = Contingency(3, 3).update(true, pred)
    assert table.without(0).counts.tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert (table.without(0).nmi(), table.without(0).ari()) == (1.0, 1.0)
    assert table.counts.sum() == 6
    with pytest.raises(UsageError, match=r"0\.\.2"):
        table.without(3)


def test_tables_of_other_labels_do_not_add_up():
    with pytest.raises(ShapeError, match="add up"):
        Contingency(2, 3) + Contingency(3, 2)


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


def test_each_class_has_parts_of_its_own():
    labels, categories = np.array([[0, 1, 2], [0, 1, 2], [2, 1, 0]]), np.array([0, 1, 3])
    assert labels_by_class(labels, categories, 2).tolist() == [[0, 1, 2], [0, 3, 4], [8, 7, 0]]
    # The published code loses the first part of class 1 to the background.
    assert labels_by_class(labels, categories, 2, collide=True).tolist() == [[0, 1, 2], [0, 0, 4], [8, 7, 0]]


@pytest.mark.parametrize(("labels", "categories"), [([[0], [1]], [0]), ([[0]], [-1]), ([[3]], [0]), ([[0]], [0.5])])
def test_labels_by_class_refuses_what_does_not_fit(labels, categories):
    with pytest.raises(UsageError):
        labels_by_class(labels, categories, 2)


def test_foreground_iou_is_the_mean_over_images():
    true = np.array([[[1, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]])
    pred = np.array([[[0, 2, 3]], [[0, 0, 0]], [[0, 0, 1]]])
    once = ForegroundIoU().update(true, pred)
    assert once.iou() == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert ForegroundIoU().update(true[:1], pred[:1]).update(true[1:], pred[1:]).iou() == once.iou()
    assert np.isnan(ForegroundIoU().iou())
    with pytest.raises(ShapeError):
        ForegroundIoU().update(true, pred[:2])


def test_presence_is_the_share_of_images_with_each_part():
    labels = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 2]], [[0, 0], [0, 0]], [[2, 2], [2, 2]]])
    assert Presence(3).update(labels).shares().tolist() == [0.5, 0.5, 0.0]
    assert Presence(3).update(labels[:1]).update(labels[1:]).shares().tolist() == [0.5, 0.5, 0.0]
    assert np.isnan(Presence(2).shares()).all()
    with pytest.raises(UsageError, match=r"0\.\.1"):
        Presence(1).update(labels)


def test_stability_is_the_mean_over_pairs_of_seeds():
    one = np.array([[[0, 0, 1, 1]], [[0, 0, 1, 1]]])
    renamed, other = 1 - one, np.array([[[0, 0, 0, 1]], [[0, 0, 0, 1]]])
    assert stability([one, renamed], 1) == (1.0, 1.0)
    table = Contingency(2, 2).update(one, other)
    expected = (1 + 2 * table.nmi()) / 3, (1 + 2 * table.ari()) / 3
    assert stability([one, renamed, other], 1) == pytest.approx(expected)


def test_stability_pools_images_of_any_size_read_one_at_a_time():
    maps = np.array([[0, 0, 1, 1]]), np.array([[0, 1], [1, 1]])
    others = np.array([[0, 0, 0, 1]]), np.array([[0, 1], [1, 1]])
    table = Contingency(2, 2)
    for pair in zip(maps, others, strict=True):
        table.update(*pair)
    assert stability([iter(maps), iter(others)], 1) == (table.nmi(), table.ari())


def test_stability_asks_for_two_seeds_and_the_same_images():
    maps = np.zeros((2, 3, 3), dtype=int)
    with pytest.raises(UsageError, match="two seeds"):
        stability([maps], 1)
    with pytest.raises(UsageError, match="end after 1"):
        stability([maps, maps[:1]], 1)
