import dataclasses

import numpy as np
import pytest
from helpers.drawn_faces import write_faces

import partzoo
from partzoo.data.reading import Example
from partzoo.discovery.factory import make_finder
from partzoo.evaluate.parts.figures import Tally, part_figures
from partzoo.evaluate.protocols import get
from partzoo.evaluate.protocols.base import LandmarkError, PartProtocol

POINTS = np.array([[4.0, 4.0], [12.0, 4.0], [8.0, 12.0]])
IMAGE = np.zeros((16, 16, 3), np.uint8)


def protocol(**changes) -> PartProtocol:
    plain = PartProtocol(
        "drawn", load=lambda *_: [], truths=3, source="", rules="", get="", error=LandmarkError("inter-ocular")
    )
    return dataclasses.replace(plain, **changes)


def scores(labels: np.ndarray, k: int) -> np.ndarray:
    return (np.arange(k + 1)[:, None, None] == labels).astype(np.float32)


def parts_at(points: np.ndarray, side: int = 16) -> np.ndarray:
    """Labels with part i on the nine pixels around point i."""
    labels = np.zeros((side, side), np.int64)
    for part, (x, y) in enumerate(np.rint(points).astype(int), start=1):
        labels[y - 1 : y + 2, x - 1 : x + 2] = part
    return labels


def tally(rules: PartProtocol, shifts, k: int = 3) -> dict[str, float]:
    found = Tally(rules, k)
    for shift in shifts:
        example = Example(IMAGE, POINTS + shift)
        found.learn(example, scores(parts_at(POINTS + shift), k))
    for shift in shifts:
        found.count(Example(IMAGE, POINTS + shift), scores(parts_at(POINTS + shift), k))
    return found.figures()


SHIFTS = np.array([[0, 0], [1, 0], [0, 2], [-1, 1], [2, -1], [1, 1], [-2, 0]])


def test_a_part_at_every_landmark_scores_full_marks():
    found = tally(protocol(), SHIFTS)
    full = {"nmi": 100, "ari": 100, "fg_nmi": 100, "fg_ari": 100, "presence": 100}
    assert {name: found[name] for name in full} == pytest.approx(full)
    assert found["nme"] < 1e-6


def test_invisible_landmarks_and_those_outside_are_left_out():
    rules = Tally(protocol(error=None), 3)
    outside = np.array([[4.0, 4.0], [30.0, 4.0], [8.0, 12.0]])
    rules.count(Example(IMAGE, outside, visible=np.array([True, True, False])), scores(parts_at(POINTS), 3))
    assert rules.tables["{}"][0].counts.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_foreground_figures_ask_the_best_part_where_background_wins():
    maps = scores(np.zeros((16, 16), int), 3) + 0.1 * scores(parts_at(POINTS), 3)
    found = Tally(protocol(error=None), 3)
    found.count(Example(IMAGE, POINTS), maps)
    assert found.figures()["nmi"] == 0 and found.figures()["fg_nmi"] == pytest.approx(100)


def test_masks_are_compared_pixel_by_pixel_with_and_without_background():
    mask = np.array([[0, 0, 1, 1], [2, 2, 2, 2]])
    labels = np.array([[1, 1, 2, 2], [0, 0, 0, 3]])
    found = Tally(protocol(error=None, background=2, grid=4), 3)
    found.count(Example(IMAGE, mask=mask), scores(labels, 3))
    figures = found.figures()
    assert found.tables["{}"][0].counts.tolist() == [[0, 2, 0, 0], [0, 0, 2, 0], [3, 0, 0, 1]]
    assert found.tables["fg_{}"][0].counts.tolist() == [[0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert figures["fg_nmi"] == pytest.approx(100) and figures["foreground_iou"] == pytest.approx(100 * 4 / 5)
    assert figures["presence"] == pytest.approx(100)


@pytest.mark.parametrize(("of_protocol", "of_model"), [(2, 0), (1, 2), (2, 2)])
def test_parts_of_each_class_are_counted_apart_where_protocol_or_model_says_so(of_protocol, of_model):
    mask = np.array([[0, 0, 1, 1]])
    found = Tally(protocol(error=None, background=2, classes=of_protocol), 2, of_model)
    for category in (0, 1):
        found.count(Example(IMAGE, mask=mask, category=category), scores(np.array([[0, 1, 2, 2]]), 2))
    assert found.tables["{}"][0].counts.tolist() == [[2, 1, 0, 1, 0], [0, 0, 2, 0, 2], [0, 0, 0, 0, 0]]


def test_maps_on_a_grid_are_read_by_the_published_rule():
    grid = np.zeros((8, 8), int)
    grid[2, 2], grid[2, 6], grid[6, 4] = 1, 2, 3
    found = Tally(protocol(grid=8, error=None), 3)
    # rint(5/16*8 - 0.5) = 2, rint(13/16*8 - 0.5) = 6, rint(9/16*8 - 0.5) = 4
    found.count(Example(IMAGE, np.array([[5.0, 5.0], [13.0, 5.0], [9.0, 13.0]])), scores(grid, 3))
    assert found.tables["{}"][0].counts.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_centroids_on_a_grid_come_back_in_the_frames_pixels():
    rules = protocol(grid=8, error=LandmarkError("edge"))
    found = Tally(rules, 1)
    for column in range(1, 7):
        grid = np.zeros((8, 8), int)
        grid[3, column] = 1
        for take in (found.learn, found.count):
            take(Example(IMAGE, np.array([[2.0 * column, 6.0]])), scores(grid, 1))
    assert found.figures()["nme"] < 1e-6
    assert found._fit[0].centroids.tolist() == [[[2.0, 6.0]]]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), {"train": 8, "dev": 4, "report": 4})


def test_one_pass_gives_what_fit_parts_and_discover_parts_give(faces):
    model = partzoo.load("toy-vit", device="cpu", dtype="float32")
    rules = get("faces68")
    runs, images = part_figures(make_finder(model, size=64), rules, faces, k=[2, 3], seeds=[0, 1])
    assert images == 4
    assert [(run["k"], run["seed"]) for run in runs] == [(2, 0), (3, 0), (2, 1), (3, 1), (2, None), (3, None)]
    train, report = (rules.load(faces, split) for split in ("train", "report"))
    vocabulary = partzoo.fit_parts(list(train.images), k=3, model=model, size=64, seed=1)
    found = partzoo.discover_parts(list(report.images), vocabulary=vocabulary, model=model)
    by_hand = Tally(dataclasses.replace(rules, error=None), 3)
    for example, parts in zip(report, found, strict=True):
        assert (by_hand.count(example, parts.scores) == parts.labels).all()
    figures = {name: value for name, value in runs[3]["metrics"].items() if name != "nme"}
    assert figures == pytest.approx(by_hand.figures())
    assert set(runs[4]["metrics"]) == {"stability_nmi", "stability_ari"}


def test_progress_reports_every_pass(faces):
    told = []
    model = partzoo.load("toy-vit", device="cpu", dtype="float32")
    part_figures(
        make_finder(model, size=64), get("faces68"), faces, k=[2], seeds=[0], limit=3,
        progress=lambda *said: told.append(said),
    )  # fmt: skip
    assert [said[0] for said in told if said[1:] == (3, 3)] == ["vocabulary", "regression", "report"]
