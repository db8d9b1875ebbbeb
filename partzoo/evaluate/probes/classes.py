"""A model's figures by a protocol of classes: nearest neighbours, linear probes and its own training objective."""

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
from partzoo.passing_over import PassOver
from partzoo.progress import ProgressCallback

NEIGHBOURS = 20
POSITION_IMAGES = 5000  # test images for PART's positions
RELATED_IMAGES = 1000  # test images for Spatial Reasoning's relations, with six views and patches of each


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
    """Figures of frozen features: the mean patch token of every image, in the model's own size and normalization.

    ``knn`` is a weighted vote of the 20 nearest of the whole training split, ``linear`` the closed form, and both
    are the same for every seed; ``linear_sgd`` is trained by the protocol's ``probe`` with each seed. PART models add
    ``mse_x``, ``mse_y``, ``distance``, their ``constant_`` floors, ``antisymmetry`` and ``random_antisymmetry`` in
    patches, on positions drawn by each seed in the first 5,000 test images; models of Spatial Reasoning ``same``,
    ``shift_error`` and ``constant_shift_error``, on views and patches of the first 1,000.

    Args:
        model: any encoder.
        protocol: where images come from and how the trained probe is set.
        data: its folder.
        seeds: random seeds of the trained probe and of the positions.
        limit: use at most this many images of each split.
        progress: called with what is being done, how much of it is done, and the total.
        pass_over: called for each image that cannot be read, which is then left out; None raises the error.

    Returns:
        Runs of ``k`` (None), ``seed`` (None for figures that have none) and ``metrics``, accuracies in per cent;
        and the number of test images.

    Raises:
        UsageError: the data is not there.
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
