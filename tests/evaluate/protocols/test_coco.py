import json
import math

import pytest
import torch

from partzoo.errors import UsageError
from partzoo.evaluate.protocols.coco import COCO_DETECTION, read_truth, results

pytest.importorskip("pycocotools")


def box(image, bbox, category=1, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


@pytest.fixture
def folder(tmp_path):
    """Two images with a box of 40 x 40 each, in the official layout."""
    boxes = [box(1, [10, 10, 40, 40]), box(2, [20, 30, 40, 40])]
    truth = {
        "images": [{"id": i, "width": 100, "height": 100} for i in (1, 2)],
        "categories": [{"id": 1, "name": "heron"}],
        "annotations": [b | {"id": i, "area": 1600, "iscrowd": 0} for i, b in enumerate(boxes, start=1)],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(truth))
    return tmp_path


def test_true_boxes_score_full_marks(folder, capsys):
    found = [box(1, [10, 10, 40, 40], score=0.9), box(2, [20, 30, 40, 40], score=0.8)]
    scores = COCO_DETECTION.average_precision(found, folder)
    assert [scores[name] for name in ("ap", "ap50", "ap75", "ap_medium")] == pytest.approx([100] * 4)
    assert math.isnan(scores["ap_small"]) and math.isnan(scores["ap_large"])
    assert set(found[0]) == {"image_id", "category_id", "bbox", "score"} and capsys.readouterr().out == ""


def test_average_precision_by_hand(folder):
    # The first is right; the second has IoU 40 * 28 / (2 * 1600 - 40 * 28) = 0.538, which counts at 0.50 alone.
    # Recall is 1/2 elsewhere: 51 of the 101 points of recall have precision 1.
    half = 100 * 51 / 101
    found = [box(1, [10, 10, 40, 40], score=0.9), box(2, [20, 42, 40, 40], score=0.8)]
    scores = COCO_DETECTION.average_precision(found, folder)
    assert scores["ap50"] == pytest.approx(100) and scores["ap75"] == pytest.approx(half)
    assert scores["ap"] == pytest.approx((100 + 9 * half) / 10)


def test_a_file_of_detections_is_read(folder):
    (folder / "found.json").write_text(json.dumps([box(1, [10, 10, 40, 40], score=0.9)]))
    assert COCO_DETECTION.average_precision(folder / "found.json", folder)["ap"] == pytest.approx(100 * 51 / 101)


def test_no_detections_score_nothing(folder):
    assert set(COCO_DETECTION.average_precision([], folder).values()) == {0.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}], "number 0 must be a record of image_id, category_id"),
        ([box(1, [0, 0, 1], score=1)], "not x, y, width, height"),
        ([box(1, [0, 0, float("nan"), 1], score=1)], "number 0 cannot be scored: its box has a number that is not"),
        ([box(1, [0, 0, -1, 1], score=1)], "not x, y, width, height"),
        ([box(1, None, score=1)], "its box is None"),
        ([box(1, [0, 0, 1, 1], score="1")], "its score has '1'"),
        ([box([1], [0, 0, 1, 1], score=1)], "its image_id is"),
        ([box(7, [0, 0, 1, 1], score=1)], "the image 7, which"),
        (["box"], "number 0 must be a record"),
    ],
)
def test_detections_that_are_none_are_refused(folder, wrong, message):
    with pytest.raises(UsageError, match=message):
        COCO_DETECTION.average_precision(wrong, folder)


def test_annotations_that_cannot_be_used_are_passed_over_and_named(folder):
    file = folder / "annotations/instances_val2017.json"
    truth = json.loads(file.read_text())
    right = truth["annotations"]
    odd = [right[0] | {"id": 90, "bbox": shape} for shape in ([], [1, 2], [0, 0, math.nan, 1], [0, 0, 1e12, 1], None)]
    odd += [{name: value for name, value in right[0].items() if name != field} for field in right[0]]
    odd += [right[0] | {"image_id": 77}, right[0] | {"category_id": 77}, right[0] | {"area": "1"}, "box"]
    found = [box(1, [10, 10, 40, 40], score=0.9), box(2, [20, 30, 40, 40], score=0.8)]
    for each in odd:
        file.write_text(json.dumps(truth | {"annotations": [*right, each]}))
        with pytest.warns(UserWarning, match=r"instances_val2017\.json: skipped (the )?annotation"):
            assert COCO_DETECTION.average_precision(found, folder)["ap"] == pytest.approx(100)


def test_segmentations_are_checked_where_masks_are_needed(folder):
    file = folder / "annotations/instances_val2017.json"
    truth = json.loads(file.read_text())
    good, bad = truth["annotations"]
    good["segmentation"], bad["segmentation"] = [[10, 10, 50, 10, 50, 50]], [[10, 10, 1e9, 10, 50, 50]]
    file.write_text(json.dumps(truth))
    assert len(read_truth(file)["annotations"]) == 2
    with pytest.warns(UserWarning, match=r"skipped annotation 2 \(1e\+09 is far outside"):
        assert read_truth(file, masks=True)["annotations"] == [good]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"images": [1], "annotations": [], "categories": []}'])
def test_annotations_in_another_format_are_refused(folder, content):
    (folder / "annotations/instances_val2017.json").write_text(content)
    with pytest.raises(UsageError, match=r"instances_val2017\.json"):
        COCO_DETECTION.average_precision([], folder)


def test_missing_files_say_what_to_get(tmp_path, folder):
    with pytest.raises(UsageError, match=r"instances_train2017\.json.*annotations_trainval2017\.zip"):
        COCO_DETECTION.average_precision([], folder, split="train2017")
    with pytest.raises(UsageError, match="'test-dev' of coco-detection"):
        COCO_DETECTION.average_precision([], folder, split="test-dev")
    with pytest.raises(UsageError, match=r"No such file: .*none\.json"):
        COCO_DETECTION.average_precision(tmp_path / "none.json", folder)


def test_a_torchvision_detector_s_output_becomes_coco_s_records():
    found = {
        "boxes": torch.tensor([[1.0, 2, 11, 22], [0, 0, 5, 5]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.75, 0.5]),
    }
    assert results(9, found, categories=[18, 44]) == [
        {"image_id": 9, "category_id": 44, "bbox": [1, 2, 10, 20], "score": 0.75},
        {"image_id": 9, "category_id": 18, "bbox": [0, 0, 5, 5], "score": 0.5},
    ]
    assert [each["category_id"] for each in results(9, found)] == [2, 1]
