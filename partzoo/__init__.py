"""A model zoo for part discovery. Public names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from partzoo.attention import draw_attention as draw_attention
    from partzoo.attention import part_attention as part_attention
    from partzoo.collections.run import write_collection as write_collection
    from partzoo.collections.stages import DiscoverParts as DiscoverParts
    from partzoo.collections.stages import ExtractFeatures as ExtractFeatures
    from partzoo.conversion.convert import convert as convert
    from partzoo.discovery.judging import PartScores as PartScores
    from partzoo.discovery.judging import suggest_images as suggest_images
    from partzoo.discovery.pipeline import discover_parts as discover_parts
    from partzoo.discovery.pipeline import fit_parts as fit_parts
    from partzoo.discovery.shaping import split_part as split_part
    from partzoo.discovery.vocabulary import PartVocabulary as PartVocabulary
    from partzoo.errors import ImageError as ImageError
    from partzoo.errors import MissingExtraError as MissingExtraError
    from partzoo.errors import PartzooError as PartzooError
    from partzoo.errors import ShapeError as ShapeError
    from partzoo.errors import UnknownModelError as UnknownModelError
    from partzoo.errors import UsageError as UsageError
    from partzoo.errors import WeightsError as WeightsError
    from partzoo.export.export import export_model as export_model
    from partzoo.features import Features as Features
    from partzoo.features import extract_features as extract_features
    from partzoo.matching import PartMatches as PartMatches
    from partzoo.matching import embed_parts as embed_parts
    from partzoo.matching import match_parts as match_parts
    from partzoo.models.loading import load as load
    from partzoo.models.registry import list_models as list_models
    from partzoo.parts.parts import Parts as Parts
    from partzoo.pyramid import FeaturePyramid as FeaturePyramid
    from partzoo.pyramid import feature_pyramid as feature_pyramid
    from partzoo.reconstruction import Reconstruction as Reconstruction
    from partzoo.reconstruction import reconstruct as reconstruct
    from partzoo.relations.images import ImageRelation as ImageRelation
    from partzoo.relations.images import relate_images as relate_images
    from partzoo.relations.patches import Assembly as Assembly
    from partzoo.relations.patches import PatchRelations as PatchRelations
    from partzoo.relations.predict import assemble as assemble
    from partzoo.relations.predict import relate as relate
    from partzoo.report.page import write_report as write_report
    from partzoo.swapping import swap_parts as swap_parts

_HOME = {
    "DiscoverParts": "collections.stages",
    "ExtractFeatures": "collections.stages",
    "write_collection": "collections.run",
    "convert": "conversion.convert",
    "export_model": "export.export",
    "discover_parts": "discovery.pipeline",
    "fit_parts": "discovery.pipeline",
    "PartScores": "discovery.judging",
    "PartVocabulary": "discovery.vocabulary",
    "suggest_images": "discovery.judging",
    "split_part": "discovery.shaping",
    "draw_attention": "attention",
    "part_attention": "attention",
    "swap_parts": "swapping",
    "Reconstruction": "reconstruction",
    "reconstruct": "reconstruction",
    "Features": "features",
    "extract_features": "features",
    "Parts": "parts.parts",
    "PartMatches": "matching",
    "embed_parts": "matching",
    "match_parts": "matching",
    "FeaturePyramid": "pyramid",
    "feature_pyramid": "pyramid",
    "load": "models.loading",
    "list_models": "models.registry",
    "Assembly": "relations.patches",
    "PatchRelations": "relations.patches",
    "assemble": "relations.predict",
    "relate": "relations.predict",
    "ImageRelation": "relations.images",
    "relate_images": "relations.images",
    "write_report": "report.page",
    "ImageError": "errors",
    "MissingExtraError": "errors",
    "PartzooError": "errors",
    "ShapeError": "errors",
    "UnknownModelError": "errors",
    "UsageError": "errors",
    "WeightsError": "errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(f"partzoo.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'partzoo' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    """Return the version of the installed package; what finds it out takes longer to import than this package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("partzoo")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
