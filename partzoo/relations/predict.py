"""``relate`` and ``assemble``: a PART model's translations between patches of images.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.images.opening import open_image, open_images
from partzoo.relations.patches import Assembly, PatchRelations, Reference, whole_pixels

if TYPE_CHECKING:
    import torch

    from partzoo.models.part.model import Part

DEFAULT_MODEL = "part-vitn"
OWN_SAMPLINGS = ("off-grid", "on-grid", "multi-scale")


def relate(
    image: Any,
    boxes: np.ndarray | Sequence[Sequence[float]] | None = None,
    n: int = 64,
    *,
    model: str | Path | Part | None = None,
    sampling: Literal["off-grid", "on-grid", "multi-scale"] = "off-grid",
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> PatchRelations:
    """How patches of an image lie as seen from each other, in the image's own pixels.

    Each patch is cut out of the image at its own resolution and resized, antialiased, to the P x P pixels that the
    model takes: the model never sees the rest of the image. A patch of the model's own sampling is a square whose
    side is to the image's longer side as P to the side of the images that the model was trained on (an eighth for
    the 64-pixel models), so that the image counts as one of that size, in its own proportions. Translations of
    models with two targets, which know one size of patches, are multiples of that side; those of models with four are
    multiples of the reference's own width and height.

    Args:
        image: whatever :func:`partzoo.images.opening.open_image` takes.
        boxes: ``(N, 4)`` left, top, right, bottom in pixels, for example of :attr:`Parts.boxes`; None: own sampling.
        n: how many patches to sample off the grid.
        model: name or file of a PART model, or the model; the bundled one if None.
        sampling: of the own patches: ``"off-grid"``, uniform; ``"on-grid"``, the cells of a grid of as nearly square
            cells as divide the image, in random order; ``"multi-scale"``, sides between half and twice.
        weights: ``(H, W)``, how often patches lie centred at a pixel, for example a part's mask; where all are zero,
            patches lie anywhere; off the grid only.
        seed: of the sampling.

    Returns:
        The relations.

    Raises:
        ImageError: the image cannot be read.
        UsageError: no PART model, or boxes, n, sampling or weights that do not fit.

    Source: PART, section 5.1.
    """
    opened = open_image(image)
    part = model_of(model)
    if boxes is None:
        chosen = _own_boxes(opened.size, n, part, sampling, weights, seed)
    elif weights is not None:
        raise UsageError("weights= says where to sample patches; boxes= are there already: leave one out.")
    else:
        chosen = _checked(boxes, opened.size)
    source = Image.fromarray(opened.pixels)
    crops = [source.resize(_side(part), _filter(part), box=tuple(box)) for box in chosen]
    patches = [np.ascontiguousarray(opened.pixels[t:b, l:r]) for l, t, r, b in whole_pixels(chosen)]  # noqa: E741
    cell = max(opened.size) * part.patch / part.preprocess.size
    translations, ratios = _predict(part, crops, chosen[:, 2:] - chosen[:, :2], cell)
    return PatchRelations(translations, patches, boxes=chosen, image=opened.pixels, ratios=ratios)


def assemble(
    patches: Any, *, model: str | Path | Part | None = None, reference: Reference = "least-squares"
) -> Assembly:
    """Put patches together into one image by the translations that a model predicts; they may be of many images.

    Args:
        patches: at least two images, whatever :func:`partzoo.images.opening.open_images` takes, each a whole patch.
        model: name or file of a PART model, or the model; the bundled one if None.
        reference: see :meth:`PatchRelations.positions`.

    Returns:
        The image on a canvas just large enough, every patch in its own size.

    Raises:
        ImageError: a patch cannot be read.
        UsageError: fewer than two patches, no PART model, no such reference.

    Source: PART, section 5.1 (i).
    """
    images, _ = open_images(patches)
    if len(images) < 2:
        raise UsageError("One patch cannot be assembled: pass two or more.")
    part = model_of(model)
    pixels = [image.pixels for image in images]
    crops = [Image.fromarray(patch).resize(_side(part), _filter(part)) for patch in pixels]
    sizes = np.array([patch.shape[1::-1] for patch in pixels], np.float64)
    return PatchRelations(_predict(part, crops, sizes, sizes.mean(0))[0], pixels).assemble(reference)


def model_of(model: str | Path | Part | None) -> Part:
    """The PART model itself, or the one that a name or file stands for; the bundled one for None.

    Raises:
        UsageError: it is no PART model.
    """
    from partzoo.models.part.model import Part

    found: object = model
    if model is None or isinstance(model, (str, Path)):
        from partzoo.models.loading import load

        found = load(model or DEFAULT_MODEL)
    if not isinstance(found, Part):
        name = getattr(found, "architecture", "") or type(found).__name__
        raise UsageError(f"{name} does not relate patches: pass a PART model, for example model='part-vitn'.")
    return found.eval()


def _side(model: Part) -> tuple[int, int]:
    return (model.patch, model.patch)


def _filter(model: Part) -> Image.Resampling:
    return Image.Resampling[model.preprocess.interpolation.upper()]


def _predict(
    model: Part, crops: Sequence[Image.Image], sizes: np.ndarray, cell: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Translations in pixels ``(N, N, 2)``, and relative sizes of models with four targets.

    Args:
        model: with two targets or four.
        crops: N patches in the model's size.
        sizes: ``(N, 2)``, their width and height where they come from, in pixels.
        cell: side of the patches that the model was trained on, there.
    """
    import torch

    parameter = next(model.relative_encoder.parameters())
    pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).permute(0, 3, 1, 2)
    patches = model.preprocess.normalize(pixels)[None].to(parameter.device, parameter.dtype)
    with torch.inference_mode():
        found = model.relate(patches)[0].double().cpu().numpy().reshape(len(crops), len(crops), -1)
    if model.config.targets == 2:
        return found * cell, None
    return found[..., :2] * sizes[:, None], found[..., 2:]


def _own_boxes(
    size: tuple[int, int], n: int, model: Part, sampling: str, weights: np.ndarray | None, seed: int
) -> np.ndarray:
    """Boxes ``(N, 4)`` left, top, right, bottom of the model's own sampling."""
    import torch

    from partzoo.models.part.sampling import grid_positions, sample_boxes, sample_positions

    if sampling not in OWN_SAMPLINGS:
        raise UsageError(f"Unknown sampling {sampling!r}: choose one of {', '.join(OWN_SAMPLINGS)}.")
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise UsageError(f"n={n!r}: there must be two patches or more.")
    side = max(size) * model.patch / model.preprocess.size
    generator = torch.Generator().manual_seed(seed)
    if sampling == "on-grid":
        if weights is not None:
            raise UsageError("sampling='on-grid' takes every cell once: leave weights out.")
        cells = [max(round(length / side), 1) for length in size]
        corners = grid_positions(1, cells, 1, generator=generator)[0].numpy()
        cell = np.array(size[::-1]) / cells[::-1]
        return np.concatenate([corners * cell, (corners + 1) * cell], axis=1)
    side = min(side, *size)
    density = _density(weights, size)
    if sampling == "multi-scale":
        boxes = sample_boxes(1, n, size, side, weights=density, generator=generator)[0].double().numpy()
    else:
        places = sample_positions(1, n, size, side, continuous=True, weights=density, generator=generator)
        corners = places[0].double().numpy()
        boxes = np.concatenate([corners, np.full_like(corners, side)], axis=1)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], size[::-1])
    return np.concatenate([boxes[:, :2], high], axis=1)


def _density(weights: np.ndarray | None, size: tuple[int, int]) -> torch.Tensor | None:
    import torch

    if weights is None:
        return None
    weights = np.asarray(weights, np.float32)
    if weights.shape != tuple(size) or not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError(f"weights must be {tuple(size)}, as the image, and zero or above; they are {weights.shape}.")
    return torch.from_numpy(weights)


def _checked(boxes: Any, size: tuple[int, int]) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < 2:
        raise ShapeError(f"boxes are {boxes.shape}: pass two or more (left, top, right, bottom).")
    height, width = size
    low, high = boxes[:, :2], boxes[:, 2:]
    wrong = ~((high > low).all(1) & (low >= 0).all(1) & (high <= (width, height)).all(1))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise UsageError(
            f"Box {index} is {boxes[index].tolist()}: left < right and top < bottom must lie inside the image, "
            f"{width} wide and {height} high."
        )
    return boxes
