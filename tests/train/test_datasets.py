"""Images to train on in the official layouts of data sets, on miniatures of them."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from partzoo.data.folders import load_images
from partzoo.errors import ImageError, UsageError
from partzoo.evaluate.protocols import celeba, cub
from partzoo.train.datasets import LAYOUTS, DataOptions, read_images


def write_image(file, value, height=20, width=40):
    """Write an image with a grey left half and a black right half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[:, width // 2 :] = 0
    Image.fromarray(pixels).save(file, format="PNG")


def write_celeba(root):
    for number in (1, 2, 3):
        write_image(root / f"img_celeba/{number}.jpg", 50 * number)
    (root / "cele_train_lm.txt").write_text("1.jpg,1,2,3,4,5,6,7,8,9,10\n3.jpg,1,2,3,4,5,6,7,8,9,10\n")


def write_aflw(root):
    for number in (1, 3):
        write_image(root / f"output/{number}.jpg", 50 * number)
    (root / "aflw_train_images.txt").write_text("1.jpg\n3.jpg\n")
    savemat(root / "aflw_train_keypoints.mat", {"gt": np.zeros((2, 5, 2))})


def write_cub(root):
    names = ["001.Black_footed_Albatross/1.jpg", "002.Laysan_Albatross/2.jpg", "002.Laysan_Albatross/3.jpg"]
    for number, name in enumerate(names, 1):
        write_image(root / "images" / name, 50 * number)
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    (root / "bounding_boxes.txt").write_text("".join(f"{i} 0 0 40 20\n" for i in (1, 2, 3)))
    (root / "parts").mkdir()
    lines = (f"{b} {p} {p}.0 {b}.0 1\n" for b in (1, 2, 3) for p in range(1, 16))
    (root / "parts/part_locs.txt").write_text("".join(lines))


def write_deepfashion(root):
    folder = root / "Anno/segmentation"
    for number in (1, 3):
        write_image(folder / f"img_highres/{number}.jpg", 50 * number)
    listed = {"images": [{"id": i, "file_name": f"img_highres/{i}.jpg"} for i in (1, 3)]}
    (folder / "DeepFashion_segmentation_train.json").write_text(json.dumps(listed))


def coco(names):
    images = [{"id": i, "file_name": name, "height": 20, "width": 40} for i, name in enumerate(names)]
    annotation = {"category_id": 0, "segmentation": [[0, 0, 9, 0, 9, 9]], "bbox": [0, 0, 9, 9], "area": 9, "iscrowd": 0}
    annotations = [annotation | {"id": i, "image_id": i} for i in range(len(names)) if "bare" not in names[i]]
    return json.dumps({"images": images, "annotations": annotations})


def write_ood(root):
    for number, name in ((1, "n01/n01_1.JPEG"), (2, "n01/n01_bare.JPEG"), (3, "n02/n02_3.JPEG")):
        write_image(root / "train" / name, 50 * number)
    (root / "train_train.json").write_text(coco(["n01/n01_1.JPEG", "n01/n01_bare.JPEG", "n02/n02_3.JPEG"]))


def write_seg(root):
    for number, name in ((1, "n01_1.JPEG"), (2, "n01_bare.JPEG"), (3, "n02_3.JPEG")):
        write_image(root / "images/train" / name, 50 * number)
    (root / "annotations/train").mkdir(parents=True)
    (root / "annotations/train/train.json").write_text(coco(["n01_1.JPEG", "n01_bare.JPEG", "n02_3.JPEG"]))


def write_by_class(root):
    for number, name in ((1, "train_train/n01/a.JPEG"), (2, "train_test/n02/b.JPEG"), (3, "train_train/n02/c.JPEG")):
        write_image(root / name, 50 * number)
    (root / "train.json").write_text(coco(["a", "b", "c"]))
    rows = ("0\t0\t4\tn01\ta.JPEG", "1\t1\t2\tn02\tb.JPEG", "2\t0\t2\tn02\tc.JPEG")
    (root / "newdset.txt").write_text("\n".join(rows))


def write_masked(name):
    def write(root):
        """Write four images with label maps, of which the last two are in the training split."""
        for number, value in enumerate((10, 20, 50, 150)):
            write_image(root / f"{name}/images/{number}.png", value)
            write_image(root / f"{name}/masks/{number}.png", 1)
        with tarfile.open(root / f"{name}.tar", "w") as tar:  # which is read instead of the folder
            tar.add(root / name, ".")
        shutil.rmtree(root / name)

    return write


CUB_LABELS = ([0, 1], ["001.Black_footed_Albatross", "002.Laysan_Albatross"])
MINIATURES = {
    "aflw": (write_aflw, None, []),
    "cars": (write_masked("cars"), None, []),
    "celeba": (write_celeba, None, []),
    "celebamask": (write_masked("celebamask"), None, []),
    "clothing": (write_masked("clothing"), None, []),
    "cub": (write_cub, *CUB_LABELS),
    "deepfashion": (write_deepfashion, None, []),
    "partimagenet-ood": (write_ood, [0, 1], ["n01", "n02"]),
    "partimagenet-partformer": (write_by_class, [4, 2], ["", "", "n02", "", "n01"]),
    "partimagenet-seg": (write_seg, [0, 1], ["n01", "n02"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_its_training_images_with_their_classes(layout, tmp_path):
    write, labels, classes = MINIATURES[layout]
    write(tmp_path)
    images = read_images(tmp_path, DataOptions(layout=layout), 16)
    batch = images.batch(torch.arange(len(images)))
    assert batch.shape == (2, 3, 16, 16) and batch[:, 0, 0, 0].tolist() == [50, 150]
    assert (images.labels is None and labels is None) or images.labels.tolist() == labels
    assert images.classes == classes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_another_layout_says_what_to_get(layout, tmp_path):
    with pytest.raises(
        UsageError, match=rf"needs .*which is not there\. .*--data DIR|neither {layout}\.tar nor {layout}/"
    ):
        read_images(tmp_path, DataOptions(layout=layout), 16)


@pytest.mark.parametrize(
    ("layout", "write", "load"), [("celeba", write_celeba, celeba.load), ("cub", write_cub, cub.load)]
)
def test_squashed_images_are_the_frames_that_are_measured_on(layout, write, load, tmp_path):
    write(tmp_path)
    images = read_images(tmp_path, DataOptions(layout=layout, frame="squash"), 16)
    seen = images.batch(torch.tensor([0]))[0].permute(1, 2, 0).numpy().astype(int)
    measured = load(tmp_path, "train", side=16)[0].image.astype(int)
    assert seen[:, 3, 0].tolist() == [50] * 16 and seen[:, 12, 0].tolist() == [0] * 16
    if layout == "celeba":
        assert (seen == measured).all()
    else:  # antialiased there, as MPAE's code has it
        assert np.abs(seen - measured)[:, [0, 3, 12, 15]].max() <= 1


def test_the_frame_is_the_centre_or_all_of_an_image(tmp_path):
    write_image(tmp_path / "a.png", 100, 16, 64)
    write_image(tmp_path / "b.png", 100, 16, 64)
    crop, squash = (
        read_images(tmp_path, DataOptions(frame=frame), 16).batch(torch.tensor([0]))[0, 0, 8]
        for frame in ("crop", "squash")
    )
    assert crop.tolist() == squash.tolist() == [100] * 8 + [0] * 8
    write_image(tmp_path / "b.png", 100, 64, 16)
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 16, 3))).save(tmp_path / "b.png")
    rows = {
        frame: read_images(tmp_path, DataOptions(frame=frame), 16).batch(torch.tensor([0]))[0, 0, :, 8]
        for frame in ("crop", "squash")
    }
    assert rows["crop"].tolist() == [4 * row for row in range(24, 40)]
    assert rows["squash"].tolist() == [4 * row + 6 for row in range(0, 64, 4)]


def test_categories_are_chosen_renumbered_and_left_out(tmp_path):
    for value, name in enumerate("abc"):
        for number in range(3):
            write_image(tmp_path / f"train/{name}/{number}.png", 50 + value)
    chosen = read_images(tmp_path, DataOptions(categories=("c", "a")), 8)
    assert chosen.classes == ["c", "a"] and chosen.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert chosen.batch(torch.tensor([0, 5]))[:, 0, 0, 0].tolist() == [50, 52]
    left = read_images(tmp_path, DataOptions(exclude=("b", "nothing"), limit=3), 8)
    assert left.classes == ["a", "c"] and left.labels.tolist() == [0, 0, 1]
    with pytest.raises(UsageError, match=r"has no class 'bb'\. The closest is 'b'"):
        read_images(tmp_path, DataOptions(categories=("bb",)), 8)


def test_classes_of_images_without_any_are_an_error(tmp_path):
    write_celeba(tmp_path)
    with pytest.raises(UsageError, match="has no classes"):
        read_images(tmp_path, DataOptions(layout="celeba", exclude=("a",)), 8)


def test_a_tar_is_read_as_the_tree_it_holds(tmp_path):
    folder, file = tmp_path / "tree", tmp_path / "images.tar"
    for name in ("ant", "bee"):
        for number in range(10):
            write_image(folder / f"{name}/{number}.png", 10 + number)
    (folder / "ant/notes.txt").write_text("no image")
    with tarfile.open(file, "w") as tar:
        tar.add(folder, "101_ObjectCategories")
    for split in ("train", "val"):
        packed, loose = (load_images(path, split, side=8) for path in (file, folder))
        assert len(packed) == len(loose) == {"train": 18, "val": 2}[split]
        assert packed.classes == ["ant", "bee"] and torch.equal(packed.labels, loose.labels)
        everything = torch.arange(len(packed))
        assert torch.equal(packed.batch(everything), loose.batch(everything))


def test_a_damaged_tar_is_one_clear_error(tmp_path):
    file = tmp_path / "images.tar"
    file.write_bytes(b"no tar")
    with pytest.raises(UsageError, match=r"images\.tar cannot be read"):
        load_images(file)
    with tarfile.open(file, "w"):
        pass
    with pytest.raises(UsageError, match=r"images\.tar holds no images"):
        load_images(file)
    with tarfile.open(file, "w") as tar:
        for number in range(2):
            entry = tarfile.TarInfo(f"{number}.jpg")
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"text"))
    with pytest.raises(ImageError, match=r"images\.tar: 1\.jpg cannot be read as an image"):
        load_images(file).batch(torch.tensor([0]))


def test_a_limit_is_spread_over_the_classes_of_a_tree(tmp_path):
    for name in "abcd":
        for number in range(5):
            write_image(tmp_path / f"train/{name}/{number}.png", 10)
    assert load_images(tmp_path, side=8, limit=4).labels.tolist() == [0, 1, 2, 3]
