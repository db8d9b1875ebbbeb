"""``convert`` turns a published checkpoint into a model of the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from partzoo.conversion import spatial
from partzoo.conversion.reading import is_state, looks_like, read_checkpoint, unwrapped
from partzoo.conversion.registry import Reader, readers
from partzoo.errors import PartzooError, WeightsError, cause_of, restated
from partzoo.models.base import Model
from partzoo.models.loading import assign
from partzoo.models.precision import Precision, set_precision
from partzoo.models.registry import find
from partzoo.system.device import Device, device_of
from partzoo.weights.tensors import bad_values


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
        source: a released file or a training checkpoint of one of the methods in docs/convert.md, such as PartFormer,
            MPAE, Spatial Reasoning or DINO (heads of backbones are left out). It is a path to a file of torch, which
            is read without running code in it, or of safetensors; or the content of such a file: a state dict, a
            dictionary that contains one, or ``{"backbone": ..., "relation": ...}``. A backbone of Spatial Reasoning
            alone computes features but no relations. Names may begin with ``module.``
            or, as those of Lightning, all with another attribute such as ``model.``.
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
        UnknownModelError: the architecture is unknown.
    """
    if architecture is not None:
        find(architecture)
    name = str(source) if isinstance(source, (str, Path)) else ""

    def restate(error: Exception) -> PartzooError:
        if isinstance(error, PartzooError):
            return type(error)(f"{name}: {error}")
        return WeightsError(f"{name or 'The state dict'} cannot be converted ({cause_of(error)}): download it again.")

    with restated(name, restate):
        return _recognized(source, architecture)


def _recognized(source: str | Path | Mapping[str, Any], architecture: str | None) -> Published:
    named = isinstance(source, (str, Path))
    state = unwrapped(read_checkpoint(source) if isinstance(source, (str, Path)) else source)
    state, reader = _read(spatial.with_parts(state, architecture))
    if reader is None and spatial.is_large(state):
        raise WeightsError(
            f"{source if named else 'This'} looks like {looks_like(state)}. If it is the backbone of Spatial "
            f"Reasoning's ResNet-34, pass architecture={spatial.LARGE!r}."
        )
    if reader is None:
        known = ", ".join(method for each in readers() for method, _, _ in each.READS)
        raise WeightsError(
            f"{source if named else 'This'} looks like {looks_like(state)}. Pass a checkpoint of one of {known}."
        )
    if not named:
        state = _cloned(state)
    architecture, config, found = reader.from_published(state, architecture)
    count = sum(map(len, state.values())) if _nested(state) else len(state)
    return Published(architecture, config, found, count, tuple(reader.unused(state)))


def _read(state: Any) -> tuple[Any, Reader | None]:
    """Return a state dict and its reader, if it has one.

    If no reader knows the names but all begin with the same attribute, such as ``model.`` of a module of Lightning, the
    names are read without it.
    """
    # One state dict, or several by name, such as the backbone and the relation module of Spatial Reasoning.
    if not all(map(is_state, state.values() if _nested(state) else [state])):
        return state, None
    reader = next((each for each in readers() if each.recognizes(state)), None)
    first = {name.partition(".")[0] for name in state}
    if reader is None and len(first) == 1 and not _nested(state) and all("." in name for name in state):
        inner, reader = _read({name.partition(".")[2]: value for name, value in state.items()})
        return (state, None) if reader is None else (inner, reader)
    return state, reader


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
    """Build the model of a recognized checkpoint; arguments as in :func:`convert`, ``source`` for messages."""
    if fault := bad_values(published.state):
        raise WeightsError(f"{source} cannot be converted: {fault}.")
    entry = find(published.architecture)
    chosen = entry.configure(published.config | config)
    model = assign(entry, chosen, published.state, str(source), local_files_only=local_files_only, cache_dir=cache_dir)
    return set_precision(model.eval().requires_grad_(False), dtype, device_of(device))


def _nested(state: Any) -> bool:
    return isinstance(state, Mapping) and bool(state) and all(isinstance(value, Mapping) for value in state.values())


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the tensors, because the caller may continue to train the originals."""
    return {n: v.detach().clone() if isinstance(v, Tensor) else _cloned(v) for n, v in state.items()}
