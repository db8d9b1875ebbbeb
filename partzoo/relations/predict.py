"""``relate`` and ``assemble`` predict the translations between patches of images with a PART model.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from partzoo.errors import ShapeError, UsageError
from partzoo.features import name_of, placed
from partzoo.images.opening import open_image, open_images
from partzoo.relations.patches import Assembly, PatchRelations, Reference, whole_pixels

if TYPE_CHECKING:
    import torch

    from partzoo.models.part.model import Part
    from partzoo.system.device import Device

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
    device: Device = None,
) -> PatchRelations:
    """Predict the translations between patches of an image, in pixels of the image.

    Each patch is cut out of the image at full resolution and resized, antialiased, to the model's P x P pixels; the
    model never sees the rest of the image. Sampled patches are squares, whose share of the image's longer side equals
    that of a patch in the model's training images (an eighth for 64-pixel models). Models with two targets know only
    patches of one size and predict multiples of this side; models with four targets predict multiples of the
    reference's width and height.

    Args:
        image: one image, in any form that :func:`partzoo.images.opening.open_image` accepts.
        boxes: ``(N, 4)`` left, top, right, bottom in pixels, for example :attr:`Parts.boxes`; None samples patches.
        n: number of patches to sample off the grid.
        model: name or file of a PART model, or the module; None uses the bundled model.
        sampling: ``"off-grid"`` samples positions uniformly; ``"on-grid"`` takes all cells of a grid whose cells are as
            nearly square as possible, in random order; ``"multi-scale"`` samples sides from half to twice a patch's.
        weights: ``(H, W)``, density of the patches' centres, for example the mask of a part; uniform if all are zero.
            Not available for ``"on-grid"``.
        seed: random seed of the sampling.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        The relations between the patches.

    Raises:
        ImageError: the image cannot be read.
        ShapeError: ``boxes`` has a different shape.
        UsageError: the model is not a PART model, or ``boxes``, ``n``, ``sampling`` or ``weights`` are out of range.

    Source: PART, section 5.1.
    """
    opened = open_image(image)
    part = model_of(model, device)
    if boxes is None:
        chosen = _own_boxes(opened.size, n, part, sampling, weights, seed)
    elif weights is not None:
        raise UsageError("weights= is for sampling patches, but boxes= sets them: leave one of the two out.")
    else:
        chosen = _checked(boxes, opened.size)
    source = Image.fromarray(opened.pixels)
    crops = [source.resize(_side(part), _filter(part), box=tuple(box)) for box in chosen]
    patches = [np.ascontiguousarray(opened.pixels[t:b, l:r]) for l, t, r, b in whole_pixels(chosen)]  # noqa: E741
    cell = max(opened.size) * part.patch / part.preprocess.size
    translations, ratios = _predict(part, crops, chosen[:, 2:] - chosen[:, :2], cell)
    return PatchRelations(translations, patches, boxes=chosen, image=opened.pixels, ratios=ratios)


def assemble(
    patches: Any,
    *,
    model: str | Path | Part | None = None,
    reference: Reference = "least-squares",
    device: Device = None,
) -> Assembly:
    """Assemble patches into one image at predicted positions; the patches may come from different images.

    Args:
        patches: at least two images, in any form that :func:`partzoo.images.opening.open_images` accepts, each a whole
            patch.
        model: name or file of a PART model, or the module; None uses the bundled model.
        reference: method of placing the patches; see :meth:`PatchRelations.positions`.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        The image, on the smallest canvas that holds all patches, each at its original size.

    Raises:
        ImageError: a patch cannot be read.
        UsageError: there are fewer than two patches, the model is not a PART model, or the reference does not exist.

    Source: PART, section 5.1 (i).
    """
    images, _ = open_images(patches)
    if len(images) < 2:
        raise UsageError("One patch cannot be assembled: pass two or more.")
    part = model_of(model, device)
    pixels = [image.pixels for image in images]
    crops = [Image.fromarray(patch).resize(_side(part), _filter(part)) for patch in pixels]
    sizes = np.array([patch.shape[1::-1] for patch in pixels], np.float64)
    return PatchRelations(_predict(part, crops, sizes, sizes.mean(0))[0], pixels).assemble(reference)


def model_of(model: str | Path | Part | None, device: Device = None) -> Part:
    """Return the PART model of this name or file, or the given module, on a device; None returns the bundled model.

    Raises:
        UsageError: the model is not a PART model.
    """
    from partzoo.models.part.model import Part

    found: object = model
    if model is None or isinstance(model, (str, Path)):
        from partzoo.models.loading import load

        found = load(model or DEFAULT_MODEL, device=device)
    if not isinstance(found, Part):
        raise UsageError(f"{name_of(found)} does not relate patches: pass a PART model, for example model='part-vitn'.")
    return placed(found.eval(), device)


def _side(model: Part) -> tuple[int, int]:
    return (model.patch, model.patch)


def _filter(model: Part) -> Image.Resampling:
    return Image.Resampling[model.preprocess.interpolation.upper()]


def _predict(
    model: Part, crops: Sequence[Image.Image], sizes: np.ndarray, cell: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict translations ``(N, N, 2)`` in pixels and, with a model of four targets, relative sizes ``(N, N, 2)``.

    Args:
        model: a model with two or four targets.
        crops: N patches, resized for the model.
        sizes: ``(N, 2)``, width and height of the patches in the image, in pixels.
        cell: side of the training patches, in pixels of the image.
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
    """Sample boxes ``(N, 4)``, left, top, right, bottom, as in the model's training."""
    import torch

    from partzoo.models.part.sampling import grid_positions, sample_boxes, sample_positions

    if sampling not in OWN_SAMPLINGS:
        raise UsageError(f"Unknown sampling {sampling!r}: choose one of {', '.join(OWN_SAMPLINGS)}.")
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise UsageError(f"n={n!r} must be 2 or more.")
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
        raise UsageError(
            f"weights {weights.shape} must have the image's size {tuple(size)} and be finite and non-negative."
        )
    return torch.from_numpy(weights)


def _checked(boxes: Any, size: tuple[int, int]) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) < 2:
        raise ShapeError(f"boxes have shape {boxes.shape}: pass two or more rows of (left, top, right, bottom).")
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
