import io
import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from partzoo.data.cifar import CIFAR10_FILES, cifar100_files, read_pickle
from partzoo.errors import UsageError
from partzoo.evaluate.protocols.classification import CIFAR10, CIFAR100, CIFAR100_20, STL10, TINY_IMAGENET

PROTOCOLS = [TINY_IMAGENET, CIFAR10, CIFAR100, CIFAR100_20, STL10]


def planes(red: int, green: int, blue: int) -> np.ndarray:
    """A 32 x 32 image as CIFAR stores it; its top right pixel is white."""
    image = np.repeat([[red], [green], [blue]], 1024, axis=1).astype(np.uint8)
    image[:, 31] = 255
    return image.reshape(-1)


def write(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(found if isinstance(found, bytes) else pickle.dumps(found, protocol=2))


def expect_cifar_pixels(images, reds):
    pixels = images.batch(torch.arange(len(images)))
    assert pixels.dtype == torch.uint8 and pixels.shape == (len(reds), 3, 32, 32)
    assert pixels[:, :, 5, 7].tolist() == [[red, 20, 30] for red in reds]
    assert pixels[:, :, 0, 31].unique().tolist() == [255] and pixels[0, 0, 31, 0] == reds[0]


def cifar10_python(folder):
    root = folder / "cifar-10-batches-py"
    write(root / "batches.meta", {b"label_names": [b"plane", b"car"]})
    for i, file in enumerate([*CIFAR10_FILES.files["train"], "test_batch"]):
        write(root / file, {b"data": np.stack([planes(i, 20, 30)] * 2), b"labels": [0, i % 2]})


def cifar10_binary(folder):
    root = folder / "cifar-10-batches-bin"
    write(root / "batches.meta.txt", b"plane\ncar\n\n")
    for i, file in enumerate([*CIFAR10_FILES.files["train"], "test_batch"]):
        rows = [bytes([label]) + planes(i, 20, 30).tobytes() for label in (0, i % 2)]
        write(root / f"{file}.bin", b"".join(rows))


@pytest.mark.parametrize("make", [cifar10_python, cifar10_binary])
@pytest.mark.parametrize("within", ["", "folder"])
def test_cifar10_in_both_versions(tmp_path, make, within):
    make(tmp_path)
    folder = next(tmp_path.iterdir()) if within else tmp_path
    train = CIFAR10.load(folder, "train", None)
    expect_cifar_pixels(train, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert train.labels.tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0] and train.classes == ["plane", "car"]
    test = CIFAR10.load(folder, "test", 1)
    expect_cifar_pixels(test, [5])
    assert test.labels.tolist() == [0]


def test_cifar100_has_fine_and_coarse_labels_in_both_versions(tmp_path):
    names = {"fine": [f"fine{i}" for i in range(100)], "coarse": [f"coarse{i}" for i in range(20)]}
    python, binary = tmp_path / "a", tmp_path / "b"
    write(
        python / "cifar-100-python/meta",
        {f"{kind}_label_names".encode(): [word.encode() for word in words] for kind, words in names.items()},
    )
    for kind, words in names.items():
        write(binary / f"cifar-100-binary/{kind}_label_names.txt", "\n".join(words).encode())
    for split in ("train", "test"):
        data = np.stack([planes(9, 20, 30), planes(8, 20, 30)])
        write(
            python / f"cifar-100-python/{split}",
            {b"data": data, b"fine_labels": [99, 3], b"coarse_labels": [19, 2]},
        )
        write(
            binary / f"cifar-100-binary/{split}.bin",
            b"".join(bytes(pair) + row.tobytes() for pair, row in zip([(19, 99), (2, 3)], data, strict=True)),
        )
    for folder in (python, binary):
        fine, coarse = (protocol.load(folder, "test", None) for protocol in (CIFAR100, CIFAR100_20))
        expect_cifar_pixels(fine, [9, 8])
        assert fine.labels.tolist() == [99, 3] and coarse.labels.tolist() == [19, 2]
        assert fine.classes == names["fine"] and coarse.classes == names["coarse"]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "found", [Bomb(), {b"data": [Bomb()]}, np.array([Bomb()], dtype=object), {b"data": io.BytesIO()}]
)
def test_pickles_of_anything_else_are_refused_and_nothing_runs(tmp_path, monkeypatch, found):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "batch", found)
    with pytest.raises(UsageError, match=r"batch.*download it again"):
        read_pickle(tmp_path / "batch")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", [b"", b"\x80\x02}", b"not a pickle", pickle.dumps([1, 2])])
def test_damaged_pickles_are_refused(tmp_path, damage):
    write(tmp_path / "batch", damage)
    with pytest.raises(UsageError, match="batch"):
        read_pickle(tmp_path / "batch")


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_of_every_old_pickle_protocol_are_read(tmp_path, protocol):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": array, "labels": [1, 2]}, protocol=protocol))
    found = read_pickle(tmp_path / "batch")
    assert found[b"data"].tolist() == array.tolist() and found[b"labels"] == [1, 2]


def test_truncated_cifar_files_are_refused(tmp_path):
    cifar10_binary(tmp_path)
    file = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"test_batch.bin has 6145 bytes, not a multiple of 3073"):
        CIFAR10.load(tmp_path, "test", None)
    cifar10_python(tmp_path / "p")
    write(tmp_path / "p/cifar-10-batches-py/test_batch", {b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]})
    with pytest.raises(UsageError, match="rows of 3072 bytes"):
        CIFAR10.load(tmp_path / "p", "test", None)


STL10_NAMES = "airplane bird car cat deer dog horse monkey ship truck".split()


def stl10(folder):
    """Two images: brightness grows down the rows in red, along the columns in green; blue is the number."""
    y, x = np.mgrid[:96, :96].astype(np.uint8)
    images = np.stack([np.stack([y, x, np.full_like(x, i)]) for i in range(2)])
    for split in ("train", "test", "unlabeled"):
        write(folder / f"stl10_binary/{split}_X.bin", images.swapaxes(2, 3).tobytes())
    for split in ("train", "test"):
        write(folder / f"stl10_binary/{split}_y.bin", bytes([1, 10]))
    write(folder / "stl10_binary/class_names.txt", "\n".join(STL10_NAMES).encode())


def test_stl10_is_stored_column_by_column(tmp_path):
    stl10(tmp_path)
    train = STL10.load(tmp_path, "train", None)
    assert train.batch(torch.arange(2))[:, :, 10, 70].tolist() == [[10, 70, 0], [10, 70, 1]]
    assert train.labels.tolist() == [0, 9] and train.side == 96 and train.classes == STL10_NAMES
    unlabelled = STL10.load(tmp_path / "stl10_binary", "unlabeled", 1)
    assert unlabelled.labels is None and len(unlabelled) == 1


def test_stl10_that_lacks_images_is_refused(tmp_path):
    stl10(tmp_path)
    write(tmp_path / "stl10_binary/train_y.bin", bytes([1, 2, 3]))
    with pytest.raises(UsageError, match=r"train_X\.bin"):
        STL10.load(tmp_path, "train", None)


@pytest.fixture
def tiny(tmp_path):
    """Three classes of four images; the grey of an image is 50 times its class, plus 5 in validation."""
    root = tmp_path / "tiny-imagenet-200"
    rows = []
    for number, name in enumerate(["n03", "n01", "n02"]):
        grey = 50 * (int(name[1:]) - 1)
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "val/images").mkdir(parents=True, exist_ok=True)
        for i in range(4):
            Image.new("RGB", (64, 64), (grey,) * 3).save(root / f"train/{name}/images/{name}_{i}.JPEG")
        Image.new("L", (64, 64), grey + 5).save(root / f"val/images/val_{number}.JPEG")
        rows.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def expect_greys(images, offset):
    grey = images.batch(torch.arange(len(images)))[:, 0, 30, 30]
    assert torch.equal(grey, (images.labels * 50 + offset).byte())


def test_tiny_imagenet_in_its_official_folder(tiny):
    train, val = (TINY_IMAGENET.load(tiny, split, None) for split in ("train", "val"))
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and train.classes == ["n01", "n02", "n03"]
    assert val.labels.tolist() == [2, 0, 1]
    expect_greys(train, 0)
    expect_greys(val, 5)


def test_tiny_imagenet_with_sorted_validation_images(tiny):
    root = tiny / "tiny-imagenet-200"
    for line in (root / "val/val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        (root / "val" / name).mkdir()
        (root / "val/images" / file).rename(root / "val" / name / file)
    (root / "val/images").rmdir()
    (root / "val/val_annotations.txt").unlink()
    val = TINY_IMAGENET.load(root, "val", None)
    assert val.labels.tolist() == [0, 1, 2]
    expect_greys(val, 5)


def test_a_limit_draws_from_all_classes_and_is_the_same_each_time(tiny):
    first, again = (TINY_IMAGENET.load(tiny, "train", 8) for _ in range(2))
    assert len(first) == 8 and set(first.labels.tolist()) == {0, 1, 2} and first.files == again.files
    expect_greys(first, 0)


def test_tiny_imagenet_as_sheets(tmp_path):
    sheet = np.zeros((64, 128, 3), np.uint8)
    sheet[:, 64:] = 200
    Image.fromarray(sheet).save(tmp_path / "val-00.avif", quality=100)
    np.save(tmp_path / "val-labels.npy", np.array([4, 7]))
    (tmp_path / "classes.json").write_text(json.dumps([{"words": f"fish {i}"} for i in range(8)]))
    val = TINY_IMAGENET.load(tmp_path, "val", None)
    assert val.labels.tolist() == [4, 7] and abs(int(val.batch(torch.tensor([1]))[0, 0, 30, 30]) - 200) < 4


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_missing_data_says_what_to_download_and_where_it_lies(tmp_path, protocol):
    for split in (protocol.train, protocol.test):
        with pytest.raises(UsageError, match="http") as error:
            protocol.load(tmp_path, split, None)
        assert str(tmp_path) in str(error.value) and protocol.name in str(error.value)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_unknown_splits_are_named(tmp_path, protocol):
    with pytest.raises(UsageError, match=f"'dev' of {protocol.name}"):
        protocol.load(tmp_path, "dev", None)


def test_coarse_labels_are_another_byte_of_the_same_files():
    fine, coarse = (cifar100_files("cifar-100", kind) for kind in ("fine", "coarse"))
    assert (fine.label_byte, coarse.label_byte) == (1, 0) and fine.files == coarse.files
