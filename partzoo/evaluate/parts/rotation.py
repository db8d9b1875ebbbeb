"""Rotate images with their landmarks or masks, to measure whether parts rotate with the object.

Source: PartFormer, section 4.5, table 7, which rotates all images by -30, -15, 15 or 30 degrees.
"""

from __future__ import annotations

import dataclasses
from math import cos, radians, sin
from typing import Any

import numpy as np
from PIL import Image

from partzoo.data.reading import Example
from partzoo.evaluate.protocols.base import PartProtocol


def rotated(example: Example, degrees: float, protocol: PartProtocol) -> Example:
    """Rotate an example about the middle of its image.

    Pixels from outside the image are black, and background in masks. A box keeps its width and height, and its centre
    rotates. If maps are read on a grid, landmarks that leave the image count as invisible; if they are read at
    the image's original size, the protocol leaves those landmarks out itself.

    Args:
        example: example in the protocol's frame.
        degrees: angle, counter-clockwise.
        protocol: protocol whose rules give the origin of points and the label of the background.
    """
    height, width = example.image.shape[:2]
    edge = 0.0 if protocol.grid else 0.5  # points are measured from the border, or from the first pixel's centre
    middle = np.array([width, height]) / 2 - edge

    def turn(points: np.ndarray) -> np.ndarray:
        c, s = cos(radians(degrees)), sin(radians(degrees))
        return (points - middle) @ np.array([[c, -s], [s, c]]) + middle

    image = Image.fromarray(example.image).rotate(degrees, Image.Resampling.BILINEAR)
    changes: dict[str, Any] = {"image": np.asarray(image)}
    if example.points is not None:
        points = changes["points"] = turn(example.points)
        inside = ((points > 0) & (points <= (width, height))).all(1)
        if protocol.grid and not inside.all():
            changes["visible"] = inside if example.visible is None else inside & example.visible
    if example.mask is not None:
        mask = Image.fromarray(example.mask.astype(np.int32))
        mask = mask.rotate(degrees, Image.Resampling.NEAREST, fillcolor=protocol.background)
        changes["mask"] = np.asarray(mask).astype(np.int64)
    if example.box is not None:
        size = np.array(example.box[2:])
        corner = turn(np.array(example.box[:2]) + size / 2) - size / 2
        changes["box"] = (*corner.tolist(), *size.tolist())
    return dataclasses.replace(example, **changes)
