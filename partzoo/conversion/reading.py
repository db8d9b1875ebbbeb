"""Read published checkpoints safely: never run their code, remove wrappers, and describe unknown files."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partzoo.archives import is_stored_plainly
from partzoo.errors import WeightsError, counted
from partzoo.files import begin_of, expand_user, reading, stand_in
from partzoo.models.wrappers import plain_names
from partzoo.weights.tensors import SMALL, read_metadata, read_state

# Keys of training checkpoints; the first one present is used. For DINO that is the teacher, which DINO releases.
WRAPPERS = ("state_dict", "best_state_dict", "model", "teacher", "backbone")
PARTS = ("backbone", "relation")  # the two state dicts of Spatial Reasoning
SHOWN = 3
DAMAGED = "is not a complete checkpoint of torch or safetensors"
_SCALAR: Any = np.float64(0).__reduce__()[0]
# Harmless types that training scripts store beside the weights: their options, and scores as numpy scalars.
HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_checkpoint(path: str | Path) -> Any:
    """Read a torch or safetensors file; the tensors of a large one are memory-mapped if the format allows.

    Raises:
        WeightsError: the file is missing, damaged, in an unknown format, or contains code.
    """
    path = expand_user(path)
    if not os.path.isfile(path):
        raise WeightsError(f"There is no file {path}: check the path.")
    with reading(path, WeightsError, DAMAGED):
        return _read(path)


def _read(path: Path) -> Any:
    begin = begin_of(path)
    if reason := stand_in(begin):
        raise WeightsError(f"{path} {reason}.")
    if path.suffix == ".safetensors" or begin[8:9] == b"{":
        if own := read_metadata(path).get("architecture"):
            raise WeightsError(f"{path} is already a model of partzoo, {own}: load it with partzoo.load.")
        return read_state([path])
    zipped = zipfile.is_zipfile(path)
    mapped = zipped and path.stat().st_size > SMALL
    if zipped and any(name.endswith("constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise WeightsError(f"{path} is a TorchScript program, not a checkpoint: save the state dict of its model.")
    if zipped and not is_stored_plainly(path):
        raise WeightsError(
            f"{path} has compressed or overlapping members, which torch never writes: save it with torch.save."
        )
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if begin[:2] == b"PK" and not zipped:
            raise WeightsError(f"{path} {DAMAGED}: download it again.") from error
        if begin[:1] == b"\x80" or zipped:
            found = str(error).partition("GLOBAL ")[2].partition(" was not")[0]
            raise WeightsError(
                f"{path} contains more than tensors ({found or 'objects of other programs'}), and loading them could "
                "run code: save its state dict alone, with torch.save(model.state_dict(), FILE)."
            ) from error
        raise WeightsError(
            f"{path} begins with {begin[:16]!r}, unlike files of torch and safetensors: check the path."
        ) from error


def unwrapped(content: Any) -> Any:
    """Return a checkpoint's state dict, or Spatial Reasoning's two, with plain names; otherwise the content itself."""
    if not isinstance(content, Mapping):
        return content
    if all(isinstance(content.get(part), Mapping) for part in PARTS):
        return {part: plain_names(content[part]) for part in PARTS}
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return plain_names(content) if inner is None else unwrapped(inner)


def is_state(state: Any) -> bool:
    """Return whether ``state`` is a dictionary of tensors by name."""
    return isinstance(state, Mapping) and bool(state) and all(isinstance(value, Tensor) for value in state.values())


def looks_like(state: Any) -> str:
    """Describe an unknown checkpoint in one phrase, with the number of its tensors and some of their names."""
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    if "param_groups" in state:
        return "the state of an optimizer"
    if not is_state(state):
        return f"a dictionary of {counted(len(state), 'entry')} ({_some(state)}), not all of them tensors"
    return f"{_kind(state)}: {counted(len(state), 'tensor')} ({_some(state)})"


def _kind(state: Mapping[str, Tensor]) -> str:
    for name, what in (
        ("patch_embed.proj.weight", "a vision transformer of timm or MAE"),
        ("embeddings.patch_embeddings.projection.weight", "a vision transformer of Hugging Face's transformers"),
        ("visual.conv1.weight", "CLIP"),
        ("features.0.weight", "a VGG"),
        ("layer1.0.conv1.weight", "a ResNet"),
    ):
        if any(key == name or key.endswith(f".{name}") for key in state):
            return what
    return "a network of another kind"


def _some(state: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(state)[:SHOWN])) + (", ..." if len(state) > SHOWN else "")
