"""A model with its settings: fits vocabularies to views of pictures, and labels pixels with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from partzoo.discovery.cluster import spherical_kmeans
from partzoo.discovery.describe import Blocks, View, look
from partzoo.discovery.refine import guided_filter, resize, strips
from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError
from partzoo.image import Picture
from partzoo.parts import Parts

SHARPNESS = 20.0  # cosines are multiplied by it before the softmax over parts
RADIUS, EPSILON = 2, 1e-3  # of the guided filter, in cells and in squared units of colours in 0..1
AUTO_K = range(2, 13)
AUTO_CELLS = 4096


class Finder:
    """Finds parts with one model and one set of settings."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.model = model
        self.settings = settings

    def look(self, picture: Picture) -> View:
        """Run the model on a picture, alone, so that no other picture can change what comes out."""
        return look(picture, self.model, self.settings)

    def fit(self, views: Sequence[View], k: int | str | None, seed: int = 0) -> PartVocabulary:
        """Fit a vocabulary; parts are numbered by their area on the views' grids, ties by their first cell."""
        if views[0].maps is not None:
            return self._merge(views, k)
        cells = Blocks.join([view.blocks.at(view.inside) for view in views])
        means = cells.means()
        points = cells.descriptors(means, self.settings.weights)
        if not len(points):
            return PartVocabulary(points, means, self.settings)
        clusters = spherical_kmeans(points, best_k(points, seed) if k == "auto" else k, seed=seed)
        order = by_area(clusters.labels.numpy(), len(clusters.centres))
        return PartVocabulary(clusters.centres[order], means, self.settings)

    def parts(self, picture: Picture, view: View, vocabulary: PartVocabulary) -> Parts:
        """Label a picture."""
        maps = self.maps(view, vocabulary)
        labels = np.zeros(picture.size, np.uint8 if vocabulary.k < 256 else np.uint16)
        row = 0
        for strip in strips(maps, picture.size):
            found = _compete(strip, view.maps is None).argmax(0).numpy()
            labels[row : row + len(found)] = found
            row += len(found)

        def scores() -> np.ndarray:
            whole = torch.cat([_compete(strip, view.maps is None) for strip in strips(maps, picture.size)], dim=1)
            return (whole / whole.sum(0)).numpy()

        descriptors = None if vocabulary.numbering else vocabulary.centres.numpy()
        return Parts(labels, k=vocabulary.k, image=picture.pixels, scores=scores, descriptors=descriptors)

    def maps(self, view: View, vocabulary: PartVocabulary) -> Tensor:
        """``(K + 1, h, w)``: the foreground's score and each part's share of it; for a learned part model, its maps."""
        if view.maps is not None:
            groups = torch.tensor([0, *vocabulary.numbering])
            maps = torch.zeros(vocabulary.k + 1, *view.maps.shape[1:]).index_add_(0, groups, view.maps)
        else:
            points = view.blocks.descriptors(vocabulary.means, self.settings.weights)
            shares = (SHARPNESS * points @ vocabulary.centres.T).softmax(1).T
            maps = torch.cat([view.score[None], shares.unflatten(1, view.score.shape)])
        if not self.settings.refine:
            return maps
        return guided_filter(view.rgb, maps, radius=RADIUS, epsilon=EPSILON, fine=view.pixels).clamp_(0, 1)

    def _merge(self, views: Sequence[View], k: int | str | None) -> PartVocabulary:
        """Join a learned part model's most similar parts until k are left."""
        descriptors = normalize(torch.stack([view.descriptors[1:] for view in views]).mean(0), dim=1)
        own = len(descriptors)
        if k is None or k == "auto":
            k = own
        if k > own:
            raise UsageError(f"k={k}: this model knows {own} parts. Use k <= {own}, or k=None for all of them.")
        groups = [[i] for i in range(own)]
        while len(groups) > k:
            centres = normalize(torch.stack([descriptors[group].mean(0) for group in groups]), dim=1)
            similar = (centres @ centres.T).fill_diagonal_(-2)
            a, b = divmod(int(similar.argmax()), len(groups))
            groups[a] += groups.pop(b) if b > a else []
        labels = np.concatenate([view.maps.argmax(0).flatten().numpy() for view in views])
        group_of = np.zeros(own + 1, int)
        for number, group in enumerate(groups):
            group_of[np.array(group) + 1] = number
        rank = np.argsort(by_area(group_of[labels[labels > 0]], k))
        numbering = tuple(int(rank[group]) + 1 for group in group_of[1:])
        return PartVocabulary(descriptors, descriptors.new_zeros(0), self.settings, numbering)


def _compete(maps: Tensor, split: bool) -> Tensor:
    """Scores whose arg-max is the label. ``split``: the first map is the foreground's score and the others are shares
    of it; a pixel is background below 0.5, whatever the shares."""
    if not split or len(maps) == 1:
        return 1 - maps if split else maps
    score, shares = maps[:1], maps[1:]
    return torch.cat([1 - score, score * shares / shares.amax(0).clamp(min=1e-6)])


def by_area(labels: np.ndarray, k: int) -> np.ndarray:
    """Numbers 0..k-1 by how often they occur, most often first, ties by first occurrence."""
    counts = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels))
    present, where = np.unique(labels, return_index=True)
    first[present] = where
    return np.lexsort((first, -counts))


def best_k(points: Tensor, seed: int) -> int:
    """The k in 2..12 with the highest mean silhouette, distances being 1 - cosine to the centres.

    Source: Rousseeuw, "Silhouettes", 1987, in the centre-based form of Hruschka et al. ("simplified silhouette").
    """
    points = points[:: -(-len(points) // AUTO_CELLS)]
    best = (-2.0, 1)
    for k in AUTO_K:
        centres = spherical_kmeans(points, k, seed=seed, restarts=2).centres
        if len(centres) < 2:
            break
        near, next_near = (1 - (normalize(points, dim=1) @ centres.T).topk(2, dim=1).values.T).clamp(min=1e-6)
        best = max(best, (float((1 - near / next_near).mean()), k), key=lambda pair: pair[0])
    return best[1]
