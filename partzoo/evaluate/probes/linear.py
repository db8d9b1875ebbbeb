"""Linear probes for frozen features: closed form, L-BFGS, and stochastic training as in the papers."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from partzoo.errors import ShapeError, UsageError

PENALTIES = tuple(10.0**power for power in range(-7, 2))
HELD_OUT = 10
CHUNK = 4096


class LinearClassifier(NamedTuple):
    """A linear classifier with scores ``features @ weight.T + bias``; the highest wins, ties go to the lower class.

    Attributes:
        weight: ``(classes, C)``.
        bias: ``(classes,)``.
    """

    weight: Tensor
    bias: Tensor

    def classify(self, features: Tensor) -> Tensor:
        """Return the classes ``(N,)`` int64 of features ``(N, C)``."""
        chunks = features.split(CHUNK)
        return torch.cat([linear(x.to(self.weight.dtype), self.weight, self.bias).argmax(1) for x in chunks])

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Compute the share of features ``(N, C)``, in per cent, whose class equals the one in ``labels`` (N,)."""
        return 100 * (self.classify(features) == labels).double().mean().item()


class _Moments:
    """Sums over features and classes, from which a ridge regression with any penalty can be computed."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self.mean = features.mean(0, dtype=torch.float64)
        self.counts = torch.bincount(labels, minlength=classes).double()
        channels = features.shape[1]
        gram, cross = self.mean.new_zeros(channels, channels), self.mean.new_zeros(classes, channels)
        for x, y in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
            centred = x.double() - self.mean
            gram.addmm_(centred.mT, centred)
            cross.index_add_(0, y, centred)
        self.eigenvalues, self.axes = torch.linalg.eigh(gram)
        self.cross = cross @ self.axes

    def ridge(self, penalty: float) -> LinearClassifier:
        weight = self.cross / (self.eigenvalues.clamp(min=0) + penalty) @ self.axes.mT
        return LinearClassifier(weight, self.counts / self.counts.sum() - weight @ self.mean)

    @property
    def scale(self) -> float:
        """Mean eigenvalue of the centred features' Gram matrix."""
        return max(self.eigenvalues.mean().item(), torch.finfo(torch.float64).tiny)


def ridge(features: Tensor, labels: Tensor, penalty: float) -> LinearClassifier:
    """Fit a ridge regression to one-hot targets, by solving the normal equations in float64.

    Args:
        features: ``(N, C)``, any float dtype.
        labels: ``(N,)`` int64, values from 0.
        penalty: factor of the squared weights, added to the sum of squared errors; the intercept has none. It equals
            ``alpha`` of ``sklearn.linear_model.Ridge``.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: the penalty is not above 0.
    """
    classes = _checked(features, labels)
    if not penalty > 0:
        raise UsageError(f"penalty={penalty} must be above 0.")
    return _Moments(features, labels, classes).ridge(penalty)


def closed_form(features: Tensor, labels: Tensor) -> LinearClassifier:
    """Fit a ridge regression to one-hot targets, with a penalty chosen on the training split.

    Every tenth training image (number 0, 10, 20, ...) is held out; penalties of 1e-7, 1e-6, ..., 10 times the mean
    eigenvalue of the features' Gram matrix are fitted on the rest; the best on the held-out tenth (the largest, if
    several are equally good) is fitted again on the whole training split. Multiplying the features by a constant
    changes nothing.

    Args:
        features: ``(N, C)``, any float dtype, N > 1.
        labels: ``(N,)`` int64, values from 0.

    Raises:
        ShapeError: the shapes do not agree.
    """
    classes = _checked(features, labels, least=2)
    held_out = torch.arange(len(features), device=features.device) % HELD_OUT == 0
    rest = _Moments(features[~held_out], labels[~held_out], classes)
    tenth, truth = features[held_out], labels[held_out]
    best = max(PENALTIES, key=lambda p: (rest.ridge(p * rest.scale).accuracy(tenth, truth), p))
    moments = _Moments(features, labels, classes)
    return moments.ridge(best * moments.scale)


def logistic(
    features: Tensor, labels: Tensor, penalty: float, *, steps: int = 500, tolerance: float = 1e-6
) -> LinearClassifier:
    """Fit a multinomial logistic regression, with full-batch L-BFGS and strong Wolfe line search.

    Args:
        features: ``(N, C)``; computation uses their dtype.
        labels: ``(N,)`` int64, values from 0.
        penalty: twice the factor of the squared weights, added to the mean cross-entropy; the intercept has none. It is
            1 / (C N) for ``C`` of ``sklearn.linear_model.LogisticRegression``.
        steps: largest number of iterations.
        tolerance: stop when no entry of the gradient is larger.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: the penalty is below 0.
    """
    classes = _checked(features, labels)
    if not penalty >= 0:
        raise UsageError(f"penalty={penalty} must not be below 0.")
    # Centred features of unit scale condition the problem; the optimum is the same as for the original features.
    mean = features.mean(0)
    x = features - mean
    size = x.square().mean().sqrt().clamp(min=torch.finfo(x.dtype).tiny)
    x = x / size
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, history_size=20, tolerance_grad=tolerance, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = penalty / 2 * (weight / size).square().sum()
        total.backward()
        for some, classes in zip(x.split(CHUNK), labels.split(CHUNK), strict=True):
            part = cross_entropy(linear(some, weight, bias), classes, reduction="sum") / len(x)
            part.backward()
            total = total.detach() + part.detach()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    weight = weight.detach() / size
    return LinearClassifier(weight, bias.detach() - weight @ mean)


class SgdProbe:
    """A linear layer on frozen features, trained on mini-batches, one epoch at a time.

    The defaults follow the protocol of Spatial Reasoning: Adam at a constant rate, without weight decay or early
        stopping.

    Args:
        channels, classes: number of features and of classes.
        epochs: number of epochs in all, for the schedule.
        batch_size: number of images in a step.
        lr: learning rate.
        optimizer: ``"adam"``, or ``"sgd"`` with momentum 0.9.
        schedule: ``"constant"``, or ``"cosine"`` from ``lr`` to 0 over all epochs.
        seed: random seed of the layer's weights and of the order of the examples.
        device: device of the features.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        epochs: int = 100,
        batch_size: int = 128,
        lr: float = 1e-3,
        optimizer: Literal["adam", "sgd"] = "adam",
        schedule: Literal["constant", "cosine"] = "constant",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if optimizer not in ("adam", "sgd") or schedule not in ("constant", "cosine"):
            raise UsageError(
                f"optimizer={optimizer!r}, schedule={schedule!r}, but the optimizer must be 'adam' or 'sgd', and the "
                "schedule 'constant' or 'cosine'."
            )
        if epochs < 1 or batch_size < 1:
            raise UsageError(f"epochs={epochs} and batch_size={batch_size} must be at least 1.")
        self.epochs, self.batch_size, self.lr, self.cosine = epochs, batch_size, lr, schedule == "cosine"
        self.generator = torch.Generator().manual_seed(seed)
        bound, self.steps = channels**-0.5, 0
        weight, bias = (
            torch.empty(shape).uniform_(-bound, bound, generator=self.generator).to(device)
            for shape in ((classes, channels), (classes,))
        )
        self.classifier = LinearClassifier(weight, bias)
        self.optimizer = (
            torch.optim.Adam(self.classifier, lr=lr, fused=True)
            if optimizer == "adam"
            else torch.optim.SGD(self.classifier, lr=lr, momentum=0.9, fused=True)
        )

    @torch.no_grad()
    def epoch(self, features: Tensor, labels: Tensor) -> None:
        """Train on features ``(N, C)`` and labels ``(N,)`` once, in a new order; the last batch may be smaller."""
        weight, bias = self.classifier
        total = self.epochs * -(-len(features) // self.batch_size)
        order = torch.randperm(len(features), generator=self.generator).to(features.device)
        for some in order.split(self.batch_size):
            if self.cosine:
                self.optimizer.param_groups[0]["lr"] = self.lr * (1 + math.cos(math.pi * self.steps / total)) / 2
            x, y = features[some], labels[some]
            # The gradient of the mean cross-entropy with respect to the scores is softmax minus one-hot.
            gradient = linear(x, weight, bias).softmax(1)
            gradient[torch.arange(len(y), device=y.device), y] -= 1
            gradient /= len(y)
            weight.grad, bias.grad = gradient.mT @ x, gradient.sum(0)
            self.optimizer.step()
            self.steps += 1


def sgd_probe(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    epochs: int = 100,
    standardize: bool = False,
    seed: int = 0,
    **options: Any,
) -> float:
    """Train one linear layer on mini-batches, and compute its test accuracy in per cent after the last epoch.

    The defaults follow the protocol of Spatial Reasoning, on unscaled features. MAE's and DeiT's protocol is
    ``optimizer="sgd"``, ``schedule="cosine"`` and ``standardize=True`` (their batch normalization without learned
    scale).

    Args:
        features: ``(N, C)`` of the training images.
        labels: ``(N,)`` int64, values from 0.
        test_features: ``(M, C)``.
        test_labels: ``(M,)``.
        epochs: number of passes over the training images.
        standardize: whether to give each channel mean 0 and standard deviation 1 over the training images.
        seed: random seed of the layer's weights and of the order of the examples.
        **options: other arguments of :class:`SgdProbe`.

    Raises:
        ShapeError: the shapes do not agree.
        UsageError: an option is out of range.
    """
    classes = _checked(features, labels)
    options = {"epochs": epochs, "seed": seed, "device": features.device, **options}
    probe = SgdProbe(features.shape[1], classes, **options)
    features, test_features = features.float(), test_features.float()
    if standardize:
        deviation, mean = torch.std_mean(features, dim=0, correction=0)
        scale = deviation.clamp(min=1e-6)
        features, test_features = (features - mean) / scale, (test_features - mean) / scale
    for _ in range(epochs):
        probe.epoch(features, labels)
    return probe.classifier.accuracy(test_features, test_labels)


def _checked(features: Tensor, labels: Tensor, least: int = 1) -> int:
    """Check the shapes and return the number of classes."""
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(features) < least:
        raise ShapeError(
            f"Features must be (N, C), N >= {least}, and labels (N,), not {(*features.shape,)}, {(*labels.shape,)}."
        )
    return int(labels.max()) + 1
