import numpy as np
import pytest
import torch

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.parts.landmark_error import Places, error_scale, landmark_error
from partzoo.evaluate.parts.landmarks import (
    LandmarkRegression,
    active_parts,
    inter_ocular,
    labels_at,
    labels_on_grid,
    normalized_mean_error,
    part_centroids,
    soft_centroids,
)
from partzoo.evaluate.protocols.base import LandmarkError

LABELS = np.array([[[1, 1, 0], [0, 2, 2]]])


def test_label_of_the_nearest_pixel_and_none_outside():
    points = np.array([[[0.4, 0.4], [1.6, 1.4], [-0.5, 0], [-0.6, 0], [2.5, 1], [2, 1.5]]])
    assert labels_at(LABELS, points).tolist() == [[1, 2, 1, -1, -1, -1]]


def test_grid_cells_by_hand_ties_to_even_and_part_one_outside():
    labels = np.arange(10, 26).reshape(1, 4, 4)
    # x / 8 * 4 - 1/2 is -0.5, 0.5, 1.5, 2.5 and 3.5 (outside), in row 10..13.
    points = np.array([[[0, 0], [2, 0], [4, 0], [6, 0], [8, 0], [1, 3], [-0.1, 1]]])
    assert labels_on_grid(labels, points, 8).tolist() == [[10, 10, 12, 12, 1, 14, 1]]


def test_grid_reading_is_that_of_grid_sample():
    rng = np.random.default_rng(0)
    labels, points = rng.integers(0, 9, (3, 16, 16)), rng.uniform(-10, 110, (3, 200, 2))
    sampled = torch.nn.functional.grid_sample(
        torch.eye(9, dtype=torch.float64)[labels].permute(0, 3, 1, 2).roll(-1, 1),
        torch.from_numpy(2 * points / 100 - 1)[:, None],
        mode="nearest",
        align_corners=False,
    )
    assert (labels_on_grid(labels, points, 100) == (sampled[:, :, 0].argmax(1).numpy() + 1) % 9).all()


def test_grids_that_are_not_square_are_refused():
    with pytest.raises(ShapeError, match="square"):
        labels_on_grid(LABELS, np.zeros((1, 5, 2)), 8)


def test_centroids_by_hand_and_nan_where_a_part_is_absent():
    centroids = part_centroids(LABELS, 3)
    assert centroids[0, :2].tolist() == [[0.5, 0.0], [1.5, 1.0]]
    assert np.isnan(centroids[0, 2]).all()


def test_soft_centroids_by_hand_and_nan_where_a_map_is_empty():
    maps = np.zeros((1, 4, 2, 3), dtype=np.float32)
    maps[0, 0] = 1
    maps[0, 1, 0] = [0.25, 0, 0.75]
    maps[0, 2, :, 1] = [0.1, 0.3]
    centroids = soft_centroids(maps)
    assert centroids[0, :2] == pytest.approx(np.array([[1.5, 0.0], [1.0, 0.75]]))
    assert np.isnan(centroids[0, 2]).all()
    assert active_parts(maps, 0.5).tolist() == [[True, False, False]]
    with pytest.raises(ShapeError, match="background first"):
        soft_centroids(maps[0])


def test_soft_centroids_of_one_hot_maps_are_the_hard_ones():
    labels = np.random.default_rng(0).integers(0, 5, (3, 8, 6))
    assert np.allclose(soft_centroids(np.moveaxis(np.eye(5)[labels], 3, 1)), part_centroids(labels, 4))


def test_labels_beyond_k_are_refused():
    with pytest.raises(UsageError, match=r"0\.\.1"):
        part_centroids(LABELS, 1)


def test_perfect_centroids_give_no_error():
    landmarks = np.random.default_rng(0).uniform(0, 160, (50, 5, 2))
    regression = LandmarkRegression(landmarks[:30], landmarks[:30])
    predicted = regression.predict(landmarks[30:])
    assert normalized_mean_error(predicted, landmarks[30:], inter_ocular(landmarks[30:])) < 1e-9


def test_any_affine_image_of_the_landmarks_is_perfect_too():
    rng = np.random.default_rng(1)
    landmarks = rng.uniform(0, 160, (60, 5, 2))
    centroids = landmarks @ rng.normal(size=(2, 2)) + rng.normal(size=2)
    predicted = LandmarkRegression(centroids[:40], landmarks[:40]).predict(centroids[40:])
    assert np.abs(predicted - landmarks[40:]).max() < 1e-6


def test_an_absent_part_counts_as_its_mean_over_the_fitting_split():
    landmarks = np.random.default_rng(2).uniform(0, 160, (40, 5, 2))
    centroids = landmarks.copy()
    regression = LandmarkRegression(centroids[:30], landmarks[:30])
    absent, filled = centroids[30:].copy(), centroids[30:].copy()
    absent[:, 3], filled[:, 3] = np.nan, centroids[:30, 3].mean(0)
    assert np.allclose(regression.predict(absent), regression.predict(filled), atol=1e-9)
    holes = centroids[:30].copy()
    holes[::3, 1] = np.nan
    patched = np.where(np.isnan(holes), np.nanmean(holes, axis=0), holes)
    assert np.allclose(
        LandmarkRegression(holes, landmarks[:30]).predict(filled),
        LandmarkRegression(patched, landmarks[:30]).predict(filled),
        atol=1e-9,
    )


def test_a_part_that_no_fitting_image_shows_is_ignored():
    landmarks = np.random.default_rng(3).uniform(0, 160, (20, 2, 2))
    centroids = np.concatenate([landmarks, np.full((20, 1, 2), np.nan)], axis=1)
    regression = LandmarkRegression(centroids, landmarks)
    centroids[:, 2] = 77
    assert np.allclose(regression.predict(centroids), landmarks)


def test_no_parts_at_all_predict_the_mean_landmarks():
    landmarks = np.array([[[0.0, 0.0], [10.0, 0.0]], [[2.0, 0.0], [12.0, 0.0]]])
    predicted = LandmarkRegression(np.full((2, 1, 2), np.nan), landmarks).predict(np.full((2, 1, 2), np.nan))
    assert predicted[0].tolist() == [[1.0, 0.0], [11.0, 0.0]]
    assert normalized_mean_error(predicted, landmarks, inter_ocular(landmarks)) == pytest.approx(10.0)


@pytest.mark.parametrize("standardize", [False, True])
def test_invisible_landmarks_neither_fit_nor_count(standardize):
    rng = np.random.default_rng(4)
    landmarks, visible = rng.uniform(0, 160, (90, 5, 2)), rng.random((90, 5)) > 0.3
    centroids = landmarks @ rng.normal(size=(2, 2)) + 7
    spoiled = np.where(visible[..., None], landmarks, 1e6)
    regression = LandmarkRegression(centroids[:60], spoiled[:60], visible[:60], standardize=standardize)
    predicted = regression.predict(centroids[60:])
    assert np.abs(predicted - landmarks[60:]).max() < 1e-6
    assert normalized_mean_error(predicted, spoiled[60:], np.full(30, 100.0), visible[60:]) < 1e-6


def test_inactive_parts_by_hand():
    centroids = np.array([[[0.0, 0.0]], [[2.0, 0.0]], [[4.0, 0.0]]])
    landmarks = np.array([[[0.0, 0.0]], [[2.0, 0.0]], [[10.0, 0.0]]])
    active, asked = np.array([[True], [True], [False]]), np.array([[[0.0, 0.0]], [[4.0, 0.0]], [[99.0, 0.0]]])
    # Absent: the part's mean is 1, so -1, 1, 0 -> -4, -2, 6 about the landmark's mean of 4: slope 1.
    absent = LandmarkRegression(centroids, landmarks, active=active)
    assert absent.predict(asked, active)[:, 0, 0] == pytest.approx([3, 7, 4])
    # As published: the mean is 2, of the inactive one too, so -2, 0, 0 -> -4, -2, 6: slope 2.
    published = LandmarkRegression(centroids, landmarks, active=active, standardize=True)
    assert published.predict(asked, active)[:, 0, 0] == pytest.approx([0, 8, 4])


def test_standardizing_changes_nothing_where_no_part_is_inactive():
    rng = np.random.default_rng(5)
    centroids, landmarks, visible = rng.normal(size=(80, 3, 2)), rng.normal(size=(80, 4, 2)), rng.random((80, 4)) > 0.2
    centroids[::7, 1] = np.nan
    one, other = (LandmarkRegression(centroids, landmarks, visible, standardize=s) for s in (False, True))
    assert np.allclose(one.predict(centroids), other.predict(centroids), atol=1e-9)


@pytest.mark.parametrize(("standardize", "expected"), [(False, 0.4), (True, 2.0)])
def test_parts_that_move_together_share_by_hand(standardize, expected):
    # The second goes three times as far: weights (0.4, 1.2) are least in pixels, equal ones in deviations.
    centroids = np.array([[[x, 0.0], [3 * x, 0.0]] for x in (-1, 0, 1)])
    regression = LandmarkRegression(centroids, 4 * centroids[:, :1], standardize=standardize)
    assert regression.predict([[[1.0, 0.0], [0.0, 0.0]]]).ravel() == pytest.approx([expected, 0])


@pytest.mark.parametrize("standardize", [False, True])
def test_the_rounding_of_a_part_that_never_moves_is_not_fitted(standardize):
    landmarks, still = np.random.default_rng(6).normal(size=(9, 1, 2)), np.full((9, 1, 2), 0.1)
    still[::2] = np.nextafter(0.1, 1)
    predicted = LandmarkRegression(still, landmarks, standardize=standardize).predict(still)
    assert np.allclose(predicted, landmarks.mean(0), atol=1e-6)


def test_a_landmark_that_no_fitting_image_shows_is_refused():
    visible = np.array([[True, False], [True, False]])
    with pytest.raises(UsageError, match="Landmark 1 is visible in none of the 2"):
        LandmarkRegression(np.zeros((2, 1, 2)), np.zeros((2, 2, 2)), visible)


def test_normalized_mean_error_by_hand():
    landmarks = np.array([[[0.0, 0.0], [4.0, 3.0]], [[0.0, 0.0], [10.0, 0.0]]])
    predicted = landmarks + np.array([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    assert inter_ocular(landmarks).tolist() == [5.0, 10.0]
    assert normalized_mean_error(predicted, landmarks, inter_ocular(landmarks)) == pytest.approx(35.0)


def test_x_over_width_and_y_over_height_at_visible_landmarks_by_hand():
    landmarks = np.zeros((2, 2, 2))
    predicted = np.array([[[3.0, 8.0], [9.0, 9.0]], [[0.0, 2.0], [5.0, 0.0]]])
    visible = np.array([[True, False], [True, True]])
    # (3 / 100, 8 / 200) is 0.05, (0, 2 / 10) is 0.2 and (5 / 50, 0) is 0.1.
    error = normalized_mean_error(predicted, landmarks, np.array([[100.0, 200.0], [50.0, 10.0]]), visible)
    assert error == pytest.approx(100 * (0.05 + 0.2 + 0.1) / 3)


@pytest.mark.parametrize(("scale", "visible"), [([0.0], [[True]]), ([1.0], [[False]])])
def test_errors_over_nothing_are_refused(scale, visible):
    with pytest.raises(UsageError, match="above 0"):
        normalized_mean_error(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), scale, visible)


def test_lengths_of_the_protocols_by_hand():
    places = Places(
        np.zeros((1, 1, 2)), np.array([[[1.0, 1.0], [4.0, 5.0]]]), boxes=np.array([[10.0, 20.0, 30.0, 40.0]])
    )
    assert error_scale("inter-ocular", places, 128).tolist() == [5]
    assert error_scale("box", places, 128).tolist() == [[30, 40]]
    assert error_scale("diagonal", places, 128).tolist() == [50]
    assert error_scale("edge", places, 128).tolist() == [128]
    with pytest.raises(UsageError, match="inter-ocular"):
        error_scale("eyes", places, 128)


def test_boxes_normalize_before_the_regression():
    nowhere = np.full((1, 1, 2), np.nan)
    fit = Places(nowhere, np.array([[[50.0, 50.0]]]), boxes=np.array([[0.0, 0.0, 100.0, 100.0]]))
    report = Places(nowhere, np.array([[[63.0, 47.0]]]), boxes=np.array([[10.0, 20.0, 100.0, 50.0]]))
    # The middle of the box is (60, 45): off by (3 / 100, 2 / 50), a twentieth of the box.
    assert np.nanmean(landmark_error(LandmarkError("box"), fit, report, 128)) == pytest.approx(5)
    # Over the frame's edge it is the distance between the points themselves.
    errors = landmark_error(LandmarkError("edge"), fit, report, 128)
    assert errors == pytest.approx(np.full((1, 1), 100 * np.hypot(13, 3) / 128))


def test_boxes_that_are_missing_are_named():
    places = Places(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)))
    with pytest.raises(UsageError, match="boxes"):
        landmark_error(LandmarkError("diagonal"), places, places, 128)


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ShapeError):
        labels_at(LABELS, np.zeros((2, 5, 2)))
    with pytest.raises(ShapeError):
        LandmarkRegression(np.zeros((3, 4, 2)), np.zeros((2, 5, 2)))
    with pytest.raises(ShapeError):
        LandmarkRegression(np.zeros((3, 4, 2)), np.zeros((3, 5, 2))).predict(np.zeros((3, 5, 2)))
