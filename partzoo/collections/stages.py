"""Stages: callables from a batch of images to an Arrow table, for partzoo's own engines and for any other.

A stage can be pickled, takes a batch in the form that Ray Data, pandas, pyarrow or a plain loop gives it, and returns
one row for each image, in order. An image that cannot be read is a row with an error, not an exception.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import numpy as np

from partzoo.collections.opening import open_record
from partzoo.discovery.vocabulary import PartVocabulary, read_vocabulary
from partzoo.errors import PartzooError, UsageError, require
from partzoo.features import DEFAULT_MODEL, Features, encoder_of, extract_features, name_of
from partzoo.files import fingerprint
from partzoo.images.ahead import work_ahead
from partzoo.images.opening import OpenedImage
from partzoo.limits import MAX_BYTES, MAX_PIXELS
from partzoo.models.base import threads_for
from partzoo.parts.coco import run_lengths
from partzoo.parts.parts import default_names
from partzoo.skipping import reason_of

if TYPE_CHECKING:
    import pyarrow
    from torch import nn

    from partzoo.models.engines.running import Engine
    from partzoo.parts.parts import Parts
    from partzoo.system.device import Device

FeatureType = Literal["float32", "float16"]

BLANK = 64  # side in pixels of the blank image whose result shows how wide the rows are


class Stage(ABC):
    """A callable from a batch of images to an Arrow table.

    Args:
        image: name of the batch's column of images: encoded bytes, paths, addresses, PIL images or arrays, mixed as
            they come.
        key: name of the column of keys; a batch without one gets the rows' numbers in the batch.
        device: where the models run, as for :func:`partzoo.load`.
        max_pixels, max_bytes: largest image to decode and largest file to read.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    name: ClassVar[str]  # of the folder of the shards
    names: tuple[str, ...] = ()  # of the parts

    def __init__(self, *, image: str, key: str, device: Device, max_pixels: int, max_bytes: int) -> None:
        require("pyarrow", "collections")
        self.image, self.key, self.device = image, key, device
        self.limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}
        self._id = uuid.uuid4().hex

    def __eq__(self, other: object) -> bool:
        """Compare by origin, so that the copies that arrive with each task of a worker share one loaded model."""
        return isinstance(other, Stage) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    @abstractmethod
    def load(self) -> Any:
        """Load the models."""

    def threads(self) -> int:
        """Return the number of threads that may use the models at a time."""
        return 1

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all that the rows depend on except the images, as JSON can hold it."""

    @abstractmethod
    def fields(self) -> list[tuple[str, Any]]:
        """Return the names and Arrow types of the columns between the image's size and ``error``."""

    @abstractmethod
    def row(self, image: OpenedImage) -> dict[str, Any]:
        """Compute the values of these columns for one image."""

    @functools.cached_property
    def schema(self) -> pyarrow.Schema:
        """Columns of the table; the models are loaded to know their widths. Names of parts are in the metadata."""
        import pyarrow as pa

        size = [("key", pa.string()), ("height", pa.int32()), ("width", pa.int32())]
        about = {"names": json.dumps(self.names)} if self.names else None
        return pa.schema([*size, *self.fields(), ("error", pa.string())], metadata=about)

    def __call__(self, batch: Any) -> pyarrow.Table:
        """Compute the rows of a batch.

        Args:
            batch: mapping from column names to sequences of equal length, a pandas data frame, or an Arrow table.

        Returns:
            Table with a row for each image. ``error`` is null, or the reason why the image could not be read; then all
            columns but the key are null.

        Raises:
            UsageError: the batch has no such column of images, or as many keys.
        """
        import pyarrow as pa

        images, keys = _columns(batch, self.image, self.key)
        rows: list[dict[str, Any]] = [{} for _ in images]

        def read(index: int) -> OpenedImage:
            return open_record(images[index], keys[index], **self.limits)

        def row(index: int, found: OpenedImage) -> dict[str, Any]:
            height, width = found.size
            return {"key": keys[index], "height": height, "width": width, **self.row(found)}

        def pass_over(index: int, error: PartzooError) -> None:
            rows[index] = {"key": keys[index], "error": reason_of(error)}

        threads = self.threads() if len(images) > 1 else 1
        for index, found in work_ahead(read, row, range(len(images)), pass_over=pass_over, threads=threads):
            rows[index] = found
        return pa.Table.from_pylist(rows, schema=self.schema)


@functools.lru_cache(maxsize=2)
def _loaded(stage: Stage) -> Any:
    return stage.load()


class ExtractFeatures(Stage):
    """Compute an encoder's features: ``pooled``, and with ``dense`` the vectors of all cells, row by row of the grid.

    The table has ``key``, ``height``, ``width``, ``pooled`` (C values), with ``dense`` also ``rows``, ``columns`` and
    ``dense`` (rows * columns vectors of C values), and ``error``.

    Args:
        model: name of an encoder, or an encoder; None uses the bundled default.
        size, layer: as for :func:`partzoo.extract_features`.
        dense: whether to return the features of all cells.
        dtype: type of the values, ``"float32"`` or ``"float16"``.
        engine: what runs a model given by name, as for :func:`partzoo.load`.
        image, key, device, max_pixels, max_bytes: see :class:`Stage`.
    """

    name = "features"

    def __init__(
        self,
        model: str | nn.Module | None = None,
        *,
        size: int | None = None,
        layer: int | None = None,
        dense: bool = False,
        dtype: FeatureType = "float32",
        engine: Engine = "torch",
        image: str = "image",
        key: str = "key",
        device: Device = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(image=image, key=key, device=device, max_pixels=max_pixels, max_bytes=max_bytes)
        if dtype not in (choices := get_args(FeatureType)):
            raise UsageError(f"dtype={dtype!r} must be one of {', '.join(choices)}.")
        self.model, self.size, self.layer, self.dense = model, size, layer, dense
        self.dtype, self.engine = dtype, engine

    def load(self) -> Any:
        return encoder_of(self.model, self.device, self.engine)

    def threads(self) -> int:
        return threads_for(_loaded(self))

    def settings(self) -> dict[str, Any]:
        model = DEFAULT_MODEL if self.model is None else self.model
        about = {
            "stage": self.name,
            "model": _named(model),
            "size": self.size,
            "layer": self.layer,
            "dense": self.dense,
        }
        about |= {} if self.dtype == "float32" else {"dtype": self.dtype}
        return about | ({} if self.engine == "torch" else {"engine": self.engine})

    def fields(self) -> list[tuple[str, Any]]:
        import pyarrow as pa

        values = pa.float32() if self.dtype == "float32" else pa.float16()
        vector = pa.list_(values, len(self._features(_blank()).pooled))
        grid = [("rows", pa.int32()), ("columns", pa.int32()), ("dense", pa.list_(vector))]
        return [("pooled", vector), *(grid if self.dense else [])]

    def row(self, image: OpenedImage) -> dict[str, Any]:
        found = self._features(image)
        row: dict[str, Any] = {"pooled": found.pooled.astype(self.dtype)}
        if self.dense:
            rows, columns = found.grid
            dense = found.dense.reshape(rows * columns, -1).astype(self.dtype)
            row |= {"rows": rows, "columns": columns, "dense": list(dense)}
        return row

    def _features(self, image: OpenedImage) -> Features:
        return cast(Features, extract_features(image, model=_loaded(self), size=self.size, layer=self.layer))


class DiscoverParts(Stage):
    """Find the parts of a vocabulary.

    The table has ``key``, ``height``, ``width``, ``quality``, ``parts`` and ``error``. ``parts`` lists the parts that
    the image has, each with ``part`` (its number), ``area`` in pixels, ``box`` (left, top, right, bottom, the last two
    exclusive), ``centroid`` (x, y), ``confidence``, ``descriptor`` (D float32), and ``rle``, COCO's compressed run
    lengths of its mask for an image of this height and width.

    Args:
        vocabulary: result of :func:`partzoo.fit_parts`, or a file in which it was saved.
        model: module that the vocabulary was fitted with, if it has no name.
        image, key, device, max_pixels, max_bytes: see :class:`Stage`.

    Raises:
        MissingExtraError: pyarrow or pycocotools is not installed.
        WeightsError: the vocabulary's file is missing or damaged.
    """

    name = "parts"

    def __init__(
        self,
        vocabulary: PartVocabulary | str | os.PathLike,
        *,
        model: str | nn.Module | None = None,
        image: str = "image",
        key: str = "key",
        device: Device = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(image=image, key=key, device=device, max_pixels=max_pixels, max_bytes=max_bytes)
        require("pycocotools.mask", "coco")
        found = read_vocabulary(vocabulary)
        if found is None:
            raise UsageError("vocabulary=None: pass the result of fit_parts, or its file.")
        self.vocabulary, self.model, self.names = found, model, found.names

    def load(self) -> Any:
        from partzoo.discovery.factory import finder_of  # with torch, which not every stage needs

        return finder_of(self.vocabulary, self.model, self.device)

    def threads(self) -> int:
        return _loaded(self).threads

    def settings(self) -> dict[str, Any]:
        options = json.dumps([dataclasses.asdict(self.vocabulary.settings), self.vocabulary.numbering])
        centres = np.ascontiguousarray(self.vocabulary.centres)
        digest = hashlib.sha256(options.encode() + centres.tobytes()).hexdigest()
        model = self.vocabulary.settings.model if self.model is None else self.model
        k = self.vocabulary.k
        names = None if self.names == default_names(k) else self.names
        about = {"stage": self.name, "k": k, "names": names, "vocabulary": f"sha256:{digest}"}
        return about | {"model": _named(model)}

    def fields(self) -> list[tuple[str, Any]]:
        import pyarrow as pa

        descriptors = self._parts(_blank()).descriptors
        width = 0 if descriptors is None else descriptors.shape[1]
        part = [
            ("part", pa.int32()),
            ("area", pa.int64()),
            ("box", pa.list_(pa.int32(), 4)),
            ("centroid", pa.list_(pa.float64(), 2)),
            ("confidence", pa.float32()),
            ("descriptor", pa.list_(pa.float32(), width)),
            ("rle", pa.string()),
        ]
        return [("quality", pa.float32()), ("parts", pa.list_(pa.struct(part)))]

    def row(self, image: OpenedImage) -> dict[str, Any]:
        parts = self._parts(image)
        return {"quality": parts.quality, "parts": [_about(parts, part) for part in parts.present]}

    def _parts(self, image: OpenedImage) -> Parts:
        finder = _loaded(self)
        return finder.label(image, finder.look(image), self.vocabulary)


def _about(parts: Parts, part: int) -> dict[str, Any]:
    """Return what a row says of one part."""
    place = part - 1
    return {
        "part": part,
        "area": parts.areas[place],
        "box": parts.boxes[place],
        "centroid": parts.centroids[place],
        "confidence": None if parts.confidences is None else parts.confidences[place],
        "descriptor": None if parts.descriptors is None else parts.descriptors[place],
        "rle": run_lengths(parts.mask(part))["counts"],
    }


def _columns(batch: Any, image: str, key: str) -> tuple[Sequence[Any], list[str]]:
    """Return the images and keys of a batch."""
    names = list(batch.keys()) if isinstance(batch, Mapping) else list(getattr(batch, "column_names", batch))
    if image not in names:
        raise UsageError(f"The batch has no column {image!r}: its columns are {', '.join(map(str, names))}.")
    images = _values(batch[image])
    keys = _values(batch[key]) if key in names else range(len(images))
    if len(keys) != len(images):
        raise UsageError(f"The batch has {len(images)} images, but {len(keys)} keys: pass one for each.")
    return images, [str(each) for each in keys]


def _values(column: Any) -> list[Any]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


def _named(model: str | nn.Module) -> str | None:
    """Return what identifies a model in the settings of a result."""
    return fingerprint(model) if isinstance(model, str) else name_of(model)


def _blank() -> OpenedImage:
    return OpenedImage(np.zeros((BLANK, BLANK, 3), np.uint8))
