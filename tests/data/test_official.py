import numpy as np
import pytest
import torch

from partzoo.data.folders import load_images
from partzoo.errors import UsageError


def write(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(found)


def planes(side, value):
    """An image as the binary files store it: red is ``value``, green 20, blue 30."""
    return np.repeat(np.array([[value], [20], [30]], np.uint8), side * side, axis=1).tobytes()


def cifar10(folder):
    root = folder / "cifar-10-batches-bin"
    write(root / "batches.meta.txt", b"plane\ncar")
    for i in range(1, 6):
        write(root / f"data_batch_{i}.bin", bytes([i % 2]) + planes(32, i))
    write(root / "test_batch.bin", bytes([1]) + planes(32, 9))


def stl10(folder, splits):
    write(folder / "stl10_binary/class_names.txt", b"airplane\nbird")
    for number, split in enumerate(splits):
        write(folder / f"stl10_binary/{split}_X.bin", planes(96, number) + planes(96, number))
        if split != "unlabeled":
            write(folder / f"stl10_binary/{split}_y.bin", bytes([1, 2]))


@pytest.mark.parametrize("within", ["", "cifar-10-batches-bin"])
def test_cifar_is_training_data(tmp_path, within):
    cifar10(tmp_path)
    train = load_images(tmp_path / within, side=32)
    assert train.batch(torch.arange(5))[:, 0, 3, 4].tolist() == [1, 2, 3, 4, 5]
    assert train.labels.tolist() == [1, 0, 1, 0, 1] and train.classes == ["plane", "car"]
    held_out = load_images(tmp_path / within, "val", side=16)
    assert held_out.batch(torch.arange(1)).shape == (1, 3, 16, 16) and held_out.batch(torch.arange(1))[0, 0, 0, 0] == 9
    assert len(load_images(tmp_path / within, side=32, limit=3)) == 3


def test_stl10_trains_on_its_unlabelled_images_where_they_are_there(tmp_path):
    stl10(tmp_path / "all", ["train", "test", "unlabeled"])
    stl10(tmp_path / "some", ["train", "test"])
    unlabelled, labelled = (load_images(tmp_path / name, side=96) for name in ("all", "some"))
    assert unlabelled.labels is None and unlabelled.batch(torch.arange(2))[:, 0, 0, 0].tolist() == [2, 2]
    assert labelled.labels.tolist() == [0, 1] and labelled.batch(torch.arange(2))[:, 0, 0, 0].tolist() == [0, 0]
    assert load_images(tmp_path / "all", "val", side=96).batch(torch.arange(1))[0, 0, 0, 0] == 1


def test_a_folder_of_several_sets_is_refused(tmp_path):
    cifar10(tmp_path)
    stl10(tmp_path, ["train", "test"])
    with pytest.raises(UsageError, match="holds cifar-10, stl-10: give the folder of one"):
        load_images(tmp_path)


def test_other_folders_are_not_taken_for_them(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "meta").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        load_images(tmp_path)
