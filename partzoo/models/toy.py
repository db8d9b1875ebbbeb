"""A seeded vision transformer of a few thousand parameters, for tests and examples without weights."""

from __future__ import annotations

from partzoo.models.part.model import Part, PartConfig
from partzoo.models.registry import register


@register(family="encoder", config=PartConfig(dim=24, depth=2, heads=2, patch=8, size=32), needs_weights=False)
def toy_vit(config: PartConfig) -> Part:
    """Small random transformer with a fixed seed, for tests and examples; its features have no meaning."""
    return Part(config)
