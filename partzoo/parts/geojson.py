"""Convert parts to GeoJSON as QuPath reads and writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partzoo.parts.drawing import palette
from partzoo.parts.outlines import Piece, pieces

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

FORMAT = 1  # version of the fields that partzoo adds to the format


def to_geojson(parts: Parts) -> dict:
    """Convert parts to a GeoJSON collection with one feature for each present part.

    Coordinates are pixels of the image from its top-left corner, along the edges of pixels, as in QuPath. Rings are
    closed, and holes are rings of their polygon. Each feature is an annotation of QuPath, classified by the part's name
    and colour; all features have the same properties, because geopandas changes types where some are missing.

    Returns:
        A dictionary for ``json.dump``. Its entry ``partzoo`` states the names of all parts and the image's size;
        QuPath does not keep it.
    """
    colours = palette(parts.k).tolist()
    height, width = parts.size
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": _geometry(pieces(parts.mask(part))),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": parts.names[part - 1], "color": colours[part]},
                    "isLocked": False,
                },
            }
            for part in parts.present
        ],
        "partzoo": {
            "format": FORMAT,
            "source": parts.source,
            "height": height,
            "width": width,
            "names": list(parts.names),
        },
    }


def _geometry(found: list[Piece]) -> dict:
    polygons = [[[*ring, ring[0]] for ring in (piece.outer, *piece.holes)] for piece in found]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
