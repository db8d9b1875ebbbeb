"""Checkpoints of other people: read without running what is in them, unwrapped, and told apart."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partzoo.errors import WeightsError
from partzoo.weights.tensors import read_metadata, read_state

# In training checkpoints, the first that is there is taken; teacher is DINO's, which is what DINO released.
WRAPPERS = ("state_dict", "best_state_dict", "model", "teacher")
PARTS = ("backbone", "relation")  # of Spatial Reasoning
SHOWN = 3
DAMAGED = "no whole checkpoint of torch or safetensors: fetch it again."
_SCALAR: Any = np.float64(0).__reduce__()[0]
# What training scripts leave beside the weights: their options, and scores that are numpy's numbers.
HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_checkpoint(path: str | Path) -> Any:
    """What a file of torch or safetensors holds, its tensors mapped into memory where the format allows.

    Raises:
        WeightsError: there is no such file, it is of another kind, damaged, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}: check the path.")
    with path.open("rb") as file:
        begin = file.read(16)
    if path.suffix == ".safetensors" or begin[8:9] == b"{":
        if own := read_metadata(path).get("architecture"):
            raise WeightsError(f"{path} is a model of partzoo already, {own}: partzoo.load takes it as it is.")
        return read_state([path])
    zipped = zipfile.is_zipfile(path)
    if zipped and any(name.endswith("constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise WeightsError(f"{path} is a TorchScript program, not a checkpoint: save the state dict of its model.")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if begin[:2] == b"PK" and not zipped:
            raise WeightsError(f"{path} is {DAMAGED}") from error
        if begin[:1] == b"\x80" or zipped:
            found = str(error).partition("GLOBAL ")[2].partition(" was not")[0]
            raise WeightsError(
                f"{path} holds more than tensors ({found or 'objects of other programs'}), and loading those could run "
                "code: save its state dict alone, torch.save(model.state_dict(), FILE)."
            ) from error
        raise WeightsError(f"{path} is no checkpoint of torch or safetensors: it begins with {begin!r}.") from error
    except (RuntimeError, EOFError, ValueError, OSError, LookupError, TypeError) as error:
        raise WeightsError(f"{path} is {DAMAGED}") from error


def unwrapped(content: Any) -> Any:
    """The state dict in a checkpoint, without ``module.``; of Spatial Reasoning, its two; else the content itself."""
    if not isinstance(content, Mapping):
        return content
    if all(isinstance(content.get(part), Mapping) for part in PARTS):
        return {part: _without_module(content[part]) for part in PARTS}
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return _without_module(content) if inner is None else unwrapped(inner)


def is_state(state: Any) -> bool:
    """Whether it is tensors by name."""
    return isinstance(state, Mapping) and bool(state) and all(isinstance(value, Tensor) for value in state.values())


def looks_like(state: Any) -> str:
    """What something that is no known checkpoint seems to be: one phrase, with the number of tensors and some names."""
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    if "param_groups" in state:
        return "the state of an optimizer"
    if not is_state(state):
        return f"a dictionary of {len(state)} entries ({_some(state)}), not all of them tensors"
    return f"{_kind(state)}: {len(state)} tensors ({_some(state)})"


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


def _without_module(state: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).removeprefix("module."): value for name, value in state.items()}
