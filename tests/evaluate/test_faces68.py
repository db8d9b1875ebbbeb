import numpy as np
import pytest
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.protocols import faces68

SIDE = faces68.SIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Flat tiles whose landmarks are a 68-point lattice, shifted by as much as the tile's red says."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("faces")
    lattice = np.stack(np.meshgrid(np.arange(17) * 5.0 + 20, np.arange(4) * 20.0 + 20), axis=-1).reshape(68, 2)
    for split, count in {"train": 24, "dev": 6, "report": 5}.items():
        shift = rng.integers(0, 40, (count, 2))
        sheet = np.zeros((-(-count // 4) * SIDE, 4 * SIDE, 3), np.uint8)
        for i, (x, y) in enumerate(shift):
            row, column = divmod(i, 4)
            sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = (4 * x, 4 * y, 0)
        Image.fromarray(sheet).save(folder / f"{split}.avif", quality=100, subsampling="4:4:4")
        np.savez(
            folder / f"{split}.npz",
            landmarks=(lattice + shift[:, None]).astype(np.float16),
            person=np.arange(count, dtype=np.int16),
        )
    return folder


def perfect(pictures):
    """A disc of part i at point i of the five, found from the tile's colour."""
    lattice = np.stack(np.meshgrid(np.arange(17) * 5.0 + 20, np.arange(4) * 20.0 + 20), axis=-1).reshape(1, 68, 2)
    labels = np.zeros((len(pictures), SIDE, SIDE), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for picture, label in zip(pictures, labels, strict=True):
        shift = np.rint(picture[0, 0, :2].astype(float) / 4)
        for part, point in enumerate(np.floor(faces68.five_points(lattice)[0] + shift + 0.5), start=1):
            label[(x - point[0]) ** 2 + (y - point[1]) ** 2 <= 1] = part
    return labels


def test_splits_are_cut_from_the_sheets_in_order(folder):
    dev = faces68.load(folder, "dev")
    assert len(dev) == 6 and dev.pictures.shape == (6, SIDE, SIDE, 3) and dev.landmarks.shape == (6, 68, 2)
    shift = dev.landmarks[:, 0] - 20
    assert np.abs(dev.pictures[:, 80, 80, :2] / 4.0 - shift).max() < 1


def test_a_split_is_a_sequence_of_examples(folder):
    dev = faces68.load(folder, "dev")
    example = dev[-1]
    assert (example.picture == dev.pictures[5]).all() and (example.points == dev.landmarks[5]).all()
    assert example.group == 5 and example.mask is None and example.visible is None
    assert len(dev[:4]) == 4 and dev[2:][1].group == 3
    assert [len(take(example.points)) for take in faces68.FACES68.readings.values()] == [5, 68]
    assert (faces68.five_points(example.points) == faces68.five_points(dev.landmarks)[5]).all()


def test_files_that_do_not_fit_each_other_are_refused(folder, tmp_path):
    (tmp_path / "dev.avif").write_bytes((folder / "dev.avif").read_bytes())
    (tmp_path / "dev.npz").write_bytes((folder / "train.npz").read_bytes())
    with pytest.raises(UsageError, match=r"dev\.npz has 24 persons and landmarks \(24, 68, 2\), .*dev\.avif 8 tiles"):
        faces68.load(tmp_path, "dev")


def test_perfect_parts_score_full_marks(folder):
    scores = faces68.evaluate(perfect, folder, 5, batch_size=4)
    assert scores["nmi5"] == pytest.approx(100) and scores["ari5"] == pytest.approx(100)
    assert scores["nme"] < 1e-6
    assert set(scores) == {"nmi5", "ari5", "nmi68", "ari68", "nme"}


def test_batch_size_changes_nothing(folder):
    assert faces68.evaluate(perfect, folder, 5, batch_size=1) == faces68.evaluate(perfect, folder, 5, batch_size=64)


def test_scores_add_the_foreground_variants(folder):
    def with_scores(pictures):
        labels = perfect(pictures)
        scores = (labels[:, None] == np.arange(6)[:, None, None]).astype(float)
        scores[:, 0] = 0.5
        return np.zeros_like(labels), scores

    scores = faces68.evaluate(with_scores, folder, 5, split="dev")
    assert scores["nmi5"] == scores["ari5"] == 0
    assert scores["fg_nmi5"] == pytest.approx(100) and scores["fg_ari5"] == pytest.approx(100)
    assert 0 < scores["fg_nmi68"] < 100


def test_landmarks_outside_the_picture_are_dropped():
    table = faces68.landmark_table(np.array([[0, -1, 2], [1, 1, -1]]), k=2)
    assert table.counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_five_points_by_hand():
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, 36:42] = [[0, 0], [6, 0], [0, 6], [6, 6], [3, 3], [3, 3]]
    landmarks[0, 42:48] = 9
    landmarks[0, [30, 48, 54]] = [[1, 2], [3, 4], [5, 6]]
    assert faces68.five_points(landmarks).tolist() == [[[3, 3], [9, 9], [1, 2], [3, 4], [5, 6]]]


def test_absent_data_says_what_must_lie_where(tmp_path):
    with pytest.raises(UsageError, match=r"report\.avif.*--data DIR|train\.avif.*--data DIR"):
        faces68.evaluate(perfect, tmp_path, 5)
    with pytest.raises(UsageError, match="train, dev, report"):
        faces68.load(tmp_path, "test")


def test_maps_of_another_size_are_refused(folder):
    with pytest.raises(ShapeError, match="160, 160"):
        faces68.evaluate(lambda pictures: np.zeros((len(pictures), 20, 20), int), folder, 5)
