"""Divide a part of a vocabulary by how its cells look in images; what needs no images is in :mod:`.vocabulary`."""

from __future__ import annotations

from typing import Any

import torch

from partzoo.discovery.cluster import spherical_kmeans
from partzoo.discovery.clustered import ClusteredFinder
from partzoo.discovery.factory import finder_of
from partzoo.discovery.masks import Masks
from partzoo.discovery.numbering import by_area
from partzoo.discovery.pipeline import draw_samples
from partzoo.discovery.vocabulary import PartVocabulary
from partzoo.errors import UsageError, counted
from partzoo.images.ahead import AHEAD, Progress
from partzoo.images.opening import open_images
from partzoo.limits import MAX_BYTES, MAX_PIXELS, check_parts, check_seed
from partzoo.parts.parts import default_name


def split_part(
    vocabulary: PartVocabulary,
    part: int,
    images: Any,
    into: int = 2,
    seed: int = 0,
    *,
    model: Any = None,
    mask: Any = None,
    device: Any = None,
    batch_size: int = AHEAD,
    progress: Progress | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> PartVocabulary:
    """Divide a part of a vocabulary; arguments, result and errors as for :meth:`PartVocabulary.split`.

    The cells of the part, which are nearer to its centres than to any other, are clustered into new centres.
    """
    vocabulary.check_part(part)
    if into < 2:
        raise UsageError(f"into={into}: a part is split into at least 2 pieces.")
    check_parts(vocabulary.k + into - 1)
    check_seed(seed)
    if vocabulary.learned:
        raise UsageError("The parts of a learned part model cannot be split: its own are the smallest that it knows.")
    if vocabulary.settings.taught:
        raise UsageError("A taught part cannot be split by how it looks: label its pieces, and teach them.")
    finder = finder_of(vocabulary, model, device)
    assert isinstance(finder, ClusteredFinder)
    opened, single = open_images(images, max_pixels=max_pixels, max_bytes=max_bytes)
    masks = Masks(mask, len(opened), single)
    cells = torch.cat(draw_samples(finder, opened, [seed], batch_size, progress, masks=masks)[0])
    rows = torch.tensor(vocabulary.rows)
    own = cells[rows[(cells @ vocabulary.centres.T).argmax(1)] == part]
    found = spherical_kmeans(own, into, seed=seed) if len(own) else None
    if found is None or len(found.centres) < into:
        raise UsageError(
            f"part={part} has {counted(len(own), 'cell')} in {counted(len(opened), 'image')}, which cannot be split "
            f"into {into}: pass images that show more of it."
        )
    order = by_area(found.labels.numpy(), into)
    numbers = [part, *range(vocabulary.k + 1, vocabulary.k + into)]
    return vocabulary.shaped(
        f"split({part}, into={into}, seed={seed})",
        [*rows[rows != part].tolist(), *numbers],
        [*vocabulary.names, *map(default_name, numbers[1:])],
        torch.cat([vocabulary.centres[rows != part], found.centres[order]]),
    )
