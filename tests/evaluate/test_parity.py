"""Comparison with the published code's figures, on synthetic maps and points (see tests/parity/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity.synthetic import image, normal

from partzoo.evaluate.metrics import Contingency, foreground_labels, labels_by_class
from partzoo.evaluate.parts.landmark_error import Places, landmark_error
from partzoo.evaluate.parts.landmarks import active_parts, labels_on_grid, soft_centroids
from partzoo.evaluate.protocols.base import LandmarkError

CASES = Path(__file__).parent.parent / "parity"
CELEBA = LandmarkError("inter-ocular", centroids="soft", standardize=True)
CUB = LandmarkError("box", centroids="soft", standardize=True, active=0.5)


def logistic(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def background_first(maps):
    return np.roll(maps, 1, axis=1)


def mpae_maps(name, shape):
    return background_first(image(f"mpae/{name}/maps", shape))


def partformer_maps(name, images):
    small = 3 * torch.from_numpy(normal(f"partformer/eval/{name}", (images, 5, 8, 8)))
    maps = torch.nn.functional.interpolate(small, size=(128, 128), mode="bilinear", align_corners=False)
    return background_first(maps.softmax(1).numpy())


def partformer_landmarks(name, images, count, spread):
    return np.clip(128 + spread * normal(f"partformer/eval/{name}", (images, count, 2)), 1, 255)


def percent(table):
    return [100 * table.nmi(), 100 * table.ari()]


def at_landmarks(maps, points, side, visible=None):
    """NMI, ARI, FG-NMI and FG-ARI of two images at a time."""
    truth = np.broadcast_to(np.arange(points.shape[1]), points.shape[:2])
    visible = np.ones_like(truth, bool) if visible is None else visible
    figures = []
    for labels in (maps.argmax(1), foreground_labels(maps, axis=1)):
        table = Contingency(points.shape[1], maps.shape[1])
        for batch in np.array_split(np.arange(len(maps)), len(maps) // 2):
            found = labels_on_grid(labels[batch], points[batch], side)
            table.update(truth[batch][visible[batch]], found[visible[batch]])
        figures += percent(table)
    return figures


@pytest.fixture(scope="module")
def partformer():
    return np.load(CASES / "partformer" / "evaluation.npz")


@pytest.fixture(scope="module")
def mpae():
    return np.load(CASES / "mpae" / "evaluation.npz")


@pytest.fixture(scope="module")
def lineage():
    return np.load(CASES / "mpae" / "nme_lineage.npz")


def test_mpae_at_the_landmarks_of_cub(mpae):
    name = "mpae/evaluation/cub"
    points = 448 * logistic(normal(f"{name}/points", (6, 15, 2)))
    figures = at_landmarks(
        mpae_maps("evaluation/cub", (6, 9, 128, 128)), points, 448, normal(f"{name}/visible", (6, 15)) > -0.5
    )
    expected = [float(mpae[f"cub_{each}"]) for each in ("NMI", "ARI", "FG_NMI", "FG_ARI")]
    assert figures == pytest.approx(expected, rel=1e-9)


def test_mpae_at_the_landmarks_of_celeba(mpae):
    points = 224 * logistic(normal("mpae/evaluation/celeba/points", (6, 5, 2)))
    figures = at_landmarks(mpae_maps("evaluation/celeba", (6, 9, 128, 128)), points, 224)
    expected = [float(mpae[f"celeba_{each}"]) for each in ("NMI", "ARI", "FG_NMI", "FG_ARI")]
    assert figures == pytest.approx(expected, rel=1e-9)


def test_mpae_on_the_masks_of_partimagenet(mpae):
    found = mpae_maps("evaluation/partimagenet", (4, 9, 128, 128)).argmax(1)
    truth = image("mpae/evaluation/partimagenet/truth", (4, 6, 128, 128)).argmax(1)
    figures = percent(Contingency(6, 9).update(truth, found))
    figures += percent(Contingency(6, 6).update(np.minimum(truth, 4), truth))
    names = ("NMI", "ARI", "merged_NMI", "merged_ARI")
    assert figures == pytest.approx([float(mpae[f"partimagenet_{each}"]) for each in names], rel=1e-9)


def test_partformer_at_the_landmarks_of_celeba(partformer):
    figures = at_landmarks(partformer_maps("celeba_test", 10), partformer_landmarks("lm_test", 10, 5, 40), 256)
    assert figures == pytest.approx(partformer["celeba_nmi_ari_fgnmi_fgari_percent"], rel=1e-9)


def test_partformer_at_the_landmarks_of_cub(partformer):
    figures = at_landmarks(
        partformer_maps("cub", 16),
        partformer_landmarks("cub_lm", 16, 15, 50),
        256,
        normal("partformer/eval/cub_vis", (16, 15)) > -0.5,
    )
    assert figures == pytest.approx(partformer["cub_nmi_ari_fgnmi_fgari_percent"], rel=1e-9)


@pytest.mark.parametrize("collide", [True, False])
def test_partformer_on_the_masks_of_partimagenet_with_its_collision_alone(partformer, collide):
    classes = np.array([0, 1, 1, 5, 5, 109])
    truth = np.mod(np.floor(4 * normal("partformer/eval/partimage_gt", (6, 16, 16))), 41).astype(int)
    truth = truth.repeat(16, axis=1).repeat(16, axis=2)[:, ::2, ::2]
    found = labels_by_class(partformer_maps("partimage", 6).argmax(1), classes, 4, collide=collide)
    figures = percent(Contingency(41, 441).update(truth, found))
    agree = figures == pytest.approx(partformer["partimage_nmi_ari_percent"], rel=1e-9)
    assert agree == collide


def test_partformer_regression_of_given_features(partformer):
    fit, report = (64 + 12 * normal(f"partformer/eval/pred_{s}", (n, 4, 2)) for s, n in (("train", 40), ("test", 12)))
    mix = normal("partformer/eval/mix", (8, 10)) / 4

    def targets(features, name):
        noise = normal(f"partformer/eval/{name}", (len(features), 10))
        return (128 + features.reshape(-1, 8) @ mix + noise).reshape(-1, 5, 2)

    places = Places(fit, targets(fit, "noise_train")), Places(report, targets(report, "noise_test"))
    assert np.nanmean(landmark_error(CELEBA, *places, 256)) == pytest.approx(partformer["nme_arrays_percent"], abs=1e-4)


def test_partformer_error_on_celeba(partformer):
    fit, report = (soft_centroids(partformer_maps(f"celeba_{s}", n)) for s, n in (("val", 24), ("test", 10)))
    assert np.abs(fit - partformer["centroids_val"]).max() < 1e-3
    places = (
        Places(2 * centroids, partformer_landmarks(name, len(centroids), 5, 40))
        for name, centroids in (("lm_val", fit), ("lm_test", report))
    )
    assert np.nanmean(landmark_error(CELEBA, *places, 256)) == pytest.approx(partformer["nme_celeba_percent"], abs=1e-4)


def test_the_lineage_s_error_on_celeba(lineage):
    places = []
    for split, images in (("fit", 40), ("test", 12)):
        centroids = soft_centroids(mpae_maps(f"nme/celeba/{split}", (images, 5, 128, 128)))
        points = 224 * logistic(normal(f"mpae/nme/celeba/{split}/points", (images, 5, 2)))
        places.append(Places(224 / 128 * centroids, points))
    assert np.abs(centroids - lineage["celeba_centroids_test"]).max() < 1e-3
    assert np.nanmean(landmark_error(CELEBA, *places, 224)) == pytest.approx(lineage["celeba_nme_percent"], abs=1e-4)


def test_the_lineage_s_error_on_cub_with_invisible_landmarks_and_inactive_parts(lineage):
    places = []
    for split, images in (("fit", 40), ("test", 12)):
        name = f"mpae/nme/cub/{split}"
        strength = np.where(normal(f"{name}/present", (images, 5)) > -0.5, 1, np.float32(0.3))
        maps = background_first(image(f"{name}/maps", (images, 5, 64, 64)) * strength[..., None, None])
        points = (448 * logistic(normal(f"{name}/points", (images, 5, 2)))).astype(np.float32)
        x, y, width, height = logistic(normal(f"{name}/box", (images, 4))).T
        places.append(
            Places(
                soft_centroids(maps) * 448 / 64,
                points,
                normal(f"{name}/visible", (images, 5)) > -0.5,
                active_parts(maps, CUB.active),
                np.stack([100 * x, 100 * y, 150 + 200 * width, 150 + 200 * height], axis=1),
            )
        )
    assert (places[1].active == lineage["cub_active_test"]).all()
    assert np.nanmean(landmark_error(CUB, *places, 448)) == pytest.approx(lineage["cub_nme_percent"], abs=1e-4)
