"""Read label maps from the files of annotation tools: COCO, LabelMe, YOLO and GeoJSON (QuPath).

What these files hold is drawn in their order, so later annotations cover earlier ones. Polygons are filled as
pycocotools fills them, which gives back exactly what partzoo wrote.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from partzoo.data.annotations import UnusableError, finite_numbers, rasterized, warn_passed_over
from partzoo.errors import PartzooError, UsageError
from partzoo.files import check_version, parse_json, reading
from partzoo.images.decoding import pillow_limit
from partzoo.limits import MAX_BYTES, MAX_PIXELS

SUFFIXES = (".json", ".geojson", ".txt")
FORMAT = 1  # newest version of the entries that partzoo adds to these files
CIRCLE = 128  # corners of the polygon that a circle is drawn as
LARGEST = 65535  # largest label number


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The labels of one image.

    Attributes:
        labels: ``(H, W)`` uint16, 0 background, i for the i-th name.
        names: names of the labels, present in the image or not.
        source: path of the image as the file states it, or an empty string.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class Shape:
    """One annotated region.

    Attributes:
        title: name of the region in messages, such as ``shape 3``.
        label: name of what it shows, or its number.
        draw: function that returns the region as a mask ``(H, W)`` bool of the given size; raises
            :class:`UnusableError`.
    """

    title: str
    label: str | int
    draw: Callable[[tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        shapes: the regions, in the order in which they are drawn.
        size: ``(height, width)`` of the image, or None if the file does not state it.
        names: names of the labels 1, 2, ...; a file may state none or not all.
        source: path of the image as the file states it, or an empty string.
        passed: regions that cannot be used, and why.
    """

    shapes: list[Shape]
    size: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    source: str = ""
    passed: list[tuple[str, str]] = field(default_factory=list)


def read_labels(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    image: str = "",
) -> LabelMap:
    """Read the labels of one image.

    Args:
        path: COCO (``.json``, run lengths or polygons), LabelMe (``.json``), YOLO segmentation (``.txt``, with the
            names in a ``data.yaml`` beside it or up to two folders above), or GeoJSON (``.geojson`` or ``.json``).
        size: ``(height, width)`` of the image; needed where the file does not state it (YOLO, and GeoJSON by others).
        names: names of the labels 1, 2, ...; by default the file's. Names that the file uses but does not list follow
            in alphabetical order, with numbers in them compared as numbers.
        image: path of the image, which selects its annotations in a COCO file of several images.

    Returns:
        The labels. Regions that cannot be used, such as points and lines, are named in one warning.

    Raises:
        UsageError: the size is missing or differs from the file's, a label is not among the names, or the image is not
            in the file.
        PartzooError: the file is missing or damaged.
        MissingExtraError: pycocotools, which draws polygons, is not installed.
    """
    of_yolo = path.suffix.lower() == ".txt"
    listed = _yolo_names(path) if of_yolo else ()
    with reading(path, problem="is damaged", fix="write it again"):
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        content = _yolo(path, listed) if of_yolo else _json(path, image)
        return _drawn(path, content, _size(path, content.size, size), names)


def _drawn(path: Path, content: Content, size: tuple[int, int], names: Sequence[str] | None) -> LabelMap:
    """Draw what a file holds, and name it."""
    found = tuple(content.names if names is None else names)
    used = {shape.label for shape in content.shapes if isinstance(shape.label, str)}
    if names is None:
        found += tuple(sorted(used - set(found), key=_natural))
    elif unknown := used - set(found):
        raise UsageError(f"{str(path)!r} has the label {min(unknown)!r}, which is not among names={list(found)!r:.80}.")
    numbers = {name: number for number, name in reversed(list(enumerate(found, 1)))}
    labels = np.zeros(size, np.uint16)
    passed = list(content.passed)
    for shape in content.shapes:
        number = numbers[shape.label] if isinstance(shape.label, str) else shape.label
        try:
            if not 1 <= number <= (LARGEST if names is None else len(found)):
                raise UnusableError(f"its label is number {number}, which has no name")
            labels[shape.draw(size)] = number
        except UnusableError as error:
            passed.append((shape.title, str(error)))
    warn_passed_over(path, passed)
    found += tuple(f"part {number}" for number in range(len(found) + 1, int(labels.max(initial=0)) + 1))
    return LabelMap(labels, found, content.source)


def _size(path: Path, stated: tuple[int, int] | None, given: tuple[int, int] | None) -> tuple[int, int]:
    if stated is None and given is None:
        raise UsageError(f"{str(path)!r} does not state the size of its image: pass image=.")
    if stated is not None and given is not None and stated != given:
        raise UsageError(
            f"{str(path)!r} is for an image of {stated[0]} x {stated[1]} pixels, and the image has {given[0]} x "
            f"{given[1]} (height x width): they do not belong together."
        )
    height, width = stated or given or (0, 0)
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS):
        raise PartzooError(f"{str(path)!r} is damaged (its image has {height} x {width} pixels).")
    return height, width


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names as numbers, of any length: ``part 2`` before ``part 10``."""
    pieces = [piece.lstrip("0") if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name) if piece]
    return [(len(piece) if piece.isdecimal() else LARGEST, piece) for piece in pieces]


def _json(path: Path, image: str) -> Content:
    data = parse_json(path.read_bytes())
    if isinstance(data, list):  # as QuPath writes it without "export as FeatureCollection"
        data = {"type": "FeatureCollection", "features": data}
    if data.get("type") == "Feature":
        data = {"type": "FeatureCollection", "features": [data]}
    for about in (data.get("partzoo"), data.get("info")):
        written = about.get("format", about.get("partzoo_format")) if isinstance(about, dict) else None
        check_version(written, FORMAT, repr(str(path)), PartzooError)
    if data.get("type") == "FeatureCollection":
        return _geojson(data)
    if "shapes" in data:
        return _labelme(data)
    if "annotations" in data and "images" in data:
        return _coco(data, path, image)
    raise ValueError("it is neither COCO nor LabelMe nor GeoJSON")


def _coco(data: dict, path: Path, image: str) -> Content:
    images = data["images"]
    chosen = images if len(images) == 1 else [each for each in images if _same_image(each["file_name"], image)]
    if len(chosen) != 1:
        which = f"{len(chosen)} of them fit {image!r}" if image else "name one with image="
        raise UsageError(f"{str(path)!r} holds {len(images)} images: {which}.")
    about = chosen[0]
    categories = {each["id"]: str(each["name"]) for each in data.get("categories", ())}
    # Ids are kept as they are; only those that are no part numbers, such as 0, are counted from 1.
    plain = all(type(each) is int and 1 <= each <= LARGEST for each in categories)
    order = range(1, max(categories, default=0) + 1) if plain else sorted(categories)
    names = tuple(categories.get(each, f"part {each}") for each in order)
    ids = [each["id"] for each in images]
    shapes, passed = [], []
    for place, each in enumerate(data["annotations"]):
        title = f"annotation {each.get('id', place)}"
        if each.get("image_id") != about["id"]:
            if each.get("image_id") not in ids:
                passed.append((title, f"its image {each.get('image_id')!r:.40} is not listed"))
            continue
        if each.get("category_id") not in categories:
            passed.append((title, f"its category {each.get('category_id')!r:.40} is not listed"))
            continue
        shapes.append(Shape(title, categories[each["category_id"]], partial(rasterized, each.get("segmentation"))))
    return Content(shapes, (int(about["height"]), int(about["width"])), names, str(about["file_name"]), passed)


def _same_image(name: str, image: str) -> bool:
    """Return whether a path in a data set, relative to an unknown folder, may be that of an image."""
    stated, given = PurePosixPath(name).parts, PurePosixPath(Path(image).as_posix()).parts
    return bool(stated and given) and stated[-len(given) :] == given[-len(stated) :]


def _labelme(data: dict) -> Content:
    size = (data.get("imageHeight"), data.get("imageWidth"))
    stated = None if None in size else (int(size[0]), int(size[1]))  # type: ignore[arg-type]
    about = data.get("partzoo") or {}
    shapes = [
        Shape(f"shape {place}", str(each["label"]), partial(_labelme_mask, each))
        for place, each in enumerate(data["shapes"], 1)
    ]
    return Content(shapes, stated, tuple(map(str, about.get("names", ()))), str(data.get("imagePath") or ""))


def _labelme_mask(shape: dict, size: tuple[int, int]) -> np.ndarray:
    kind = shape.get("shape_type") or "polygon"
    points = np.array([finite_numbers(point, "a point")[:2] for point in shape["points"]])
    if kind in ("polygon", "oriented_rectangle"):
        return rasterized([points.ravel().tolist()], size)
    if kind not in ("rectangle", "circle", "mask"):
        raise UnusableError(f"it is a {kind}, which has no area")
    if points.shape != (2, 2):
        raise UnusableError(f"a {kind} has two points, not {len(points)}")
    low, high = points.min(0), points.max(0)
    if kind == "rectangle":
        return rasterized([[*low, high[0], low[1], *high, low[0], high[1]]], size)
    if kind == "circle":
        turns = np.linspace(0, 2 * np.pi, CIRCLE, endpoint=False)
        radius = float(np.hypot(*(points[1] - points[0])))
        return rasterized([(points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], 1)).ravel().tolist()], size)
    return _pasted(shape.get("mask"), low.round().astype(int), size)


def _pasted(text: Any, corner: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask in which a smaller one, an encoded PNG, has its upper left corner at (x, y)."""
    try:
        with pillow_limit(MAX_PIXELS), Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as opened:
            small = np.asarray(opened.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError) as error:
        raise UnusableError(f"its mask cannot be read ({error})") from None
    (left, top), (height, width) = corner.tolist(), small.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise UnusableError("its mask reaches outside the image")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = small
    return mask


def _geojson(data: dict) -> Content:
    about = data.get("partzoo") or {}
    size = (int(about["height"]), int(about["width"])) if about else None
    shapes, passed = [], []
    for place, each in enumerate(data["features"], 1):
        title, properties = f"feature {place}", each.get("properties") or {}
        label = _class_of(properties)
        if label is None:
            passed.append((title, "it has no classification"))
        else:
            shapes.append(Shape(title, label, partial(_geometry_mask, each.get("geometry"))))
    return Content(shapes, size, tuple(map(str, about.get("names", ()))), str(about.get("source", "")), passed)


def _class_of(properties: Mapping[str, Any]) -> str | None:
    """Return the class of a feature of QuPath: of an object with several, the names joined as QuPath shows them."""
    found = properties.get("classification")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names", ())))
    return str(found) if found else None


def _geometry_mask(geometry: Any, size: tuple[int, int]) -> np.ndarray:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise UnusableError(f"it is a {kind}, which has no area")
    several = geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]
    mask = np.zeros(size, bool)
    for outer, *holes in several:
        region = rasterized([_flat(outer)], size)
        for hole in holes:
            region &= ~rasterized([_flat(hole)], size)
        mask |= region
    return mask


def _flat(ring: Sequence[Sequence[float]]) -> list[float]:
    return [value for corner in ring for value in corner[:2]]


def _yolo(path: Path, names: tuple[str, ...]) -> Content:
    shapes, passed = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        values = line.split()
        if not values:
            continue
        category, *corners = map(float, values)
        if not category.is_integer():
            raise ValueError(f"line {number} begins with {values[0]}, which is not a class")
        if len(corners) < 6 or len(corners) % 2:
            passed.append((f"line {number}", f"it has {len(corners)} coordinates, which is not a polygon"))
            continue
        shapes.append(Shape(f"line {number}", int(category) + 1, partial(_scaled, corners)))
    return Content(shapes, names=names, passed=passed)


def _scaled(corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Draw a polygon whose corners are shares of the image's width and height."""
    return rasterized([(np.reshape(corners, (-1, 2)) * size[::-1]).ravel().tolist()], size)


def _yolo_names(path: Path) -> tuple[str, ...]:
    """Return the names in the data set's ``data.yaml``, or none if there is no such file."""
    import yaml  # huggingface_hub and timm bring it

    for folder in list(path.absolute().parents)[:3]:
        file = folder / "data.yaml"
        if not file.is_file():
            continue
        with reading(file, problem="has no names", fix="write it again"):
            return _listed(yaml.safe_load(file.read_text(encoding="utf-8"))["names"])
    return ()


def _listed(names: Any) -> tuple[str, ...]:
    """Return the names of a list, or of a table whose keys count from 0; aliases would make nested ones gigantic."""
    if isinstance(names, dict):
        if not all(type(number) is int and 0 <= number < LARGEST for number in names):
            raise ValueError(f"the numbers of its names are not 0 to {LARGEST - 1}")
        names = [names.get(number, f"part {number + 1}") for number in range(max(names, default=-1) + 1)]
    if (
        not isinstance(names, list)
        or len(names) > LARGEST
        or any(isinstance(each, (list, dict, set)) for each in names)
    ):
        raise ValueError(f"they are not a list of at most {LARGEST} words")
    return tuple(map(str, names))
