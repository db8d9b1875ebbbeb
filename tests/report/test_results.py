"""Results of ``partzoo discover`` become a page without a model."""

import json

import numpy as np
import pytest
from PIL import Image

from partzoo.errors import PartzooError, UsageError
from partzoo.parts.coco import to_coco
from partzoo.parts.parts import Parts
from partzoo.report.results import results_of


@pytest.fixture
def several(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(3):
        image = rng.integers(0, 256, (20 + i, 30, 3), np.uint8)
        source = tmp_path / "in" / f"{i}.png"
        source.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(source)
        labels = rng.integers(0, 4, image.shape[:2])
        found.append(Parts(labels, k=4, image=image, source=str(source), quality=0.5, confidences=[0.1, 0.2, 0.3, 0.4]))
    return found


def test_npz_files_hold_all(several, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for i, parts in enumerate(several):
        parts.save(out / f"{i}.npz")
    for results in (results_of(str(out)), results_of(str(out / "0.npz"))):
        back = list(results)
        assert back == several[: len(back)] and results.count() == len(back)
        assert all(np.array_equal(a.image, b.image) for a, b in zip(back, several, strict=False))
        assert [(each.quality, each.source) for each in back] == [(0.5, each.source) for each in several[: len(back)]]
        assert np.array_equal(back[0].confidences, np.float32([0.1, 0.2, 0.3, 0.4]))


def test_coco_files_hold_the_parts_and_name_the_images(several, tmp_path):
    pytest.importorskip("pycocotools")
    file = tmp_path / "parts.json"
    file.write_text(json.dumps(to_coco(several, folder=tmp_path)))
    back = list(results_of(str(file)))
    assert [each.labels.tolist() for each in back] == [each.labels.tolist() for each in several]
    assert [each.image.tolist() for each in back] == [each.image.tolist() for each in several]
    assert all(np.isnan(each.quality) for each in back) and back[0].names == several[0].names


def test_an_image_that_is_gone_or_has_changed_is_left_out(several, tmp_path):
    pytest.importorskip("pycocotools")
    file = tmp_path / "parts.json"
    file.write_text(json.dumps(to_coco(several, folder=tmp_path)))
    (tmp_path / "in" / "0.png").unlink()
    Image.new("RGB", (5, 5)).save(tmp_path / "in" / "1.png")
    assert [each.image is None for each in results_of(str(file))] == [True, True, False]


def test_no_address_is_fetched(tmp_path, several):
    pytest.importorskip("pycocotools")
    dataset = to_coco(several[:1])
    dataset["images"][0]["file_name"] = "http://127.0.0.1:9/a.png"
    (tmp_path / "parts.json").write_text(json.dumps(dataset))
    (back,) = results_of(str(tmp_path / "parts.json"))
    assert back.image is None and back.source == "http://127.0.0.1:9/a.png"


def test_a_folder_of_images_with_annotations_by_others_is_no_result(several, tmp_path):
    (tmp_path / "in" / "annotations.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "in" / "notes.json").write_text("[" * 100_000)
    assert results_of(str(tmp_path / "in")) is None
    assert results_of(str(tmp_path / "in" / "0.png")) is None


def test_index_images_are_refused_with_a_way_out(several, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    several[0].save(out / "0.index.png")
    with pytest.raises(UsageError, match=r"--format \.npz"):
        results_of(str(out))


@pytest.mark.parametrize(
    "change",
    [
        {"images": [{"id": 1, "file_name": "a", "height": 10**9, "width": 10**9}]},
        {"images": [{"id": 1, "file_name": "a", "height": 0, "width": 3}]},
        {"images": [{"id": 1}]},
        {"images": [7]},
        {"annotations": [{"image_id": 1, "category_id": 5, "segmentation": {"size": [20, 30], "counts": [600]}}]},
        {"annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"size": [2, 2], "counts": [4]}}]},
        {"annotations": [{"image_id": [1], "category_id": 1}]},
        {"categories": 3},
        {"categories": [{"name": "x"}] * 1001},
    ],
)
def test_a_damaged_coco_file_is_named_in_one_sentence(change, several, tmp_path):
    pytest.importorskip("pycocotools")
    file = tmp_path / "parts.json"
    file.write_text(json.dumps(to_coco(several[:1]) | change))
    with pytest.raises(PartzooError, match=r"parts\.json"):
        list(results_of(str(file)))
