"""Convert parts to layers of napari."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from partzoo.parts.drawing import palette

if TYPE_CHECKING:
    from partzoo.parts.parts import Parts

Layer = tuple[Any, dict[str, Any], str]  # data, arguments and type, as napari's readers return them


def to_napari(parts: Parts) -> list[Layer]:
    """Convert parts to tuples that ``napari.layers.Layer.create`` takes; napari need not be installed.

    Returns:
        The image, if it is known, and a layer of labels ``(H, W)`` that can be painted on, with the colours of the
        overlay and a table of features (the name of each label, the background's first).
    """
    colours: dict[int | None, tuple[float, ...]] = {
        number: (*colour, 1.0) for number, colour in enumerate((palette(parts.k) / 255).tolist())
    }
    colours |= {0: (0.0,) * 4, None: (0.5, 0.5, 0.5, 1.0)}  # None: labels that are added later
    arguments = {
        "name": "parts",
        "opacity": 0.55,
        "colormap": colours,
        "features": {"index": list(range(parts.k + 1)), "name": ["background", *parts.names]},
        "metadata": {"source": parts.source},
    }
    layers: list[Layer] = [(parts.labels.copy(), arguments, "labels")]
    if parts.image is not None:
        layers.insert(0, (parts.image, {"name": "image", "rgb": True}, "image"))
    return layers
