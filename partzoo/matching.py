"""Compare the parts of images: one embedding for each part, and correspondences between two images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from partzoo.discovery.descriptors import POSITION_ANGLE, angles
from partzoo.discovery.factory import blend, default_size, inference_model
from partzoo.discovery.refine import resize
from partzoo.discovery.views import view_image
from partzoo.errors import ShapeError, UsageError
from partzoo.images.opening import OpenedImage
from partzoo.limits import check_size

if TYPE_CHECKING:
    from partzoo.models.base import Model
    from partzoo.parts.parts import Parts
    from partzoo.system.device import Device

PLACE = 0.2  # share of the place within the object in a similarity; the rest is appearance


@dataclass(frozen=True, eq=False)
class PartMatches:
    """Correspondences between the parts of two images, a and b.

    Attributes:
        pairs: ``(m, 2)`` int64, numbers of the parts in a and in b that correspond.
        scores: ``(m,)`` float32, how alike the two parts of each pair are in appearance and place, at most 1.
        points_a: ``(n, 2)`` float32, x and y in pixels of a, from the centre of the top-left pixel.
        points_b: ``(n, 2)`` float32, the corresponding points in pixels of b.
        point_scores: ``(n,)`` float32, how alike the surroundings of the two points are, at most 1.
        point_pairs: ``(n,)`` int64, the row of ``pairs`` that each point belongs to.
        mirrored: whether the object in b is more like a mirror image of that in a.
    """

    pairs: np.ndarray
    scores: np.ndarray
    points_a: np.ndarray
    points_b: np.ndarray
    point_scores: np.ndarray
    point_pairs: np.ndarray
    mirrored: bool

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        shown = ", ".join(f"{a}-{b} {score:.2f}" for (a, b), score in zip(self.pairs, self.scores, strict=True))
        return f"<PartMatches: {shown or 'none'}; {len(self.points_a)} points{', mirrored' * self.mirrored}>"


@overload
def embed_parts(
    parts: Parts, *, model: str | nn.Module | None = ..., size: int | None = ..., device: Device = ...
) -> np.ndarray: ...


@overload
def embed_parts(
    parts: Sequence[Parts], *, model: str | nn.Module | None = ..., size: int | None = ..., device: Device = ...
) -> list[np.ndarray]: ...


def embed_parts(
    parts: Parts | Sequence[Parts],
    *,
    model: str | nn.Module | None = None,
    size: int | None = None,
    device: Device = None,
) -> np.ndarray | list[np.ndarray]:
    """Compute one vector for each part of an image, to find parts that look alike in other images.

    A vector is the mean of the encoder's features over the part's pixels. The features are averaged with those of the
    mirrored image, so an image and its mirror image have the same vectors.

    Args:
        parts: parts of one image or of many, which hold their images.
        model: name of an encoder, or an encoder; None uses the bundled default.
        size: longer side of the image that the encoder receives, in pixels; None uses the one of ``discover_parts``.
        device: where the model runs, as for :func:`partzoo.load`.

    Returns:
        ``(k, C)`` float32 with unit length, so that a dot product is a cosine; zeros for parts that the image does not
        have. A list of these for many images.

    Raises:
        UsageError: parts do not hold their image, or the model is not an encoder.
    """
    encoder = inference_model(model, device)
    if isinstance(parts, Sequence):
        return [_pooled(each, _layers(each, encoder, size)).numpy() for each in parts]
    return _pooled(parts, _layers(parts, encoder, size)).numpy()


def match_parts(
    a: Parts,
    b: Parts,
    *,
    by: Literal["appearance", "number"] = "appearance",
    model: str | nn.Module | None = None,
    size: int | None = None,
    device: Device = None,
) -> PartMatches:
    """Find corresponding parts of two images, and corresponding points within them.

    Two parts correspond if each is the most similar one to the other, by appearance (see :func:`embed_parts`) and by
    place within the object, and so do two cells of the encoder's grid within such parts. Everything is compared twice,
    with b as it is and with left and right exchanged, and the better result is returned.

    Args:
        a, b: parts of two images, which hold their images.
        by: ``"number"`` pairs the parts with the same number instead, for images that share a vocabulary.
        model, size, device: as for :func:`embed_parts`.

    Raises:
        UsageError: parts do not hold their image, ``by`` is unknown, or the model is not an encoder.
        ShapeError: ``by="number"`` and the images have different numbers of parts.
    """
    if by not in ("appearance", "number"):
        raise UsageError(f"Unknown by={by!r}. Choose 'appearance' or 'number'.")
    from partzoo.parts.parts import Parts

    if not (isinstance(a, Parts) and isinstance(b, Parts)):
        raise UsageError("match_parts compares two Parts: pass what discover_parts returns for each image.")
    if by == "number" and a.k != b.k:
        raise ShapeError(f"by='number' needs parts of one vocabulary, but the images have k={a.k} and k={b.k}.")
    encoder = inference_model(model, device)
    first, second = (_Side.of(parts, _layers(parts, encoder, size)) for parts in (a, b))
    found = [_matched(first, second, by, mirrored) for mirrored in (False, True)]
    return max(found, key=lambda matches: float(matches.point_scores.sum()))  # the first of equal ones: as it is


@dataclass(frozen=True, eq=False)
class _Side:
    """What is compared of one image.

    Attributes:
        present: ``(p,)`` numbers of its parts.
        embeddings: ``(p, C)``, unit length.
        places: ``(p, 2)`` centroids relative to the object's, in units of its spread.
        owner: ``(n,)`` number of the part at the centre of each cell that has one there.
        cells: ``(n, C)`` features of these cells, unit length.
        cell_places: ``(n, 2)``, like ``places``.
        points: ``(n, 2)`` centres of these cells in pixels.
    """

    present: Tensor
    embeddings: Tensor
    places: Tensor
    owner: Tensor
    cells: Tensor
    cell_places: Tensor
    points: Tensor

    @classmethod
    def of(cls, parts: Parts, layers: Sequence[tuple[float, Tensor]]) -> _Side:
        present = torch.tensor(parts.present, dtype=torch.int64)
        rows, columns = layers[0][1].shape[1:]
        cells = torch.cat([weight**0.5 * normalize(resize(layer, (rows, columns)), dim=0) for weight, layer in layers])
        height, width = parts.size
        x = (torch.arange(columns) + 0.5) * (width / columns) - 0.5
        y = (torch.arange(rows) + 0.5) * (height / rows) - 0.5
        points = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1)
        at = points.round().long().numpy()
        owner = torch.from_numpy(parts.labels[at[..., 1], at[..., 0]].astype(np.int64))
        for part in parts.present:
            if not (owner == part).any():  # it lies between the centres of cells, and takes the cell that it fills most
                owner.flatten()[_share(parts, part, (rows, columns)).argmax()] = part
        inside = owner > 0
        object_points = points[inside]
        centre = object_points.mean(0)
        spread = (object_points - centre).square().mean().sqrt().clamp(min=1)
        centroids = torch.from_numpy(parts.centroids[[part - 1 for part in parts.present]]).float()
        return cls(
            present,
            _pooled(parts, layers)[present - 1],
            (centroids - centre) / spread,
            owner[inside],
            cells[:, inside].T,
            (object_points - centre) / spread,
            object_points,
        )


def _matched(a: _Side, b: _Side, by: str, mirrored: bool) -> PartMatches:
    alike = _similarities(a.embeddings, b.embeddings, a.places, b.places, mirrored)
    if by == "number":
        chosen = (a.present[:, None] == b.present).nonzero()
    else:
        chosen = _mutual(alike)
    near = _similarities(a.cells, b.cells, a.cell_places, b.cell_places, mirrored)
    rows, columns, numbers = [], [], []
    for number, (i, j) in enumerate(chosen.tolist()):
        own, other = (a.owner == a.present[i]).nonzero()[:, 0], (b.owner == b.present[j]).nonzero()[:, 0]
        mutual = _mutual(near[own][:, other])
        rows.append(own[mutual[:, 0]])
        columns.append(other[mutual[:, 1]])
        numbers.append(torch.full((len(mutual),), number))
    none = [torch.empty(0, dtype=torch.int64)]
    row, column, pair = (torch.cat(each or none) for each in (rows, columns, numbers))
    return PartMatches(
        torch.stack([a.present[chosen[:, 0]], b.present[chosen[:, 1]]], dim=1).numpy(),
        alike[chosen[:, 0], chosen[:, 1]].numpy(),
        a.points[row].numpy(),
        b.points[column].numpy(),
        near[row, column].numpy(),
        pair.numpy(),
        mirrored,
    )


def _similarities(a: Tensor, b: Tensor, place_a: Tensor, place_b: Tensor, mirrored: bool) -> Tensor:
    """Compute ``(n, m)`` similarities of features ``(n, C)`` and ``(m, C)`` and their places, at most 1."""
    if mirrored:
        place_b = place_b * torch.tensor([-1.0, 1.0])
    turned = [angles(place.T[..., None], POSITION_ANGLE)[..., 0] for place in (place_a, place_b)]
    return ((1 - PLACE) * a @ b.T + PLACE * turned[0].T @ turned[1]).clamp(max=1)


def _mutual(similarities: Tensor) -> Tensor:
    """Return ``(m, 2)`` row and column of each pair that are each other's most similar ones."""
    if not similarities.numel():
        return torch.empty(0, 2, dtype=torch.int64)
    best = similarities.argmax(1)
    rows = torch.arange(len(similarities))
    kept = similarities.argmax(0)[best] == rows
    return torch.stack([rows[kept], best[kept]], dim=1)


def _layers(parts: Parts, encoder: Model, size: int | None) -> list[tuple[float, Tensor]]:
    """Return the layers ``(C, h, w)`` that discovery compares, finest first, each with its weight; these sum to one."""
    if parts.image is None:
        raise UsageError("These parts do not hold their image: make them with image=.")
    if size is not None:
        check_size(size)
    indices, weights = blend(encoder)
    shares = np.array(weights[: len(indices)])
    batch = view_image(OpenedImage(parts.image), encoder, size or default_size(encoder)).batch
    with torch.inference_mode():
        plain = encoder.forward_intermediates(batch, list(indices))
        turned = encoder.forward_intermediates(batch.flip(-1), list(indices))
        both = [
            normalize(x[0].float(), dim=0) + normalize(y[0].float(), dim=0).flip(-1)
            for x, y in zip(plain, turned, strict=True)
        ]
    layers = [normalize(layer.cpu(), dim=0) for layer in both]
    return list(zip((shares / shares.sum()).tolist(), layers, strict=True))


def _pooled(parts: Parts, layers: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the mean features ``(k, C)`` of each part, of unit length; zeros for absent parts."""
    found = torch.zeros(parts.k, sum(len(layer) for _, layer in layers))
    for part in parts.present:
        means = []
        for weight, layer in layers:
            share = _share(parts, part, (layer.shape[1], layer.shape[2]))
            means.append(weight**0.5 * normalize((layer * share).sum((1, 2)), dim=0))
        found[part - 1] = torch.cat(means)
    return found


def _share(parts: Parts, part: int, grid: tuple[int, int]) -> Tensor:
    """Return the share of each cell of a grid that a part fills, ``(h, w)`` float32."""
    return resize(torch.from_numpy(parts.mask(part)).float()[None], grid)[0]
