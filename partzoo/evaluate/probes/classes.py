"""Evaluate a model on class labels: nearest neighbours, linear probes and the model's training objective."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from partzoo.evaluate.probes.held_out import labels_of, part_positions, pooled_features, spatial_relations
from partzoo.evaluate.probes.knn import knn_accuracy
from partzoo.evaluate.probes.linear import closed_form, sgd_probe
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.models.base import Encoder
from partzoo.models.part.model import Part
from partzoo.models.spatial.model import Spatial
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver

NEIGHBOURS = 20
POSITION_IMAGES = 5000  # number of test images for PART's positions
RELATED_IMAGES = 1000  # number of test images for Spatial Reasoning's relations, each with six views and patches


def classify_figures(
    model: Encoder,
    protocol: ClassProtocol,
    data: str | Path,
    *,
    seeds: Sequence[int],
    limit: int | None = None,
    progress: ProgressCallback | None = None,
    pass_over: PassOver | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Classify images from frozen features: the mean patch token of each image, at the model's size and normalization.

    ``knn`` is a weighted vote of the 20 nearest training images, ``linear`` is fitted in closed form, and both
    are the same for every seed; ``linear_sgd`` is trained with the settings in the protocol's ``probe``, once for each
    seed. PART models add ``mse_x``, ``mse_y``, ``distance``, their ``constant_`` floors, ``antisymmetry`` and
    ``random_antisymmetry`` in patches, on positions drawn with each seed in the first 5,000 test images; Spatial
    Reasoning models add ``same``, ``shift_error`` and ``constant_shift_error``, on views and patches of the first
    1,000.

    Args:
        model: any encoder.
        protocol: protocol with the data and the settings of the trained probe.
        data: folder of the protocol's data.
        seeds: random seeds of the trained probe and of the positions.
        limit: use at most this many images of each split.
        progress: function that is called with the name of the work, the amount done, and the total.
        pass_over: function that is called for each image that cannot be read, which is then skipped; None raises the
            error.

    Returns:
        Runs with ``k`` (None), ``seed`` (None for figures without a seed) and ``metrics``, accuracies in per cent;
        and the number of test images.

    Raises:
        UsageError: the data is missing.
    """
    report = progress or (lambda *_: None)
    data = Path(data)
    train, test = (protocol.load(data, split, limit).usable(pass_over) for split in (protocol.train, protocol.test))
    bank, queries = (
        pooled_features(model, images, progress=partial(report, name))
        for images, name in ((train, "training features"), (test, "test features"))
    )
    truth, known = labels_of(test), labels_of(train)
    neighbours = min(NEIGHBOURS, len(bank))
    overall = {
        "knn": knn_accuracy(queries, truth, bank, known, neighbours=neighbours),
        "linear": closed_form(bank, known).accuracy(queries, truth),
    }
    runs: list[dict[str, Any]] = [{"k": None, "seed": None, "metrics": overall}]
    for done, seed in enumerate(seeds):
        report("probes", done, len(seeds))
        figures = {"linear_sgd": sgd_probe(bank, known, queries, truth, seed=seed, **protocol.probe)}
        if isinstance(model, Part):
            positions = part_positions(model, test, seed=seed, limit=POSITION_IMAGES)
            figures |= {name: value for name, value in positions.items() if name != "loss"}
        if isinstance(model, Spatial):
            figures |= spatial_relations(model, test, seed=seed, limit=RELATED_IMAGES)
        runs.append({"k": None, "seed": seed, "metrics": figures})
    report("probes", len(seeds), len(seeds))
    return runs, len(test)
