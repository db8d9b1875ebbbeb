"""Find the connected pieces of a mask."""

from __future__ import annotations

import numpy as np


def connected_pieces(mask: np.ndarray) -> np.ndarray:
    """Number the connected pieces of a mask; cells that touch at a corner are connected.

    Runs of cells are found in each row, runs that touch in neighbouring rows are linked, and linked runs take the
    lowest number among them.

    Args:
        mask: ``(h, w)`` bool.

    Returns:
        ``(h, w)`` int64, from 1 in the order of each piece's first cell; 0 outside the mask.
    """
    begins = mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    runs = np.where(mask, begins.ravel().cumsum().reshape(mask.shape), 0)
    above, below = np.pad(runs[:-1], ((0, 0), (1, 1))), runs[1:]
    count, width = int(runs.max()) + 1, mask.shape[1]
    links = np.concatenate([(above[:, i : i + width] * count + below)[below > 0] for i in range(3)])
    a, b = divmod(np.unique(links[links >= count]), count)
    lowest = np.arange(count)
    while True:
        reached = lowest.copy()
        np.minimum.at(reached, a, lowest[b])
        np.minimum.at(reached, b, lowest[a])
        reached = reached[reached]
        if (reached == lowest).all():
            return np.unique(lowest, return_inverse=True)[1].reshape(-1)[runs]
        lowest = reached
