"""Probe a Spatial Reasoning model's features of an image and n of its patches, for several n."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.evaluate.probes.affine import random_affine, random_erasing
from partzoo.evaluate.probes.held_out import labels_of, normalized_batches
from partzoo.evaluate.probes.linear import SgdProbe, closed_form
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.models.base import Encoder
from partzoo.models.spatial.model import WINDOWS, Spatial
from partzoo.progress import ProgressCallback
from partzoo.skipping import PassOver


def patch_figures(
    model: Encoder,
    protocol: ClassProtocol,
    data: str | Path,
    *,
    patches: Sequence[int],
    seeds: Sequence[int],
    augment: bool = False,
    limit: int | None = None,
    progress: ProgressCallback | None = None,
    pass_over: PassOver | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Train probes on the frozen features of each image together with n of its patches, and compute their accuracies.

    This is done for each n in ``patches``. ``linear_patchesN`` is fitted in closed form on unscaled features, and
    ``linear_sgd_patchesN`` is the protocol's probe, trained once per seed. With ``augment``, ``affine_sgd_patchesN``
    replaces both: in each epoch the trained probe sees newly augmented training images, half of them affinely warped
    and half with a square erased. All probes see the same augmented images.

    Args:
        model: Spatial Reasoning model.
        protocol: protocol with the data and the settings of the trained probe.
        data: folder of the protocol's data.
        patches: numbers n, valid as in :meth:`partzoo.models.spatial.model.Spatial.represent`.
        seeds: random seeds of the trained probe.
        augment: whether to train the probe on augmented images.
        limit: use at most this many images of each split.
        progress: function that is called with the name of the work, the amount done, and the total.
        pass_over: function that is called for each image that cannot be read, which is then skipped; None raises the
            error.

    Returns:
        Runs with ``k`` (None), ``seed`` (None for figures without one) and ``metrics``, in per cent; and the number of
        test images.

    Raises:
        UsageError: the model belongs to a different family, a number of patches is not available, or the data is
            missing.

    Source: Spatial Reasoning, sections 3.3 and 4.3, table 1 and figure 4.
    """
    if not isinstance(model, Spatial):
        raise UsageError(
            f"patches={list(patches)}, but the model is a {type(model).__name__}. Name a model of Spatial Reasoning."
        )
    for each in patches:
        model.windows(each)
    report = progress or (lambda *_: None)
    data = Path(data)
    train, test = (protocol.load(data, split, limit).usable(pass_over) for split in (protocol.train, protocol.test))
    numbers = sorted({window for each in patches for window in WINDOWS[each]})
    columns = {each: [0, *(1 + numbers.index(window) for window in WINDOWS[each])] for each in patches}

    def features(images: ImageSet, name: str, generator: torch.Generator | None = None) -> Tensor:
        return window_features(model, images, numbers, generator, progress=partial(report, name))

    def chosen(found: Tensor, each: int) -> Tensor:
        return found[:, columns[each]].flatten(1)

    held_out = features(test, "test features")
    known = None if augment else features(train, "training features")
    probes = {
        (each, seed): SgdProbe(
            model.dim * len(columns[each]), protocol.classes, seed=seed, device=held_out.device, **protocol.probe
        )
        for each in patches
        for seed in seeds
    }
    labels, truth = (labels_of(images).to(held_out.device) for images in (train, test))
    epochs = next(iter(probes.values())).epochs
    for epoch in range(epochs):
        drawn = torch.Generator(held_out.device).manual_seed(epoch)
        seen = features(train, f"epoch {epoch + 1} of {epochs}", drawn) if known is None else known
        for (each, _), probe in probes.items():
            probe.epoch(chosen(seen, each), labels)
        report("probes", epoch + 1, epochs)

    runs: list[dict[str, Any]] = []
    if known is not None:
        fitted = {each: closed_form(chosen(known, each), labels) for each in patches}
        figures = {f"linear_patches{n}": fit.accuracy(chosen(held_out, n), truth) for n, fit in fitted.items()}
        runs.append({"k": None, "seed": None, "metrics": figures})
    kind = "affine_sgd" if augment else "linear_sgd"
    for seed in seeds:
        accuracies = {
            f"{kind}_patches{each}": probes[each, seed].classifier.accuracy(chosen(held_out, each), truth)
            for each in patches
        }
        runs.append({"k": None, "seed": seed, "metrics": accuracies})
    return runs, len(test)


@torch.inference_mode()
def window_features(
    model: Spatial,
    images: ImageSet,
    numbers: Sequence[int],
    augment: torch.Generator | None = None,
    *,
    batch_size: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compute the features of images and of their windows, ``(N, 1 + n, F)`` float32 on the model's device.

    Args:
        model: Spatial Reasoning model.
        images: images; resized to the model's size.
        numbers: indices of n windows in the 3 x 3 grid, row by row.
        augment: source of randomness, on the model's device, for random warping and erasing; None for no augmentation.
        batch_size: number of images in a batch.
        progress: function that is called with the number of images done and the total.
    """
    grid = model.windows(9) if numbers else []
    found = torch.empty(len(images), 1 + len(numbers), model.dim, device=next(model.parameters()).device)
    for rows, x in normalized_batches(model, images, batch_size):
        if augment is not None:
            x = random_erasing(_warped(model, x, augment), generator=augment)
        if numbers:
            x = torch.cat([x[:, None], model.crops(x, [grid[number] for number in numbers])], dim=1).flatten(0, 1)
        found[rows] = model.features(x).float().unflatten(0, (len(rows), -1))
        if progress:
            progress(int(rows[-1]) + 1, len(images))
    return found


def _warped(model: Spatial, x: Tensor, generator: torch.Generator) -> Tensor:
    """Warp images at random over black, the lowest value of normalized pixels."""
    black = model.preprocess.normalize(torch.zeros_like(x[:1, :, :1, :1]))
    return random_affine(x - black, generator=generator) + black
