"""Number the parts in a fixed order."""

from __future__ import annotations

import numpy as np


def by_area(labels: np.ndarray, count: int, start: int = 0) -> np.ndarray:
    """Return ``start..count - 1`` ordered by how often each number occurs, most often first, ties by first occurrence.

    Args:
        labels: integers of any shape; counted row by row, since NumPy casts what it counts to int64.
        count: highest number plus one.
        start: lowest number to include.
    """
    rows = labels if labels.ndim > 1 else labels[None]
    counts = np.sum([np.bincount(row, minlength=count) for row in rows], axis=0)
    flat = labels.ravel()
    first = np.array([(flat == number).argmax() if counts[number] else flat.size for number in range(count)])
    return np.lexsort((first[start:], -counts[start:])) + start
