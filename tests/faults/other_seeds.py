"""Small valid files of annotation tools, videos, and tables of runs, and how each is read."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

import partzoo
from partzoo.images.video import Video
from partzoo.report.results import Results
from partzoo.train import stages
from partzoo.train.experiment import keep_settings, read_rows
from partzoo.train.loop import Progress, _Log, run_folder

from .kinds import Kind, drawn, save_image, written

SQUARE = [[4.0, 4.0], [14.0, 4.0], [14.0, 14.5], [4.0, 14.0]]
RING = [[2, 2], [20, 2], [20, 20], [2, 20], [2, 2]]


# labels


def _labelme(folder: Path) -> Path:
    png = io.BytesIO()
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(png, "PNG")
    shapes: list[dict[str, Any]] = [
        {"label": "head", "shape_type": "polygon", "points": SQUARE},
        {"label": "part 2", "shape_type": "rectangle", "points": SQUARE[:3:2]},
        {"label": "part 10", "shape_type": "circle", "points": SQUARE[:2]},
        {"label": "head", "shape_type": "mask", "points": [[1, 1], [6, 5]], "mask": base64.b64encode(png.getvalue())},
    ]
    shapes[-1]["mask"] = shapes[-1]["mask"].decode()
    about = {"format": 1, "names": ["head", "tail"]}
    whole = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 24, "imageWidth": 40, "partzoo": about}
    return written("seed.json", json.dumps(whole))(folder)


def _feature(kind: str, coordinates: Any, **classification: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": classification}}


FEATURES = [
    _feature("Polygon", [RING, [[5, 5], [9, 5], [9, 9]]], name="head"),
    _feature("MultiPolygon", [[RING], [SQUARE]], names=["tail", "tip"]),
    _feature("Point", [3, 4], name="head"),
]
GEOJSON = {
    "type": "FeatureCollection",
    "features": FEATURES,
    "partzoo": {"format": 1, "height": 24, "width": 40, "names": ["head"], "source": "a.png"},
}
RUNS_OF_ONE = {"size": [24, 40], "counts": [100, 50, 810]}


def _coco(*names: str, **info: Any) -> str:
    return json.dumps({
        "info": info,
        "images": [{"id": i, "file_name": name, "height": 24, "width": 40} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "head"}, {"id": 3, "name": "tail"}, {"id": 2, "name": "x"}],
        "annotations": [
            {"id": 2 * i + j, "image_id": i, "category_id": 1 + 2 * j, "segmentation": segmentation}
            for i in range(len(names))
            for j, segmentation in enumerate(([[value for corner in SQUARE for value in corner]], RUNS_OF_ONE))
        ],
    })  # fmt: skip


def _of_several(folder: Path) -> Path:
    save_image(folder / "b.png")
    return written("seed.json", _coco("a.png", "b.png"))(folder)


def _found(folder: Path) -> Path:
    save_image(folder / "a.png")
    return written("seed.json", _coco("a.png", "b.png", partzoo_format=1))(folder)


def _yolo(target: str, names: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        lines = "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.2 0.2 0.9 0.2 0.9 0.9 0.2 0.9\n"
        written("data.yaml", f"path: .\ntrain: images\nval: images\nnames:{names}")(folder)
        written("labels/seed.txt", lines)(folder)
        return folder / target

    return build


def _read_parts(file: Path) -> list[np.ndarray]:
    found = partzoo.Parts.load(file)
    return [found.labels]


def _read_parts_of(image: Callable[[Path], Any], labels: str = "") -> Callable[[Path], list[np.ndarray]]:
    """Return a function that reads a file, or the ``labels`` beside it, with their image."""

    def read(file: Path) -> list[np.ndarray]:
        found = partzoo.Parts.load(file.parent / labels if labels else file, image=image(file))
        return [found.labels, found.image]

    return read


def _read_results(file: Path) -> int:
    results = Results([file])
    for parts in results:  # one at a time, as the report does
        assert parts.labels.size
    return results.count()


_OWN_IMAGE = _read_parts_of(lambda file: drawn())
LABELS = [
    Kind("labelme", "json", _labelme, _read_parts),
    Kind("geojson", "json", written("seed.geojson", json.dumps(GEOJSON)), _read_parts),
    Kind("geojson of qupath", "json", written("seed.geojson", json.dumps(FEATURES)), _OWN_IMAGE),
    Kind("coco of one image", "json", written("seed.json", _coco("a.png")), _read_parts),
    Kind("coco of several images", "json", _of_several, _read_parts_of(lambda file: file.with_name("b.png"))),
    Kind("yolo", "rows", _yolo("labels/seed.txt", " [head, tail]\n"), _OWN_IMAGE),
    Kind("yolo: list of names", "yaml", _yolo("data.yaml", "\n- head\n- tail\n"),
         _read_parts_of(lambda file: drawn(), "labels/seed.txt")),
    Kind("yolo: numbered names", "yaml", _yolo("data.yaml", "\n  0: head\n  1: tail\n"),
         _read_parts_of(lambda file: drawn(), "labels/seed.txt")),
    Kind("results of discover", "json", _found, _read_results),
]  # fmt: skip


# videos


def _video(ending: str, codec: str, form: str = "yuv420p") -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        file = folder / f"seed.{ending}"
        with av.open(str(file), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 24, 40, form
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(np.roll(drawn(), number, 1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return file

    return build


def _read_video(file: Path) -> int:
    video = Video(file)
    for number in range(min(len(video), 20)):
        assert video.frame(number).dtype == np.uint8
    return len(video)


VIDEOS = [
    Kind("mp4", "boxes", _video("mp4", "libx264"), _read_video),
    Kind("mov of jpegs", "boxes", _video("mov", "mjpeg", "yuvj420p"), _read_video),
    Kind("mkv", "bytes 4", _video("mkv", "ffv1"), _read_video),
    Kind("webm", "bytes 4", _video("webm", "libvpx-vp9"), _read_video),
    Kind("avi", "riff", _video("avi", "mpeg4"), _read_video),
]


# runs

LOG = "step,images,seconds,lr,loss\n" + "".join(f"{step},{8 * step},0.5,0.001,2.5\n" for step in range(1, 6))
ROW = "pretrained,10,{},0.61,0.71,900,10,5,100,12.5\n"
SETTINGS = {"data": "nights", "masked": 0.2, "loop": {"lr": 0.001, "epochs": 3}}


def _settings(folder: Path) -> Path:
    keep_settings(folder, SETTINGS)
    return folder / "settings.toml"


def _continue_log(file: Path) -> None:
    with _Log(run_folder(file.parent), False, Progress(step=3, images=24)) as log:
        log._forget()


def _read_stages(file: Path) -> int:
    return len(stages._done(read_rows(file, stages.COLUMNS), file))


RUNS = [
    Kind("log of a run", "rows", written("log.csv", LOG), _continue_log),
    Kind("sleep stages", "rows",
         written("stages.csv", ",".join(stages.COLUMNS) + "\n" + ROW.format(0) + ROW.format(1)), _read_stages),
    Kind("settings of an experiment", "toml", _settings, lambda file: keep_settings(file.parent, SETTINGS)),
]  # fmt: skip
