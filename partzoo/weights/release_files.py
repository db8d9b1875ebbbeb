"""Turn a trained model into released files: storage precision, location and golden output."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from partzoo.errors import UsageError, WeightsError
from partzoo.weights.checked import sha256_of
from partzoo.weights.manifest import BUNDLED, CHECKPOINTS, NAME, PACKAGE, WeightFile, manifest
from partzoo.weights.store import resolve
from partzoo.weights.tensors import ENCODER, read_state, rounded, write_weights

BUNDLE_BYTES = 29_000_000  # a wheel compresses this to less than 25 MB
FILE_BYTES = 90_000_000
HEADER_BYTES = 1_000_000
FAITHFUL = 0.9999  # lowest cosine between an output before and after rounding
SAMPLED = 16  # number of recorded values of a golden output


class Released(Protocol):
    """The attributes of a model that a release needs; a typing protocol, as this package may not import the models."""

    architecture: str
    config: Any
    preprocess: Any

    def __call__(self, *inputs: Tensor) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


@runtime_checkable
class WithParts(Protocol):
    """A part model, whose maps are a softmax over products of features and descriptors."""

    def part_maps(self, *inputs: Tensor) -> Tensor: ...

    def encode(self, x: Tensor) -> Any: ...

    def descriptors(self, *inputs: Tensor) -> Tensor: ...


@torch.no_grad()
def storage_dtype(model: Released, x: Tensor | None = None) -> torch.dtype:
    """Choose the smallest precision that preserves the features: bfloat16, float16 or float32.

    Args:
        model: model in float32 and evaluation mode.
        x: input to compare the outputs for; None uses the input of :func:`golden`.

    Returns:
        The first of these dtypes to which the matrices can be rounded with a cosine of at least 0.9999 between each
        output vector before and after. For a part model, the vectors are its features and descriptors, which determine
        the maps.
    """
    x = golden_input(_input_of(model)) if x is None else x
    reference = _vectors(model, x)
    trial = copy.deepcopy(model)
    for dtype in (torch.bfloat16, torch.float16):
        trial.load_state_dict(rounded(model.state_dict(), dtype))
        cosine = nn.functional.cosine_similarity(_vectors(trial, x), reference, dim=-1)
        if torch.isfinite(cosine).all() and cosine.min() >= FAITHFUL:
            return dtype
    return torch.float32


def pack(
    name: str,
    model: Released,
    *,
    dtype: torch.dtype | None = None,
    bundled: bool = False,
    root: str | Path | None = None,
) -> tuple[WeightFile, ...]:
    """Write a model's weights to the folder of releases, and load the rounded weights into the model.

    Figures and golden output computed with the model afterwards are therefore true of the released file. A part model's
    frozen encoder is left out if the package has its weights: loading takes them from there.

    Args:
        name: name of the record, ``architecture.tag``.
        model: model in float32.
        dtype: dtype of the stored matrices; None uses the result of :func:`storage_dtype`.
        bundled: whether to write to the package (29 MB at most) instead of ``checkpoints/`` (shards of at most 90 MB).
        root: clone of the repository; None uses the one that partzoo is imported from.

    Returns:
        The files, for the record.

    Raises:
        UsageError: the package would hold more than 29 MB of weights.
        WeightsError: ``root`` is not a clone, or a file cannot be written.
    """
    clone = Path(root) if root is not None else PACKAGE.parent
    if not (clone / NAME).is_file():
        raise WeightsError(f"{clone} is not a clone of partzoo: release from one, or pass root=.")
    base, folder = (clone / PACKAGE.name, BUNDLED) if bundled else (clone, CHECKPOINTS)
    path = base / folder / f"{name}.safetensors"
    stored = rounded(model.state_dict(), dtype or storage_dtype(model))
    released = _released_encoder(model)
    stored |= released
    own = {name: value for name, value in stored.items() if name not in released}
    written = write_weights(path, own, model.architecture, model.config, max_bytes=FILE_BYTES - HEADER_BYTES)
    total = sum(file.stat().st_size for file in path.parent.glob("*.safetensors"))
    if bundled and total > BUNDLE_BYTES:
        path.unlink()
        raise UsageError(f"With {name} the package would hold {total:,} bytes of weights: use bundled=False.")
    model.load_state_dict(stored)
    return tuple(_describe(file, base) for file in written)


def _released_encoder(model: Released) -> dict[str, Tensor]:
    """Return the tensors of a part model's encoder, if they are those in the package that its configuration names."""
    record = manifest().get(getattr(model.config, "encoder", ""))
    if record is None or not record.bundled:
        return {}
    known = {f"{ENCODER}{name}": value for name, value in read_state(resolve(record)).items()}
    state = model.state_dict()
    same = all(name in state and state[name].equal(value.to(state[name].dtype)) for name, value in known.items())
    return known if same else {}


def _vectors(model: Released, x: Tensor) -> Tensor:
    if isinstance(model, WithParts):
        return torch.cat([model.encode(x).patch, model.descriptors(*_arguments(model, x))], dim=1)
    return model(x)


def golden_input(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Draw normal noise of a shape, the same on all machines, because numpy guarantees this generator's stream."""
    noise = np.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(noise.astype(np.float32))


@torch.no_grad()
def golden(model: Released, shape: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
    """Summarize a model's output for a fixed input, small enough for the manifest.

    Args:
        model: model in float32, evaluation mode and on the CPU; its output is one tensor. A model that has separate
            parts for each class gets the first class.
        shape: shape of the input; None uses one input of the shape in ``model.preprocess``.
        seed: random seed of the input.

    Returns:
        ``input`` (shape and seed), ``shape`` of the output, its ``rms``, ``values`` at 16 evenly spaced indices, and
        ``digest``, the sha256 of the output rounded to a hundredth of its rms. On one machine the digest reveals any
        change; between machines the last bits differ, so :func:`check_golden` compares values.
    """
    shape = list(shape or _input_of(model))
    features = model(*_arguments(model, golden_input(shape, seed))).float()
    output = features.numpy().ravel()
    rms = float(np.sqrt(np.mean(output.astype(np.float64) ** 2)))
    steps = np.round(output / (rms or 1.0) * 100).astype("<i4")
    return {
        "input": {"shape": shape, "seed": seed},
        "shape": list(features.shape),
        "rms": float(f"{rms:.6g}"),
        "values": [float(f"{value:.6g}") for value in output[_places(output.size)]],
        "digest": hashlib.sha256(steps.tobytes()).hexdigest(),
    }


def check_golden(model: Released, recorded: dict[str, Any], tolerance: float = 1e-3) -> float:
    """Compare a model's output with the one in its record.

    Args:
        model: model in float32, evaluation mode and on the CPU.
        recorded: the result of :func:`golden` in the record.
        tolerance: largest allowed difference, as a share of the output's rms.

    Returns:
        The largest difference found, as a share of the output's rms.

    Raises:
        WeightsError: the difference is larger, or the output has a different shape.
    """
    name = getattr(model, "architecture", type(model).__name__)
    found = golden(model, recorded["input"]["shape"], recorded["input"]["seed"])
    if found["shape"] != recorded["shape"]:
        raise WeightsError(
            f"{name} returns an output of shape {tuple(found['shape'])} for its golden input, not the recorded "
            f"{tuple(recorded['shape'])}: install the version of partzoo that the weights were released with."
        )
    gaps = np.abs(np.subtract(found["values"], recorded["values"]))
    share = float(gaps.max()) / (recorded["rms"] or 1.0)
    if not share <= tolerance:
        raise WeightsError(
            f"The golden output of {name} differs by {share:.2g} of its rms, more than the {tolerance:g} allowed: load "
            "it with dtype='float32', or install the version of partzoo that the weights were released with."
        )
    return share


def _input_of(model: Released) -> list[int]:
    return [1, *model.preprocess.shape]


def _arguments(model: object, x: Tensor) -> tuple[Tensor, ...]:
    """Return a model's arguments: images and, for a model that has separate parts for each class, the first class."""
    several = isinstance(model, WithParts) and getattr(getattr(model, "config", None), "classes", 0) > 1
    return (x, torch.zeros(len(x), dtype=torch.int64)) if several else (x,)


def _places(size: int) -> np.ndarray:
    return np.linspace(0, size - 1, min(SAMPLED, size)).round().astype(int)


def _describe(file: Path, base: Path) -> WeightFile:
    return WeightFile(file.relative_to(base).as_posix(), sha256_of(file), file.stat().st_size)
