"""Trace the outlines of a mask along the edges of its pixels."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Ring = list[tuple[int, int]]  # corners (x, y) in pixel edges, 0..W and 0..H, without repeating the first


@dataclass(frozen=True)
class Piece:
    """A 4-connected region of a mask.

    Attributes:
        outer: boundary, clockwise on the screen.
        holes: boundaries of the holes, counterclockwise, so that the region is on the right of every edge.
        polygon: boundary as a single ring: a slit of no width leads to each hole and back.
    """

    outer: Ring
    holes: list[Ring]
    polygon: Ring


def pieces(mask: np.ndarray) -> list[Piece]:
    """Trace the 4-connected regions of a mask, with their holes.

    Rings follow the edges of pixels, so filling them by the even-odd rule gives back the mask exactly. Each ring begins
    at its uppermost corner, the leftmost one if there are several.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        The regions, in the order of their first corners.
    """
    rings, is_outer = _rings(mask)
    slits = _slits(mask, rings, is_outer)
    outer, holes = list(range(len(rings))), defaultdict(list)
    for parent in range(len(rings)):  # a hole comes after the ring that its slit leads to
        for _, _, hole in slits[parent]:
            outer[hole] = outer[parent]
    for hole in (i for i in range(len(rings)) if not is_outer[i]):
        holes[outer[hole]].append(rings[hole])
    return [Piece(rings[i], holes[i], _joined(i, rings, slits)) for i in range(len(rings)) if is_outer[i]]


def polygons(mask: np.ndarray) -> list[list[int]]:
    """Return one polygon x0, y0, x1, y1, ... for each 4-connected region of a mask ``(H, W)`` bool.

    Polygons cannot have holes, so slits of no width lead to them: under the even-odd rule, which pycocotools follows,
    the polygons fill exactly the mask.
    """
    return [[value for corner in piece.polygon for value in corner] for piece in pieces(mask)]


def _rings(mask: np.ndarray) -> tuple[list[Ring], list[bool]]:
    """Trace all boundaries of a mask, and state for each whether it is the outer boundary of a region.

    On each grid line, the corners of the boundary come in pairs that are joined by an edge. Rows contain the horizontal
    edges and columns the vertical ones; alternating between the two walks round a region or a hole. Where two regions
    touch in a single point, each has a separate corner there.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    filled = nw + ne + sw + se
    touching = (filled == 2) & (nw == se)
    y, x = np.nonzero((filled % 2 == 1) | touching)
    if not len(y):
        return [], []
    # A point where regions touch is listed twice: first the corner with the edge on its left, then on its right.
    twice = touching[y, x]
    falling = twice & (nw[y, x] == 1)
    repeats = np.where(twice, 2, 1)
    second = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    y, x, falling, twice = (np.repeat(a, repeats) for a in (y, x, falling, twice))
    below = np.where(twice & ~falling, 1 - second, second)
    across = np.empty(len(y), np.int64)
    down = np.empty(len(y), np.int64)
    for partner, order in ((across, np.arange(len(y))), (down, np.lexsort((below, y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]

    starts_region = (se[y, x] == 1).tolist()
    xs, ys, in_row, in_column = x.tolist(), y.tolist(), across.tolist(), down.tolist()
    seen = [False] * len(xs)
    rings, is_outer = [], []
    for first in range(len(xs)):
        if seen[first]:
            continue
        ring: Ring = []
        corner = first
        while not seen[corner]:
            other = in_row[corner]
            seen[corner] = seen[other] = True
            ring += [(xs[corner], ys[corner]), (xs[other], ys[other])]
            corner = in_column[other]
        is_outer.append(starts_region[first])
        rings.append(ring if is_outer[-1] else [ring[0], *ring[:0:-1]])
    return rings, is_outer


def _slits(mask: np.ndarray, rings: list[Ring], is_outer: list[bool]) -> dict[int, list[tuple[int, int, int]]]:
    """Find the ring that a slit from each hole leads to.

    The slit leads from the hole's first corner straight to the left, along the upper edge of pixels of the region, to
    the vertical edge where they begin. That edge belongs to the outer boundary or to a hole with an earlier first
    corner.

    Returns:
        For each ring, its slits in the order of a walk along it: edge (number of its first corner), y, and the number
        of the hole.
    """
    slits: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    if all(is_outer):
        return slits
    # With the region on their right, edges on the left of its pixels go up.
    upward = [
        (x, end, number, edge)
        for number, ring in enumerate(rings)
        for edge, ((x, y), (other, end)) in enumerate(zip(ring, ring[1:] + ring[:1], strict=True))
        if x == other and end < y
    ]
    table = np.array(sorted(upward))
    keys = table[:, 0] * (mask.shape[0] + 1) + table[:, 1]
    for hole in (i for i in range(len(rings)) if not is_outer[i]):
        x, y = rings[hole][0]
        begin = int(np.append(np.flatnonzero(~mask[y, :x]), -1).max()) + 1
        _, _, ring, edge = table[np.searchsorted(keys, begin * (mask.shape[0] + 1) + y, side="right") - 1].tolist()
        slits[ring].append((edge, y, hole))
    for each in slits.values():
        each.sort(key=lambda slit: (slit[0], -slit[1]))
    return slits


def _joined(number: int, rings: list[Ring], slits: dict[int, list[tuple[int, int, int]]]) -> Ring:
    """Walk along an outer boundary, and through each slit around its hole and back."""

    def steps(ring: int) -> Iterator[tuple[tuple[int, int], int | None]]:
        """Yield the corners of a ring up to the first one again, and the hole to walk around at a corner."""
        waiting = deque(slits[ring])
        for edge, corner in enumerate(rings[ring]):
            yield corner, None
            while waiting and waiting[0][0] == edge:
                _, y, hole = waiting.popleft()
                yield (corner[0], y), hole
                yield (corner[0], y), None
        yield rings[ring][0], None

    found: Ring = []
    walks = [steps(number)]  # a list, since holes may be attached to holes more deeply than Python recurses
    while walks:
        step = next(walks[-1], None)
        if step is None:
            walks.pop()
            continue
        corner, hole = step
        if not found or corner != found[-1]:  # a slit may begin at a corner
            found.append(corner)
        if hole is not None:
            walks.append(steps(hole))
    return found[:-1]
