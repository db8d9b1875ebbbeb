"""Linear discriminant analysis with shrinkage, from sums that can be added up and taken away again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PRIOR = 10  # number of groups of examples that the features' own variances count as much as, chosen on dev splits
NEVER = -1e4  # logit of a class without examples


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over examples, which are all that the analysis needs of them.

    Attributes:
        counts: ``(C,)`` float64, examples of each class.
        sums: ``(C, D)`` float64, sums of their features.
        products: ``(D, D)`` float64, sum of the outer products of all features with themselves.
        groups: number of groups of examples, such as images, which resemble each other.
    """

    counts: Tensor
    sums: Tensor
    products: Tensor
    groups: int = 1

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: Tensor, classes: int) -> Sums:
        """Add up the examples of one group.

        Args:
            x: ``(N, D)`` float32 features.
            y: ``(N,)`` int64 classes.
            weights: ``(N,)`` float32, how often each example counts.
            classes: number of classes.
        """
        weighted = x * weights[:, None]
        counts = torch.zeros(classes, dtype=torch.float64).index_add_(0, y, weights.double())
        sums = torch.zeros(classes, x.shape[1], dtype=torch.float64).index_add_(0, y, weighted.double())
        return cls(counts, sums, (weighted.T @ x).double())

    def __add__(self, other: Sums) -> Sums:
        groups = self.groups + other.groups
        return Sums(self.counts + other.counts, self.sums + other.sums, self.products + other.products, groups)

    def __sub__(self, other: Sums) -> Sums:
        groups = self.groups - other.groups
        return Sums(self.counts - other.counts, self.sums - other.sums, self.products - other.products, groups)


def discriminant(found: Sums) -> Tensor:
    """Compute the linear classifier of classes with normal distributions and one covariance.

    The covariance within classes is shrunk towards the diagonal of the whole covariance, the more the fewer groups of
    examples there are, so that few images with many features determine it. A class without examples is never predicted.

    Returns:
        ``(C, D + 1)`` float32: for each class the coefficients of the features, then its constant.

    Source: Friedman, "Regularized discriminant analysis", Journal of the American Statistical Association 1989.
    """
    within, means, _ = _shrunk(found)
    slopes = torch.linalg.solve(within, means.T).T
    constants = (found.counts / found.counts.sum()).clamp(min=1e-30).log() - (slopes * means).sum(1) / 2
    present = (found.counts > 0.5)[:, None]  # what is left of sums that were taken away is not exactly 0
    return torch.where(present, torch.cat([slopes, constants[:, None]], dim=1), _never(slopes)).float()


def directions(found: Sums, most: int) -> Tensor:
    """Compute the linear functions of the features that vary most, compared with how much they vary within classes.

    Args:
        found: sums over examples.
        most: largest number of functions.

    Returns:
        ``(M, D + 1)`` float32, the coefficients of the features, then the constant: within classes, by the covariance
        of :func:`discriminant`, the values have a variance of 1 and are not correlated; their mean is 0.
    """
    within, _, middle = _shrunk(found)
    whole = found.products / found.counts.sum() - middle[:, None] * middle
    root = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(root, whole, upper=False)
    _, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.T, upper=False))
    slopes = torch.linalg.solve_triangular(root.T, vectors[:, -most:], upper=True).T
    return torch.cat([slopes, -(slopes @ middle)[:, None]], dim=1).float()


def _shrunk(found: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shrunk covariance within classes ``(D, D)``, the classes' means ``(C, D)``, and the mean of all."""
    total, shrinkage = found.counts.sum(), PRIOR / (PRIOR + found.groups)
    means = found.sums / found.counts.clamp(min=0.5)[:, None]
    middle = found.sums.sum(0) / total
    spread = (found.products.diagonal() / total - middle.square()).clamp(min=1e-9)
    within = (found.products - means.T @ found.sums) / total
    return (1 - shrinkage) * within + shrinkage * spread.diag(), means, middle


def _never(slopes: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(slopes), slopes.new_full((len(slopes), 1), NEVER)], dim=1)
