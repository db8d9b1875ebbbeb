import numpy as np
import pytest

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.landmarks import (
    LandmarkRegression,
    inter_ocular,
    labels_at,
    normalized_mean_error,
    part_centroids,
)

LABELS = np.array([[[1, 1, 0], [0, 2, 2]]])


def test_label_of_the_nearest_pixel_and_none_outside():
    points = np.array([[[0.4, 0.4], [1.6, 1.4], [-0.5, 0], [-0.6, 0], [2.5, 1], [2, 1.5]]])
    assert labels_at(LABELS, points).tolist() == [[1, 2, 1, -1, -1, -1]]


def test_centroids_by_hand_and_nan_where_a_part_is_absent():
    centroids = part_centroids(LABELS, 3)
    assert centroids[0, :2].tolist() == [[0.5, 0.0], [1.5, 1.0]]
    assert np.isnan(centroids[0, 2]).all()


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


def test_a_part_that_no_fitting_picture_shows_is_ignored():
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


def test_normalized_mean_error_by_hand():
    landmarks = np.array([[[0.0, 0.0], [4.0, 3.0]], [[0.0, 0.0], [10.0, 0.0]]])
    predicted = landmarks + np.array([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    assert inter_ocular(landmarks).tolist() == [5.0, 10.0]
    assert normalized_mean_error(predicted, landmarks, inter_ocular(landmarks)) == pytest.approx(35.0)


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ShapeError):
        labels_at(LABELS, np.zeros((2, 5, 2)))
    with pytest.raises(ShapeError):
        LandmarkRegression(np.zeros((3, 4, 2)), np.zeros((2, 5, 2)))
    with pytest.raises(ShapeError):
        LandmarkRegression(np.zeros((3, 4, 2)), np.zeros((3, 5, 2))).predict(np.zeros((3, 5, 2)))
