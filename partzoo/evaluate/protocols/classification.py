"""Protocols that classify images from frozen features: Tiny-ImageNet, CIFAR, STL-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partzoo.data import stl10, tiny_imagenet
from partzoo.data.cifar import CIFAR10_FILES, cifar100_files
from partzoo.data.image_sets import ImageSet

# One linear layer, Adam at a constant 1e-3, no feature scaling, accuracy after the last epoch.
LINEAR_PROBE = {"epochs": 100, "batch_size": 128, "lr": 1e-3, "optimizer": "adam"}


@dataclass(frozen=True)
class ClassProtocol:
    """A protocol that classifies images from features learned elsewhere.

    Attributes:
        name: name for ``partzoo eval --protocol``.
        load: function ``(folder, split, limit)`` to images with labels; ``limit`` is None, or the largest number of
            images, which then are a fair sample.
        classes: number of classes.
        side: height and width of the data's images; they are resized and normalized for the model.
        source: paper and section, or page, that defines data and rules.
        rules: the same rules in a few sentences, for the docs.
        get: instructions for the download, and the expected layout of the folder.
        train, test: split that probes are fitted on and split that figures are reported on.
        probe: settings of the papers' trained probe, for :func:`partzoo.evaluate.probes.linear.sgd_probe`.
    """

    name: str
    load: Callable[[Path, str, int | None], ImageSet]
    classes: int
    side: int
    source: str
    rules: str
    get: str
    train: str = "train"
    test: str = "test"
    probe: dict[str, Any] = field(default_factory=lambda: dict(LINEAR_PROBE))


_RULES = (
    "Features are the mean patch token of each {side} x {side} image, resized to the model's size. Three classifiers "
    "are fitted on {train} and evaluated on {test}: a weighted vote of the 20 nearest neighbours by cosine; ridge "
    "regression of one-hot targets; and one linear layer, trained with Adam at 1e-3 for 100 epochs in batches of 128, "
    "without scaling the features. The accuracy of the linear layer is measured after the last epoch."
)
_SPATIAL = "Spatial Reasoning, 'Linear evaluation', with the settings of its published code"


TINY_IMAGENET = ClassProtocol(
    name="tiny-imagenet",
    load=tiny_imagenet.load,
    classes=200,
    side=tiny_imagenet.SIDE,
    test="val",
    source=_SPATIAL + "; data: Stanford CS231n's Tiny ImageNet challenge",
    rules=_RULES.format(side=64, train="train (100,000 images)", test="val (10,000)"),
    get=tiny_imagenet.GET,
)


def _cifar(name: str, classes: int, files: Any) -> ClassProtocol:
    return ClassProtocol(
        name=name,
        load=files.load,
        classes=classes,
        side=32,
        source=_SPATIAL + "; data: Krizhevsky, 'Learning multiple layers of features from tiny images', 2009",
        rules=_RULES.format(side=32, train="train (50,000 images)", test="test (10,000)"),
        get=files.get,
    )


CIFAR10 = _cifar("cifar-10", 10, CIFAR10_FILES)
CIFAR100 = _cifar("cifar-100", 100, cifar100_files("cifar-100", "fine"))
CIFAR100_20 = _cifar("cifar-100-20", 20, cifar100_files("cifar-100-20", "coarse"))

STL10 = ClassProtocol(
    name="stl-10",
    load=stl10.load,
    classes=10,
    side=stl10.SIDE,
    source=_SPATIAL + "; data: Coates et al., 'An analysis of single-layer networks', AISTATS 2011",
    rules=_RULES.format(side=96, train="train (5,000 images)", test="test (8,000)"),
    get=stl10.GET,
)
