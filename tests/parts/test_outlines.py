"""Outlines follow the edges of pixels: they are the mask exactly, with its pieces and holes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from partzoo.discovery.pieces import connected_pieces
from partzoo.parts.outlines import pieces, polygons

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=16))


def rasterized(ring: list, shape: tuple[int, int]) -> np.ndarray:
    """Pixels with an odd number of the ring's vertical edges to the left of their centre."""
    crossings = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
        if x0 == x1:
            crossings[min(y0, y1) : max(y0, y1), x0:] += 1
    return crossings % 2 == 1


def area(ring: list) -> int:
    x, y = np.transpose(ring)
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


@settings(max_examples=300)
@given(masks)
def test_rings_are_boundaries_of_pixels_with_the_region_on_the_right(mask):
    for piece in pieces(mask):
        for ring in (piece.outer, *piece.holes):
            steps = np.roll(ring, -1, 0) - ring
            assert len(ring) >= 4
            assert ((steps == 0).sum(1) == 1).all(), "every edge is horizontal or vertical, and none is empty"
            assert ((steps[:, 0] == 0) != (np.roll(steps, 1, 0)[:, 0] == 0)).all(), "no corner lies on a straight line"
            assert (area(ring) > 0) == (ring is piece.outer), "clockwise on the screen, holes counterclockwise"
            assert ring[0] == min(ring, key=lambda corner: corner[::-1])


@settings(max_examples=300)
@given(masks)
def test_pieces_without_their_holes_are_the_mask(mask):
    covered = np.zeros(mask.shape, int)
    for piece in pieces(mask):
        region = rasterized(piece.outer, mask.shape)
        for hole in piece.holes:
            inside = rasterized(hole, mask.shape)
            assert not (inside & ~region).any()
            region &= ~inside
        np.testing.assert_array_equal(rasterized(piece.polygon, mask.shape), region)
        assert area(piece.polygon) == region.sum()
        covered += region
    np.testing.assert_array_equal(covered, mask)


@settings(max_examples=300)
@given(masks)
def test_holes_are_the_pieces_of_the_background_that_do_not_reach_the_border(mask):
    numbers = connected_pieces(np.pad(~mask, 1, constant_values=True))
    assert sum(len(piece.holes) for piece in pieces(mask)) == numbers.max() - 1


@settings(max_examples=300)
@given(masks)
def test_pycocotools_fills_exactly_the_mask(mask):
    reader = pytest.importorskip("pycocotools.mask")
    found = polygons(mask)
    if found:
        decoded = reader.decode(reader.merge(reader.frPyObjects(found, *mask.shape)))
        np.testing.assert_array_equal(decoded.astype(bool), mask)
    else:
        assert not mask.any()


def test_outlines_by_hand():
    assert polygons(np.zeros((3, 3), bool)) == []
    assert polygons(np.ones((2, 3), bool)) == [[0, 0, 3, 0, 3, 2, 0, 2]]
    assert polygons(np.eye(2, dtype=bool)) == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    (piece,) = pieces(ring)
    assert piece.outer == [(0, 0), (3, 0), (3, 3), (0, 3)]
    assert piece.holes == [[(1, 1), (1, 2), (2, 2), (2, 1)]]
    assert piece.polygon == [*piece.outer, (0, 1), *piece.holes[0], (1, 1), (0, 1)]


def test_many_holes_in_a_row_are_no_deeper_than_python_recurses():
    mask = np.ones((3, 5001), bool)
    mask[1, 1::2] = False
    (piece,) = pieces(mask)
    assert len(piece.holes) == 2500
    np.testing.assert_array_equal(rasterized(piece.polygon, mask.shape), mask)
