"""The record of how models are quantized, ``int8.json``, and of how well low precisions agree with float32.

``python scripts/int8.py`` writes it. It is read without importing torch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partzoo.files import read_json

FILE = Path(__file__).with_name("int8.json")
COSINE, SAME = 0.999, 0.99  # least agreement of a precision that dtype="auto" may choose


@dataclass(frozen=True)
class Agreement:
    """How well a model in a low precision agrees with float32, on images that were not used for calibration.

    Attributes:
        cosine: mean cosine of its features to those in float32.
        same: share of pixels with the same label.
    """

    cosine: float
    same: float

    @property
    def enough(self) -> bool:
        """Whether ``dtype="auto"`` may choose the precision."""
        return self.cosine >= COSINE and self.same >= SAME


@dataclass(frozen=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        name: name of the model.
        ranges: range of the input of each layer that is quantized, by the layer's name.
        agreement: by engine and precision.
    """

    name: str
    ranges: dict[str, tuple[float, float]]
    agreement: dict[str, dict[str, Agreement]]

    def to_json(self) -> dict[str, Any]:
        """Return the agreement and the names of the quantized layers, as JSON values."""
        agreement = {
            engine: {key: {"cosine": a.cosine, "same": a.same, "offered": a.enough} for key, a in found.items()}
            for engine, found in self.agreement.items()
        }
        return {"agreement": agreement, "int8": list(self.ranges)}


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Return the recorded recipes by the identity of the model (:func:`partzoo.models.engines.kept.identity`)."""
    return {key: _recipe(each) for key, each in read_json(FILE)["models"].items()}


def _recipe(content: dict[str, Any]) -> Recipe:
    ranges = {name: (low, high) for name, (low, high) in content["ranges"].items()}
    agreement = {
        engine: {precision: Agreement(*figures) for precision, figures in found.items()}
        for engine, found in content["agreement"].items()
    }
    return Recipe(content["name"], ranges, agreement)
