"""Convert parts to detections of supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from partzoo.errors import require

if TYPE_CHECKING:
    from supervision import Detections

    from partzoo.parts.parts import Parts


def to_supervision(parts: Parts) -> Detections:
    """Convert parts to ``supervision.Detections``, one for each present part.

    Returns:
        Detections with ``mask`` ``(n, H, W)`` bool; ``xyxy`` ``(n, 4)`` float32, left, top, right, bottom in pixels,
        the last two exclusive; ``class_id`` ``(n,)``, the part's number minus one, which is its index in ``names``;
        ``confidence`` ``(n,)`` float32, the mean score of the part over its pixels, or None if scores are unknown; and
        in ``data`` the arrays ``class_name`` and ``part``, the numbers of the parts.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    supervision = require("supervision", "supervision")
    numbers = np.array(parts.present, int)
    if not len(numbers):
        return supervision.Detections.empty()
    scores = parts.scores
    return supervision.Detections(
        xyxy=parts.boxes[numbers - 1].astype(np.float32),
        mask=np.stack([parts.mask(part) for part in parts.present]),
        class_id=numbers - 1,
        confidence=None
        if scores is None
        else np.array([scores[part][parts.mask(part)].mean() for part in parts.present], np.float32),
        data={"class_name": np.array(parts.names)[numbers - 1], "part": numbers},
    )
