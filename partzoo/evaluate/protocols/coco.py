"""``coco-detection``: a protocol that scores detected boxes against COCO's annotations."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partzoo.data.annotations import (
    UnusableError,
    check_area,
    check_ids,
    check_segmentation,
    checked_box,
    finite_numbers,
    usable,
)
from partzoo.data.reading import need, read_json
from partzoo.errors import UsageError, require
from partzoo.evaluate.measurement import Measurement, Request, Run
from partzoo.files import parse_json, reading
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_FIELDS = ("image_id", "category_id", "bbox", "score")
_TRUTH_FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


@dataclass(frozen=True)
class DetectionProtocol:
    """A protocol that measures the average precision of detections.

    Attributes:
        name: name for ``partzoo.evaluate.protocols.get``.
        annotations: annotation file of each split, inside the data's folder.
        source: paper and section that defines the rules.
        rules: the same rules in a few sentences, for the docs.
        get: instructions for the download, and the expected layout of the folder.
        train, test: split that a detector is trained on and split that figures are reported on.
    """

    name: str
    annotations: dict[str, str]
    source: str
    rules: str
    get: str
    train: str = "train2017"
    test: str = "val2017"

    def average_precision(
        self, detections: Sequence[dict[str, Any]] | str | Path, data: str | Path, *, split: str | None = None
    ) -> dict[str, float]:
        """Compute the average precision of boxes, in per cent.

        Args:
            detections: list, or a JSON file with a list, in COCO's results format: ``image_id``, ``category_id``,
                ``bbox`` (x, y, width, height in the image's pixels) and ``score`` each.
            data: folder with ``annotations/``.
            split: split to score on; None uses ``test``.

        Returns:
            ``ap`` (mean over IoU 0.50, 0.55, ..., 0.95), ``ap50``, ``ap75``, and ``ap_small``, ``ap_medium`` and
            ``ap_large``; NaN if no annotated object has that size.

        Raises:
            UsageError: the split is unknown, the annotations are missing, or a detection is not in the format.
            MissingExtraError: pycocotools is not installed.
        """
        split = split or self.test
        if split not in self.annotations:
            raise UsageError(f"Unknown split {split!r} of {self.name}; the splits are {', '.join(self.annotations)}.")
        file = need(self.name, data, [self.annotations[split]], self.get) / self.annotations[split]
        found, dataset = _read(detections), read_truth(file)
        coco, evaluation = require("pycocotools.coco", "coco"), require("pycocotools.cocoeval", "coco")
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco.COCO()
            truth.dataset = dataset
            truth.createIndex()
            if unknown := {detection["image_id"] for detection in found} - set(truth.imgs):
                raise UsageError(
                    f"Detections name the image {min(unknown)}, which {file} lacks. Detect in the split's images."
                )
            if not found:
                return dict.fromkeys(_FIGURES, 0.0)
            scorer = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
        return {
            name: 100 * float(value) if value >= 0 else float("nan")
            for name, value in zip(_FIGURES, scorer.stats, strict=False)
        }


class DetectionMeasurement(Measurement):
    """An evaluation of the detections in a JSON file, which takes the place of a model."""

    def __init__(self, rules: DetectionProtocol, request: Request) -> None:
        self.rules, self.request = rules, request
        self.detections = Path(request.model)
        if not self.detections.is_file():
            raise UsageError(f"{self.detections} is not there: {rules.name} takes a JSON file of detections for MODEL.")
        self.weights, self.identity = hashlib.sha256(self.detections.read_bytes()).hexdigest(), {}

    @staticmethod
    def reported_split(rules: DetectionProtocol) -> str:
        return rules.test

    def measure(self, progress: ProgressCallback | None, pass_over: PassOver) -> tuple[list[Run], int]:
        figures = self.rules.average_precision(self.detections, self.request.data, split=self.request.split)
        images = {each["image_id"] for each in parse_json(self.detections.read_bytes())}
        return [{"k": None, "seed": None, "metrics": figures}], len(images)


def results(image_id: int, found: Mapping[str, Any], categories: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Convert the output of one of torchvision's detectors for an image to COCO's results format.

    Args:
        image_id: id of the image in COCO.
        found: ``boxes`` (N, 4) as left, top, right, bottom in the image's pixels, ``labels`` and ``scores`` (N,).
        categories: COCO's id of each label from 1 on, label 0 being the background; None if labels are ids already.

    Returns:
        A record for each box, for :meth:`DetectionProtocol.average_precision`.
    """
    rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": categories[label - 1] if categories else label,
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for (left, top, right, bottom), label, score in rows
    ]


def read_truth(file: Path, *, masks: bool = False) -> dict[str, Any]:
    """Read COCO's JSON without the annotations that cannot be used, which a warning names.

    Args:
        file: JSON file.
        masks: whether segmentations are needed; segmentations of crowds are not.

    Raises:
        UsageError: the file is not in COCO's format.
    """
    dataset = read_json(file)
    with reading(file, UsageError, "is not in COCO's format"):
        sizes = {each["id"]: (each.get("height"), each.get("width")) for each in dataset["images"]}
        categories = {each["id"] for each in dataset["categories"]}
        annotations = list(dataset["annotations"])

    def check(annotation: dict) -> None:
        if annotation["image_id"] not in sizes:
            raise UnusableError(f"its image {annotation['image_id']} is not listed")
        if annotation["category_id"] not in categories:
            raise UnusableError(f"its category {annotation['category_id']} is not listed")
        check_area(annotation)
        height, width = sizes[annotation["image_id"]]
        known = isinstance(height, int) and isinstance(width, int)
        checked_box(annotation["bbox"], (height, width) if known else None)
        if masks and not annotation["iscrowd"]:
            if not known:
                raise UnusableError(f"the size of its image {annotation['image_id']} is not stated")
            check_segmentation(annotation.get("segmentation"), (height, width))

    return dataset | {"annotations": usable(file, annotations, _TRUTH_FIELDS, check)}


def _read(detections: Sequence[dict[str, Any]] | str | Path) -> list[dict[str, Any]]:
    """Copy detections with whole numbers as ids, because scoring modifies them."""
    origin = "Detections"
    found: Any = detections
    if isinstance(detections, (str, Path)):
        origin = str(detections)
        with reading(origin, UsageError, "cannot be read as JSON", "write it again"):
            found = parse_json(Path(detections).read_bytes())
            if not isinstance(found, list):
                raise TypeError(f"it holds a {type(found).__name__}, not a list")
    for number, detection in enumerate(found):
        if not isinstance(detection, dict) or any(name not in detection for name in _FIELDS):
            raise UsageError(f"{origin}: number {number} must be a record of {', '.join(_FIELDS)}: {detection!r:.80}")
        try:
            checked_box(detection["bbox"])
            finite_numbers([detection["score"]], "its score")
            check_ids(detection)
        except UnusableError as error:
            raise UsageError(f"{origin}: number {number} cannot be scored: {error}. Run the detector again.") from error
    return [{name: detection[name] for name in _FIELDS} for detection in found]


COCO_DETECTION = DetectionProtocol(
    name="coco-detection",
    annotations={split: f"annotations/instances_{split}.json" for split in ("train2017", "val2017")},
    source="PART, section 8.1; Lin et al., 'Microsoft COCO: Common Objects in Context', ECCV 2014",
    rules=(
        "COCO's code computes the average precision of boxes on val2017: AP over IoU 0.50 to 0.95, AP50 and AP75, "
        "with at most 100 boxes per image. The paper finetunes Mask R-CNN in ViTDet's configuration on train2017 for "
        "12 epochs at 1,024 px."
    ),
    get=(
        "Download http://images.cocodataset.org/annotations/annotations_trainval2017.zip and give the folder with "
        "annotations/instances_val2017.json (--data DIR)."
    ),
)
