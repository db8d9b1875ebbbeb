"""Results name the image that they are of, so that readers of COCO find it."""

import json

import numpy as np
import pytest
from PIL import Image

import partzoo
from partzoo.errors import UsageError
from partzoo.parts.coco import joined, to_coco


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit", device="cpu")


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("in/left/a.png", "in/right/a.png", "in/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(tmp_path / name)
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(tmp_path / "in/blank.png")
    return tmp_path


def test_a_part_s_source_is_the_path_as_given(folder, encoder, monkeypatch):
    monkeypatch.chdir(folder)
    assert partzoo.discover_parts("in/b.png", 2, model=encoder).source == "in/b.png"
    assert partzoo.discover_parts(Image.open("in/b.png"), 2, model=encoder).source == "in/b.png"
    assert partzoo.discover_parts(np.zeros((20, 20, 3), np.uint8), 2, model=encoder).source == ""
    found = partzoo.discover_parts("in", 2, model=encoder)
    assert [parts.source for parts in found] == [f"in/{name}.png" for name in ("b", "blank", "left/a", "right/a")]
    found[0].save("b.npz")
    assert partzoo.Parts.load("b.npz").source == "in/b.png"


def test_datasets_are_joined_in_the_memory_of_one(folder, encoder):
    pytest.importorskip("pycocotools")
    several = partzoo.discover_parts(folder / "in", 2, model=encoder)
    alive, most = 0, 0

    class Counted(dict):
        def __init__(self, *values):
            nonlocal alive, most
            super().__init__(*values)
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    text = "".join(joined(lambda: (Counted(to_coco([parts])) for parts in several * 3)))
    assert text == json.dumps(to_coco(several * 3))
    assert most <= 2  # the one before lives until the next is read


def test_parts_do_not_replace_their_image(folder, encoder, monkeypatch):
    monkeypatch.chdir(folder)
    before = (folder / "in/b.png").read_bytes()
    parts = partzoo.discover_parts("in/b.png", 2, model=encoder)
    (folder / "link.png").symlink_to("in/b.png")
    for path in ("in/b.png", folder / "in" / ".." / "in" / "b.png", "link.png"):
        with pytest.raises(UsageError, match=r"would replace 'in/b\.png', which is an input"):
            parts.save(path)
    assert (folder / "in/b.png").read_bytes() == before
    parts.save("in/b.parts.png")


def test_coco_s_own_reader_finds_each_image_and_the_same_masks(folder, encoder):
    coco_api = pytest.importorskip("pycocotools.coco")
    found = partzoo.discover_parts(folder / "in", 2, model=encoder)
    (folder / "parts.json").write_text(json.dumps(to_coco(found, folder=folder)))
    dataset = coco_api.COCO(folder / "parts.json")
    assert set(dataset.dataset) == {"info", "licenses", "images", "annotations", "categories"}
    assert dataset.getImgIds() == [1, 2, 3, 4] and dataset.getCatIds() == [1, 2]
    assert dataset.getAnnIds(imgIds=2) == []  # the blank image is listed all the same
    for number, parts in enumerate(found, 1):
        about = dataset.imgs[number]
        with Image.open(folder / about["file_name"]) as image:
            assert image.size == (about["width"], about["height"])
        for annotation in dataset.loadAnns(dataset.getAnnIds(imgIds=number)):
            assert np.array_equal(dataset.annToMask(annotation) > 0, parts.mask(annotation["category_id"]))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/data/birds/a.jpg", "birds/a.jpg"), ("/elsewhere/a.jpg", "/elsewhere/a.jpg"), ("", ""),
        ("https://example.org/a.jpg", "https://example.org/a.jpg"),
    ],
)  # fmt: skip
def test_paths_below_the_dataset_are_relative_to_it(source, expected):
    pytest.importorskip("pycocotools")
    parts = partzoo.Parts(np.ones((4, 4), int), source=source)
    assert to_coco([parts], folder="/data")["images"][0]["file_name"] == expected
