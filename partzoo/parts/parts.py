"""``Parts``: the parts found in one image, at the image's original size."""

from __future__ import annotations

import html
import io
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from partzoo.errors import ShapeError, UsageError, counted, require
from partzoo.files import reading
from partzoo.images.strips import rows_of
from partzoo.parts import coco, detections, drawing, files, geojson, labelme, layers, yolo
from partzoo.parts.formats import Options, Segmentation
from partzoo.places import check_apart

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from supervision import Detections

NOTEBOOK_SIDE = 640


class Parts:
    """The parts of one image: a label for every pixel, and quantities derived from the labels.

    Parts are immutable, with read-only arrays, and equal if their labels, k, names and descriptors are. In ``areas``,
    ``centroids``, ``boxes``, ``confidences``, ``descriptors`` and ``names``, part i has index i - 1.

    Args:
        labels: ``(H, W)`` integers, 0 background, 1..k parts.
        k: number of parts, present in the image or not; the largest label by default.
        image: ``(H, W, 3)`` uint8, the image, for overlays and crops.
        scores: ``(k + 1, H, W)`` score maps, background first, or a function that computes them on first use.
        descriptors: ``(k, D)``, one vector for each part.
        names: k names; by default ``part 1``, ``part 2``, ...
        source: path or address of the image, for ``file_name`` in COCO.
        quality: confidence of the foreground, or share of a part model's parts that were found, 0..1.
        confidences: ``(k,)``, how clearly each part stands out, 0..1.

    Raises:
        ShapeError: a shape does not fit the labels or k.
        UsageError: labels are not integers in 0..k.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        k: int | None = None,
        image: np.ndarray | None = None,
        scores: np.ndarray | Callable[[], np.ndarray] | None = None,
        descriptors: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        source: str = "",
        quality: float = 1.0,
        confidences: np.ndarray | None = None,
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 2 or not labels.size:
            raise ShapeError(f"labels must be (H, W) with at least one pixel; they are {labels.shape}.")
        if labels.dtype.kind not in "iu":
            raise UsageError(f"labels must be integers; they are {labels.dtype}.")
        low, high = int(labels.min()), int(labels.max())
        k = high if k is None else int(k)
        if low < 0 or high > k or k > 65535:
            raise UsageError(f"labels lie in {low}..{high}: they must lie in 0..k with k={k} and k <= 65535.")
        self._k = k
        self._labels = _frozen(labels, np.uint8 if k <= 255 else np.uint16)
        if image is not None and (np.shape(image) != (*labels.shape, 3) or np.asarray(image).dtype != np.uint8):
            raise ShapeError(f"image must be {(*labels.shape, 3)} uint8, as the labels are {labels.shape}.")
        self._image = None if image is None else _frozen(image)
        self._descriptors = None if descriptors is None else _frozen(descriptors)
        if self._descriptors is not None and (self._descriptors.ndim != 2 or len(self._descriptors) != k):
            raise ShapeError(f"descriptors are {self._descriptors.shape}; for k={k} they must be ({k}, D).")
        self._names = default_names(k) if names is None else tuple(map(str, names))
        if len(self._names) != k:
            raise ShapeError(f"{counted(len(self._names), 'name')} for k={k}: give one for each part.")
        self._source = str(source)
        self._quality = float(quality)
        self._scores = scores if scores is None or callable(scores) else self._checked_scores(scores)
        self._confidences = None if confidences is None else _frozen(confidences, np.float32)
        if self._confidences is not None and self._confidences.shape != (k,):
            raise ShapeError(f"confidences are {self._confidences.shape}; for k={k} they must be ({k},).")

    @property
    def labels(self) -> np.ndarray:
        """``(H, W)`` uint8 (uint16 above 255 parts): 0 background, 1..k parts."""
        return self._labels

    @property
    def k(self) -> int:
        """Number of parts, present in the image or not; see ``present``."""
        return self._k

    @property
    def image(self) -> np.ndarray | None:
        """The image, ``(H, W, 3)`` uint8; None if unknown."""
        return self._image

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self._labels.shape[0], self._labels.shape[1]

    @property
    def scores(self) -> np.ndarray | None:
        """Score maps ``(k + 1, H, W)`` float32, background first, computed on first use; None if unknown."""
        if callable(self._scores):
            self._scores = self._checked_scores(self._scores())
        return self._scores

    @property
    def descriptors(self) -> np.ndarray | None:
        """One vector for each part, ``(k, D)``; None if unknown."""
        return self._descriptors

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k parts."""
        return self._names

    @property
    def source(self) -> str:
        """Path or address of the image; empty if unknown."""
        return self._source

    @property
    def quality(self) -> float:
        """How far to trust these parts, 0..1; 1 where that was not measured, as under a given mask.

        Of parts within a foreground that was found, it is the confidence in that foreground; of the parts of a part
        model, how many of them the image has.
        """
        return self._quality

    @property
    def confidences(self) -> np.ndarray | None:
        """How clearly each part stands out, ``(k,)`` float32, 0..1: the mean of its scores; None if unknown.

        The mean is taken over the cells of the grid in which the parts were found, weighted by the scores themselves.
        Values of parts that are absent from the image mean nothing.
        """
        return self._confidences

    @cached_property
    def areas(self) -> np.ndarray:
        """Number of pixels of each part, ``(k,)`` int64."""
        counts = (np.bincount(row, minlength=self.k + 1) for row in self._labels)  # by row: bincount copies to int64
        return _frozen(np.sum(list(counts), axis=0)[1:])

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Numbers of the parts that have pixels in the image, ascending."""
        return tuple(int(i) + 1 for i in np.flatnonzero(self.areas))

    @cached_property
    def centroids(self) -> np.ndarray:
        """Centroids ``(k, 2)`` float64, (x, y) in pixels from the top-left pixel's centre; NaN for absent parts."""
        columns, rows = self._profiles
        with np.errstate(invalid="ignore"):
            return _frozen(
                np.stack([counts @ np.arange(counts.shape[1]) / self.areas for counts in (columns, rows)], axis=1)
            )

    @cached_property
    def boxes(self) -> np.ndarray:
        """Boxes ``(k, 4)`` int64, (left, top, right, bottom), the last two exclusive; zeros for absent parts."""
        columns, rows = (counts > 0 for counts in self._profiles)
        right, bottom = (counts.shape[1] - counts[:, ::-1].argmax(1) for counts in (columns, rows))
        boxes = np.stack([columns.argmax(1), rows.argmax(1), right, bottom], axis=1)
        return _frozen(np.where(self.areas[:, None] > 0, boxes, 0))

    def mask(self, part: int) -> np.ndarray:
        """Return the mask ``(H, W)`` bool of one part, or of the background for 0.

        Raises:
            UsageError: the part is not in 0..k.
        """
        if not 0 <= part <= self.k:
            raise UsageError(f"part={part} does not exist: parts are 1..{self.k}, and 0 is the background.")
        return self._labels == part

    def overlay(
        self, *, alpha: float = 0.55, outlines: bool = True, numbers: bool = True, scale: int = 1
    ) -> Image.Image:
        """Draw the parts in colour over the image, or on white if the image is unknown.

        Args:
            alpha: opacity of the colours, 0..1.
            outlines: whether to draw lines between parts.
            numbers: whether to write each part's number inside it, or its name if it has one; ignored if a side is
                shorter than 48 pixels.
            scale: factor of enlargement before drawing, which gives small images room for lines and numbers.

        Returns:
            RGB PIL image ``(H * scale, W * scale)``.

        Raises:
            UsageError: alpha is outside 0..1, or scale below 1.
        """
        texts = {part: self.names[part - 1] for part in self.present if self.names[part - 1] != default_name(part)}
        return drawing.overlay(
            self._image, self._labels, self.k, alpha=alpha, outlines=outlines, numbers=numbers, scale=scale,
            texts=texts,
        )  # fmt: skip

    def plot(self) -> Figure:
        """Plot the image, the overlay and a legend with the parts' shares of the image, with matplotlib.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        pyplot = require("matplotlib.pyplot", "plot")
        overlay = self._large_overlay()
        shown = [overlay] if self._image is None else [self._image, overlay]
        columns = 2 * len(shown)
        height = 5 * min(max(self.size[0] / self.size[1], 0.25), 2) + 0.3 * (1 + len(self.present) / columns)
        figure, axes = pyplot.subplots(
            1, len(shown), squeeze=False, layout="constrained", figsize=(5 * len(shown), height)
        )
        for axis, image in zip(axes[0], shown, strict=True):
            axis.imshow(image)
            axis.set_axis_off()
        colours = drawing.palette(self.k) / 255
        keys = [
            pyplot.Rectangle((0, 0), 1, 1, color=colours[i], label=f"{i}  {name}  {share:.1%}")
            for i, name, share in self._rows()
        ]
        if keys:
            figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), columns), frameon=False)
        return figure

    def crops(self, *, margin: float = 0.0, masked: bool = False) -> dict[int, Image.Image]:
        """Cut the box of each present part from the image.

        Args:
            margin: margin on every side, as a share of the box's longer side.
            masked: whether to paint pixels outside the part white.

        Returns:
            Dictionary from the number of each present part to an RGB PIL image.

        Raises:
            UsageError: the image is unknown, or the margin is negative.
        """
        if self._image is None:
            raise UsageError("These parts do not hold their image: make them with image=.")
        if margin < 0:
            raise UsageError(f"margin={margin} must not be negative.")
        crops = {}
        for part in self.present:
            left, top, right, bottom = self.boxes[part - 1]
            pad = round(margin * max(right - left, bottom - top))
            window = np.s_[max(top - pad, 0) : bottom + pad, max(left - pad, 0) : right + pad]
            pixels = self._image[window]
            if masked:
                pixels = np.where(self._labels[window][..., None] == part, pixels, np.uint8(255))
            crops[part] = Image.fromarray(np.ascontiguousarray(pixels))
        return crops

    def to_coco(self, segmentation: Segmentation = "rle") -> dict:
        """Convert these parts to a COCO dataset of one image; see :func:`partzoo.parts.coco.to_coco`."""
        return coco.to_coco([self], segmentation)

    def to_labelme(self, folder: str | os.PathLike | None = None) -> dict:
        """Convert these parts to a file of LabelMe; see :func:`partzoo.parts.labelme.to_labelme`."""
        return labelme.to_labelme(self, folder)

    def to_geojson(self) -> dict:
        """Convert these parts to GeoJSON for QuPath; see :func:`partzoo.parts.geojson.to_geojson`."""
        return geojson.to_geojson(self)

    def to_yolo(self) -> str:
        """Convert these parts to segmentation labels of YOLO; see :func:`partzoo.parts.yolo.to_yolo`."""
        return yolo.to_yolo(self)

    def to_supervision(self) -> Detections:
        """Convert these parts to detections; see :func:`partzoo.parts.detections.to_supervision`."""
        return detections.to_supervision(self)

    def to_napari(self) -> list[layers.Layer]:
        """Convert these parts to layers of napari; see :func:`partzoo.parts.layers.to_napari`."""
        return layers.to_napari(self)

    def save(
        self,
        path: str | os.PathLike,
        *,
        scale: int | None = None,
        form: str | None = None,
        segmentation: Segmentation = "rle",
    ) -> None:
        """Write a file atomically, in the format that its suffix selects.

        Args:
            path: ``.index.png`` (palette PNG whose indices are the labels; 16-bit grey above 255 parts),
                other ``.png`` (overlay), ``.npz`` (labels, names, descriptors, image), ``.labelme.json`` (LabelMe),
                other ``.json`` (COCO), ``.geojson`` (QuPath), ``.txt`` (YOLO's segmentation labels).
            scale: factor of enlargement of an overlay; None enlarges its longer side to about 800 pixels.
            form: one of these suffixes, instead of the path's: an overlay of ``x.index.jpg`` may be called
                ``x.index.png``.
            segmentation: form of the masks in COCO, ``"rle"`` or ``"polygons"``.

        Raises:
            UsageError: the suffix is unknown, scale is below 1, or the file is the image that the parts belong to.
            PartzooError: the file cannot be written.
        """
        check_apart([path], [self.source])
        files.save(self, path, form, Options(scale, segmentation))

    @classmethod
    def load(cls, path: str | os.PathLike, *, image: Any = None, names: Sequence[str] | None = None) -> Parts:
        """Read a file written by :meth:`save`, or labels that an annotation tool has written or corrected.

        Only ``.npz`` holds the image and descriptors. Overlays cannot be read.

        Args:
            path: ``.npz``, ``.index.png``, ``.json`` (COCO or LabelMe), ``.geojson`` or ``.txt`` (YOLO). Later shapes
                cover earlier ones.
            image: the image, in any form that :func:`partzoo.images.opening.open_image` accepts. YOLO's labels and
                QuPath's GeoJSON need it, since they do not state its size; in a COCO file of several images it selects
                its annotations.
            names: names of the parts 1, 2, ...; by default the file's, see
                :func:`partzoo.data.label_files.read_labels`.

        Raises:
            UsageError: the suffix is not one of these, the image is needed or does not fit, or a label is not among
                the names.
            PartzooError: the file is missing or damaged.
            MissingExtraError: pycocotools, which draws polygons, is not installed.
        """
        fields = files.load(path, image, names)
        with reading(path, problem="holds values that do not fit together", fix="save it again"):
            return cls(**fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parts):
            return NotImplemented
        ours, theirs = self._descriptors, other._descriptors
        return (
            (self.k, self.names) == (other.k, other.names)
            and np.array_equal(self._labels, other._labels)
            and (ours is theirs or (ours is not None and theirs is not None and np.array_equal(ours, theirs)))
        )

    def __hash__(self) -> int:
        return hash((self.k, self.names, self.size, self._labels.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = ("k", "image", "scores", "descriptors", "names", "source", "quality", "confidences")
        return partial(Parts, **{field: getattr(self, field) for field in fields}), (self.labels,)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for _, name, share in self._rows()[:8])
        rest = ", ..." if len(self.present) > 8 else ""
        return f"<Parts: {self._found()}{': ' if shares else ''}{shares}{rest}>"

    def _repr_png_(self) -> bytes:
        image = self._large_overlay()
        image.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        data = io.BytesIO()
        image.save(data, "PNG")
        return data.getvalue()

    def _repr_html_(self) -> str:
        colours = drawing.palette(self.k)
        rows = "".join(
            f'<tr><td style="background:rgb{tuple(colours[i].tolist())};width:1.5em"></td><td>{i}</td>'
            f'<td style="text-align:left">{html.escape(name)}</td><td>{share:.1%}</td></tr>'
            for i, name, share in self._rows()
        )
        image = b64encode(self._repr_png_()).decode()
        return (
            '<div style="display:flex;gap:1em;align-items:center">'
            f'<img alt="parts" src="data:image/png;base64,{image}">'
            f"<table><caption>{self._found()}</caption>{rows}</table></div>"
        )

    def _large_overlay(self) -> Image.Image:
        return self.overlay(scale=max(1, NOTEBOOK_SIDE // max(self.size)))

    def _found(self) -> str:
        height, width = self.size
        return f"{len(self.present)} of {counted(self.k, 'part')} in {height}x{width} pixels"

    def _rows(self) -> list[tuple[int, str, float]]:
        """Return (number, name, share of the image) of each present part."""
        return [(i, self.names[i - 1], self.areas[i - 1] / self._labels.size) for i in self.present]

    @cached_property
    def _profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of pixels of each part in each column, ``(k, W)``, and in each row, ``(k, H)``."""

        columns = np.zeros((self.k + 1, self.size[1]), np.int64)
        rows = np.zeros((self.k + 1, self.size[0]), np.int64)
        for strip in rows_of(*self.size):  # in strips, because cells of int64 take eight times the labels
            labels = self._labels[strip]
            height, width = labels.shape
            across = labels.astype(np.int64) * width + np.arange(width)
            columns += np.bincount(across.ravel(), minlength=columns.size).reshape(-1, width)
            down = labels.astype(np.int64) * height + np.arange(height)[:, None]
            rows[:, strip] = np.bincount(down.ravel(), minlength=height * len(rows)).reshape(-1, height)
        return columns[1:], rows[1:]

    def _checked_scores(self, scores: np.ndarray) -> np.ndarray:
        scores = _frozen(scores, np.float32)
        if scores.shape != (self.k + 1, *self.size):
            raise ShapeError(f"scores are {scores.shape}; they must be {(self.k + 1, *self.size)}: k + 1 maps.")
        return scores


def default_name(part: int) -> str:
    """Return the name of a part that was given no other."""
    return f"part {part}"


def default_names(k: int) -> tuple[str, ...]:
    """Return the names of k parts that were given no others."""
    return tuple(map(default_name, range(1, k + 1)))


def _frozen(array: np.ndarray, dtype: type | None = None) -> np.ndarray:
    """Return a read-only copy, which later changes to the caller's array do not affect.

    An array that owns its memory and is read-only already is not copied, which would double a large image's memory.
    """
    if isinstance(array, np.ndarray) and array.flags.owndata and array.flags.c_contiguous and not array.flags.writeable:
        if dtype is None or array.dtype == dtype:
            return array
    array = np.array(array, dtype=dtype, order="C")
    array.setflags(write=False)
    return array
