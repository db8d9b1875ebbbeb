"""Stages without a model, which compute at once and in forked processes."""

import numpy as np

import partzoo
from partzoo.collections.stages import Stage
from partzoo.limits import MAX_BYTES, MAX_PIXELS
from partzoo.parts.coco import run_lengths


class Means(partzoo.ExtractFeatures):
    """Features that are the mean colour of an image."""

    def threads(self):
        return 1

    def row(self, image):
        return {"pooled": np.float32(image.pixels.mean((0, 1)))}

    def fields(self):
        import pyarrow as pa

        return [("pooled", pa.list_(pa.float32(), 3))]


class Halves(Stage):
    """Two parts: the upper and the lower half of an image; an image of one row has the lower half alone."""

    name = "parts"
    names = ("top", "bottom")

    def __init__(self):
        super().__init__(image="image", key="key", device=None, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)

    def load(self):
        return None

    def settings(self):
        return {"stage": self.name, "model": "halves"}

    def fields(self):
        import pyarrow as pa

        kinds = {"part": pa.int32(), "area": pa.int64(), "box": pa.list_(pa.int32(), 4), "rle": pa.string()}
        return [("parts", pa.list_(pa.struct(list(kinds.items()))))]

    def row(self, image):
        half = image.size[0] // 2
        spans = ((1, 0, half), (2, half, image.size[0]))
        return {"parts": [self._part(*span, image.size) for span in spans if span[1] < span[2]]}

    def _part(self, number, top, bottom, size):
        mask = np.zeros(size, bool)
        mask[top:bottom] = True
        about = {"part": number, "area": int(mask.sum()), "box": [0, top, size[1], bottom]}
        return about | {"rle": run_lengths(mask)["counts"]}
