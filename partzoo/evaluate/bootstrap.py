"""Compute confidence intervals by resampling groups of similar images, such as all images of one person."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from partzoo.evaluate.metrics import Contingency

DRAWS, LEVEL = 500, 95.0


def draws(groups: int, seed: int = 0) -> np.ndarray:
    """Draw ``groups`` groups with replacement; return how often each is drawn, ``(DRAWS, groups)`` int64."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), DRAWS)


def interval(values: np.ndarray) -> list[float]:
    """Return the bounds of the middle 95 % of ``(DRAWS,)`` values."""
    return np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2]).tolist()


def table_interval(tables: Mapping[int, Contingency], figure: Callable[[Contingency], float]) -> list[float]:
    """Compute the confidence interval of a figure that is a function of the groups' summed tables.

    Args:
        tables: contingency table of each group.
        figure: function from a table to its figure, such as ``Contingency.nmi``.
    """
    counts = np.stack([table.counts for table in tables.values()])
    total = Contingency(*counts.shape[1:])
    values = []
    for drawn in draws(len(counts)):
        total.counts = np.tensordot(drawn, counts, axes=1)
        values.append(figure(total))
    return interval(np.array(values))


def mean_interval(values: np.ndarray, groups: np.ndarray) -> list[float]:
    """Compute the confidence interval of the mean of values ``(N, ...)`` in groups ``(N,)``; NaN values are ignored."""
    _, group = np.unique(groups, return_inverse=True)
    rows = values.reshape(len(values), -1)
    sums = np.bincount(group, np.nansum(rows, axis=1))
    numbers = np.bincount(group, (~np.isnan(rows)).sum(1))
    drawn = draws(len(sums))
    return interval(drawn @ sums / np.maximum(drawn @ numbers, 1))
