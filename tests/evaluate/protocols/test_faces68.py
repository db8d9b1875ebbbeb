import numpy as np
import pytest
from PIL import Image

from partzoo.errors import UsageError
from partzoo.evaluate.protocols import faces68

SIDE = faces68.SIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Flat tiles whose landmarks are a 68-point lattice, shifted by the tile's red value."""
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


def test_splits_are_cut_from_the_sheets_in_order(folder):
    dev = faces68.load(folder, "dev")
    assert len(dev) == 6 and dev.images.shape == (6, SIDE, SIDE, 3) and dev.landmarks.shape == (6, 68, 2)
    shift = dev.landmarks[:, 0] - 20
    assert np.abs(dev.images[:, 80, 80, :2] / 4.0 - shift).max() < 1


def test_a_split_is_a_sequence_of_examples(folder):
    dev = faces68.load(folder, "dev")
    example = dev[-1]
    assert (example.image == dev.images[5]).all() and (example.points == dev.landmarks[5]).all()
    assert example.group == 5 and example.mask is None and example.visible is None
    assert len(dev[:4]) == 4 and dev[2:][1].group == 3
    assert [len(take(example.points)) for take in faces68.FACES68.readings.values()] == [5, 68]
    assert (faces68.five_points(example.points) == faces68.five_points(dev.landmarks)[5]).all()


def test_files_that_do_not_fit_each_other_are_refused(folder, tmp_path):
    (tmp_path / "dev.avif").write_bytes((folder / "dev.avif").read_bytes())
    (tmp_path / "dev.npz").write_bytes((folder / "train.npz").read_bytes())
    with pytest.raises(UsageError, match=r"dev\.npz has 24 persons and landmarks \(24, 68, 2\), .*dev\.avif 8 tiles"):
        faces68.load(tmp_path, "dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", r"dev\.npz is a pointer of Git LFS"),
        (b"PK\x03\x04 and then nothing", r"dev\.npz holds no readable 'landmarks' and 'person'"),
        ({"person": np.zeros(6)}, r"dev\.npz holds no readable .*landmarks"),
        ({"person": np.zeros(2), "landmarks": np.array([[0.0], [np.nan]])}, "a landmark of image 1 that is not finite"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(folder, tmp_path, content, message):
    (tmp_path / "dev.avif").write_bytes((folder / "dev.avif").read_bytes())
    if isinstance(content, bytes):
        (tmp_path / "dev.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "dev.npz", **content)
    with pytest.raises(UsageError, match=message):
        faces68.load(tmp_path, "dev")


def test_five_points_by_hand():
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, 36:42] = [[0, 0], [6, 0], [0, 6], [6, 6], [3, 3], [3, 3]]
    landmarks[0, 42:48] = 9
    landmarks[0, [30, 48, 54]] = [[1, 2], [3, 4], [5, 6]]
    assert faces68.five_points(landmarks).tolist() == [[[3, 3], [9, 9], [1, 2], [3, 4], [5, 6]]]


def test_absent_data_says_what_must_lie_where(tmp_path):
    with pytest.raises(UsageError, match=r"report\.avif.*--data DIR|train\.avif.*--data DIR"):
        faces68.load(tmp_path, "train")
    with pytest.raises(UsageError, match="train, dev, report"):
        faces68.load(tmp_path, "test")
