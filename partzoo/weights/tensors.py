"""Tensors in safetensors files: written atomically, read without a copy, loaded strictly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partzoo.errors import WeightsError
from partzoo.files import check_version, path_aside, stand_in_of

if TYPE_CHECKING:
    import torch
    from safetensors import safe_open
    from torch import Tensor, nn

INDEX = ".safetensors.index.json"
FORMAT = 1  # of a model's header and config.json
SHOWN = 5


def read_state(paths: Iterable[str | Path]) -> dict[str, Tensor]:
    """Read tensors by name; they are memory-mapped, not copied.

    Args:
        paths: safetensors files; an index (``.safetensors.index.json``) stands for the shards it names.

    Raises:
        WeightsError: a file is missing, truncated or not a safetensors file, or two files hold the same tensor.
    """
    state: dict[str, Tensor] = {}
    for file in _expand(paths):
        with _open(file) as opened:
            names = opened.keys()
            if twice := state.keys() & names:
                raise WeightsError(f"{file} holds {min(twice)!r} again: the shards do not belong together.")
            state |= {name: opened.get_tensor(name) for name in names}
    return state


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata in a safetensors file's header.

    Raises:
        WeightsError: the file cannot be read.
    """
    with _open(Path(path).expanduser()) as opened:
        return opened.metadata() or {}


def read_header(path: str | Path) -> tuple[str, dict[str, Any], list[Path]]:
    """Read architecture and configuration from a header of :func:`write_weights`; the third result is the file.

    Raises:
        WeightsError: the file cannot be read, or its header names no architecture.
    """
    header = read_metadata(path)
    try:
        check_version(header.get("partzoo_format"), FORMAT, str(path), WeightsError)
        return header["architecture"], json.loads(header["config"]), [Path(path).expanduser()]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} names no architecture of partzoo in its header: write the file with "
            "partzoo.hub.save_pretrained, or load the tensors into a model of partzoo.load by load_state_dict."
        ) from error


def write_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    architecture: str,
    config: Any,
    dtype: torch.dtype | None = None,
    *,
    max_bytes: int | None = None,
) -> list[Path]:
    """Write a state dict atomically, with its architecture and configuration in the header.

    Args:
        path: path of the file, which ends in ``.safetensors``.
        state: tensors by name.
        architecture: registered name of the architecture.
        config: the configuration, a dataclass or a dictionary of JSON values.
        dtype: dtype of the stored matrices and kernels; None keeps each tensor's own. See :func:`rounded`.
        max_bytes: largest size of one file; a larger state is split into shards with an index.

    Returns:
        The files, the index last.

    Raises:
        WeightsError: a file cannot be written.
    """
    path = Path(path).expanduser()
    is_config = dataclasses.is_dataclass(config) and not isinstance(config, type)
    values = dataclasses.asdict(config) if is_config else dict(config)
    header = {"format": "pt", "architecture": architecture, "config": json.dumps(values)}
    header["partzoo_format"] = str(FORMAT)
    tensors = _apart(rounded(state, dtype))
    if max_bytes is None or sum(value.nbytes for value in tensors.values()) <= max_bytes:
        _save(path, tensors, header)
        _index(path).unlink(missing_ok=True)
        return [path]
    from huggingface_hub import split_torch_state_dict_into_shards

    pattern = path.name.replace(".safetensors", "{suffix}.safetensors")
    split = split_torch_state_dict_into_shards(tensors, filename_pattern=pattern, max_shard_size=max_bytes)
    for name, keys in split.filename_to_tensors.items():
        _save(path.with_name(name), {key: tensors[key] for key in keys}, header)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    _write(_index(path), lambda aside: aside.write_text(json.dumps(index, indent=1), encoding="utf-8"))
    path.unlink(missing_ok=True)
    return [*(path.with_name(name) for name in split.filename_to_tensors), _index(path)]


def rounded(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Convert the matrices and kernels of a state dict to another precision.

    Vectors (biases, norms, running statistics) keep their precision: they are small, and rounding them does harm.
    """
    return {
        name: value.to(dtype) if dtype and value.is_floating_point() and value.ndim > 1 else value
        for name, value in state.items()
    }


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> nn.Module:
    """Load a state dict that must match the model exactly, without copying the tensors.

    Args:
        model: the model, which may be on the meta device; the tensors become its parameters and buffers.
        state: tensors by name.
        source: name of the tensors in error messages.

    Returns:
        The model.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape; the message lists all three kinds.
    """
    wanted = model.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    differences = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": shapes,
    }
    if any(differences.values()):
        listed = "; ".join(_some(what, names) for what, names in differences.items() if names)
        name = getattr(model, "architecture", None) or type(model).__name__
        raise WeightsError(
            f"{source} does not fit {name}: {listed}. "
            "Load it with the architecture and configuration that it was saved from."
        )
    model.load_state_dict(dict(state), assign=True)
    return model


def _some(what: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"


def _open(file: Path) -> safe_open:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        if not file.is_file():
            raise WeightsError(f"There is no file {file}: check the path, or run 'partzoo download'.") from error
        reason = (
            stand_in_of(file)
            or f"is not a complete safetensors file ({error}): fetch it again, or run 'partzoo verify'"
        )
        raise WeightsError(f"{file} {reason}.") from error


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        files |= dict.fromkeys(shards(path) if path.name.endswith(INDEX) else [path])
    return list(files)


def shards(index: Path) -> list[Path]:
    """Paths of the shards that an index names, which lie beside it.

    Raises:
        WeightsError: the index is missing or damaged.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is not an index of safetensors shards ({error!r}): fetch it again.") from error
    if outside := [name for name in names if Path(name).name != name]:
        raise WeightsError(f"{index} names {outside[0]!r}, which is not beside it: fetch it again.")
    return [index.with_name(name) for name in names]


def _index(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".safetensors") + INDEX)


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory, as safetensors requires."""
    seen: set[int] = set()
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        address = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if address in seen else value
        seen.add(address)
    return tensors


def _save(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    from safetensors.torch import save_file

    _write(path, lambda aside: save_file(tensors, aside, header))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path_aside(path) as aside:
            write(aside)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be written ({error}): choose another folder or free some space.") from error
