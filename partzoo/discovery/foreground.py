"""Where the object is: named methods that score every cell of a picture's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cells:
    """A picture on its working grid.

    Attributes:
        lab: ``(h, w, 3)`` float32, mean CIELAB colour of each cell (L 0..100).
        features: ``(h, w, C)`` float32 learned features of unit length, or None.
    """

    lab: np.ndarray
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Regions:
    labels: np.ndarray
    count: int
    lab: np.ndarray
    place: np.ndarray
    features: np.ndarray | None
    neighbours: np.ndarray
    border: np.ndarray
    size: np.ndarray


def regions(cells, count=200, compactness=10.0, rounds=5):
    h, w, _ = cells.lab.shape
    step = max((h * w / count) ** 0.5, 1.0)
    rows, cols = max(round(h / step), 1), max(round(w / step), 1)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    home_y, home_x = (y * rows / h).astype(int), (x * cols / w).astype(int)
    labels = home_y * cols + home_x
    points = np.concatenate([cells.lab.reshape(-1, 3), (compactness / step) * np.stack([y.ravel(), x.ravel()], 1)], 1)
    near = np.stack([np.clip(home_y + i, 0, rows - 1) * cols + np.clip(home_x + j, 0, cols - 1)
                     for i in (-1, 0, 1) for j in (-1, 0, 1)], -1).reshape(-1, 9)
    n = rows * cols
    centres = group_mean(points, labels.ravel(), n)
    for _ in range(rounds):
        distance = ((points[:, None] - centres[near]) ** 2).sum(2)
        labels = near[np.arange(len(near)), distance.argmin(1)]
        used = np.bincount(labels, minlength=n) > 0
        centres = np.where(used[:, None], group_mean(points, labels, n), np.inf)
    _, labels = np.unique(labels, return_inverse=True)
    n = labels.max() + 1
    place = np.stack([y.ravel() / max(h, w), x.ravel() / max(h, w)], 1)
    grid = labels.reshape(h, w)
    neighbours = np.zeros((n, n), bool)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        neighbours[a, b] = neighbours[b, a] = True
    border = np.zeros(n, bool)
    border[np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])] = True
    f = cells.features
    return Regions(grid, n, group_mean(cells.lab.reshape(-1, 3), labels, n), group_mean(place, labels, n),
                   None if f is None else group_mean(f.reshape(h * w, -1), labels, n), neighbours, border,
                   np.bincount(labels, minlength=n) / (h * w))


def group_mean(values, labels, n):
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=n)
    out = np.zeros((n, values.shape[1]), np.float32)
    used = counts > 0
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[used]
    out[used] = np.add.reduceat(values[order], starts, axis=0) / counts[used, None]
    return out


def pairwise(a):
    s = (a * a).sum(1)
    return np.sqrt(np.maximum(s[:, None] + s[None] - 2 * a @ a.T, 0))


def region_distance(r, feature_weight=0.0):
    """~1 = one sigma of Zhu (10 Lab units)"""
    d = (pairwise(r.lab) / 10) ** 2
    if feature_weight and r.features is not None:
        d = d * (1 - min(feature_weight, 1)) + feature_weight * (pairwise(r.features) / 0.25) ** 2
    return np.sqrt(d)


def shortest_paths(graph):
    d = graph.copy()
    for i in range(len(d)):
        np.minimum(d, d[:, i, None] + d[None, i], out=d)
    return d


def boundary(r, distance, clip=True, sigma_bnd=1.0, return_bg=False):
    n = r.count
    eye = np.eye(n, dtype=bool)
    links = (r.neighbours | (r.border[:, None] & r.border[None])) & ~eye
    d = distance.astype(np.float32)
    # what a texture costs between neighbours is not a boundary (authors' code: clip the 2nd smallest, averaged)
    if n > 3:
        nd = np.where(r.neighbours & ~eye, d, np.inf)
        two = np.sort(nd, 1)[:, :2]
        clipv = np.mean(two[np.isfinite(two)]) if np.isfinite(two).any() else 0
    else:
        clipv = 0
    g = np.where(links, np.maximum(d - (clipv if clip else 0), 0), np.inf)
    np.fill_diagonal(g, 0)
    geo = shortest_paths(g)
    close = np.exp(-np.minimum(geo, 1e3) ** 2 / 2)
    area = close.sum(1)
    length = close[:, r.border].sum(1)
    bndcon = length / np.sqrt(area)
    bg = 1 - np.exp(-bndcon ** 2 / (2 * sigma_bnd ** 2))
    spa = np.exp(-pairwise(r.place) ** 2 / (2 * 0.4 ** 2))
    ctr = (d * spa) @ (bg)
    ctr = (ctr - ctr.min()) / max(np.ptp(ctr), 1e-6)
    ctr = ctr * (1-bg) * 1.0 if False else ctr
    return bg, ctr


def optimize(r, distance, bg, fg, mu=0.1):
    n = r.count
    eye = np.eye(n, dtype=bool)
    two_hop = (r.neighbours.astype(np.float32) @ r.neighbours > 0) | r.neighbours | (r.border[:, None] & r.border[None])
    w = np.where(two_hop & ~eye, np.exp(-distance ** 2 / 2), 0) + np.where(r.neighbours & ~eye, mu, 0)
    lap = np.diag(w.sum(1)) - w
    s = np.linalg.solve(lap + np.diag(bg + fg) + 1e-6 * np.eye(n), fg)
    return np.clip(s, 0, 1)


def otsu(values):
    v = np.sort(values.ravel().astype(np.float64))
    n, total = len(v), np.cumsum(v)
    k = np.arange(1, n)
    between = k * (n - k) * (total[:-1] / k - (total[-1] - total[:-1]) / (n - k)) ** 2
    i = int(between.argmax())
    return (v[i] + v[i + 1]) / 2


def centred(s, t):
    return np.clip(np.where(s < t, 0.5 * s / max(t, 1e-6), 0.5 + 0.5 * (s - t) / max(1 - t, 1e-6)), 0, 1).astype(np.float32)


METHODS = ("boundary", "none")


def foreground(method, cells):
    if method == "none":
        return np.ones(cells.lab.shape[:2], np.float32)
    r = regions(cells)
    d = region_distance(r)
    bg, fg = boundary(r, d)
    s = optimize(r, d, bg, fg)
    s = (s - s.min()) / max(np.ptp(s), 1e-6)
    s = s[r.labels]
    return centred(s, otsu(s))
