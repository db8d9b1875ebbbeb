"""Tensors in safetensors files, which are written atomically with a digest, read as written and loaded strictly."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from partzoo.errors import WeightsError
from partzoo.files import (
    check_version,
    create_folder,
    expand_user,
    parse_json,
    path_aside,
    read_json,
    reading,
    write_aside,
)
from partzoo.weights.checked import digest_of, sha256_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from safetensors import safe_open
    from torch import Tensor, nn

INDEX = ".safetensors.index.json"
FORMAT = 1  # version of a model's header and config.json
# What safetensors calls these dtypes.
STORED = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8"}
CONFIG = "config.json"
DIGEST = "partzoo_sha256"  # key of the digest in a header
ENCODER = "encoder."  # prefix of the names of a part model's encoder's tensors
SMALL = 100_000_000  # largest file, in bytes, that is read into memory
FIX = "download it again, or run 'partzoo verify'"
SHOWN = 5
MAX_SHARDS = 1000


def read_state(paths: Iterable[str | Path], *, verify: bool = True, fix: str = FIX) -> dict[str, Tensor]:
    """Read tensors by name, as :func:`read_tensors` does.

    Args:
        paths: safetensors files; an index (``.safetensors.index.json``) stands for the shards it names.
        verify, fix: as in :func:`read_tensors`.

    Raises:
        WeightsError: a file is missing, truncated, damaged or not a safetensors file, or two files hold the same
            tensor.
    """
    state: dict[str, Tensor] = {}
    for file in _expand(paths):
        tensors, _ = read_tensors(file, verify=verify, fix=fix)
        if twice := state.keys() & tensors.keys():
            raise WeightsError(f"{file} holds {min(twice)!r} again: the shards do not belong together.")
        state |= tensors
    return state


def read_tensors(
    path: str | Path, *, verify: bool = True, remembered: bool = True, fix: str = FIX
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors by name and the metadata of one safetensors file. All of partzoo's readers use this.

    A file of at most 100 MB (``SMALL``) is read into memory, so that nothing that happens to the file later changes the
    tensors. A larger one is memory-mapped: it may be removed or replaced by a rename while its tensors are in use, but
    not overwritten in place.

    Args:
        path: path of the file.
        verify: whether to compare the content with the digest in the header. A file without a digest, which is older or
            was not written by partzoo, is read without a check.
        remembered: whether a large file that was compared before, and has not changed since, is not compared again.
        fix: what to do if the file is damaged, for the message.

    Raises:
        WeightsError: the file is missing, truncated, damaged or not a safetensors file.
    """
    return _read(expand_user(path), "pt", verify, remembered, fix)


def read_arrays(path: str | Path, *, fix: str = FIX) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file as :func:`read_tensors` does, as NumPy's arrays and without torch; NumPy has no bfloat16."""
    return _read(expand_user(path), "np", True, True, fix)


def _read(
    path: Path, framework: str, verify: bool, remembered: bool, fix: str
) -> tuple[dict[str, Any], dict[str, str]]:
    with _opened(path, fix, framework) as opened:
        metadata = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        small = path.stat().st_size <= SMALL
        if small and framework == "pt":
            tensors = {name: value.clone() for name, value in tensors.items()}
    expected, place = metadata.get(DIGEST), "in its header"
    compute = partial(digest, tensors, metadata)
    if verify and not expected and (expected := _stated(path)):
        place, compute = f"in {CONFIG}", partial(sha256_of, path)
    if verify and expected:
        with reading(path, WeightsError, fix=fix):
            found = digest_of(path, expected, compute, remembered=remembered and not small)
        if found != expected:
            raise WeightsError(
                f"{path} is damaged: the sha256 of its content is {found[:12]}..., not the {expected[:12]}... {place}: "
                f"{fix}."
            )
    return tensors, metadata


def _stated(path: Path) -> str | None:
    """Return the sha256 of a released file that ``config.json`` beside it states; None if there is none."""
    try:
        stated = read_json(path.with_name(CONFIG)).get("sha256")
        return stated.get(path.name) if isinstance(stated, dict) else None
    except (OSError, ValueError, AttributeError):
        return None


def own_digests(path: str | Path) -> dict[Path, tuple[str, str]]:
    """Read safetensors files and compare their content with the digests in their headers.

    Args:
        path: a safetensors file; an index, which stands for its shards; or a folder, with all such files in it.

    Returns:
        For each file its state (``"ok"``, ``"damaged"`` or ``"no digest"``), and a sentence unless it is ``"ok"``.

    Raises:
        WeightsError: there are no such files, or the index is damaged.
    """
    path = expand_user(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else _expand([path])
    if not files:
        raise WeightsError(f"{path} holds no safetensors files: check the path.")
    return {file: _compared(file) for file in files}


def _compared(file: Path) -> tuple[str, str]:
    try:
        _, metadata = read_tensors(file, remembered=False, fix="download it again, or write it again")
    except WeightsError as error:
        return "damaged", str(error)
    if DIGEST in metadata or _stated(file):
        return "ok", ""
    return "no digest", f"{file} has no digest in its header, so damage cannot be found."


def digest(tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the sha256 of tensors, with their names, dtypes and shapes, and of metadata other than a digest."""
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    about = {name: (f"torch.{dtypes[name]}", value.shape) for name, value in tensors.items()}
    return _digest(about, lambda name: stored_bytes(tensors[name]), metadata)


def _digest(
    tensors: Mapping[str, tuple[str, Sequence[int]]], read: Callable[[str], Any], metadata: Mapping[str, str]
) -> str:
    names = sorted(tensors)
    about = {key: metadata[key] for key in sorted(metadata) if key != DIGEST}
    table = [[name, tensors[name][0], list(tensors[name][1])] for name in names]
    total = hashlib.sha256(json.dumps([about, table]).encode())
    for name in names:
        total.update(read(name))
    return total.hexdigest()


def stored_bytes(tensor: Tensor | np.ndarray) -> memoryview:
    """Return the bytes of a tensor, in the order of its elements."""
    import numpy as np

    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).data
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def read_metadata(path: str | Path, *, fix: str = FIX) -> dict[str, str]:
    """Read the metadata in a safetensors file's header; ``fix`` as in :func:`read_tensors`.

    Raises:
        WeightsError: the file cannot be read.
    """
    with _opened(expand_user(path), fix, "np") as opened:  # which needs no torch
        return opened.metadata() or {}


def read_header(path: str | Path) -> tuple[str, dict[str, Any], list[Path]]:
    """Read architecture and configuration from a header written by :func:`write_weights`; the third result is the file.

    Raises:
        WeightsError: the file cannot be read, or its header names no architecture.
    """
    header = read_metadata(path)
    fix = (
        "write the file with partzoo.hub.save_pretrained, or load the tensors into a model of partzoo.load by "
        "load_state_dict"
    )
    with reading(path, WeightsError, "names no architecture of partzoo in its header", fix):
        check_version(header.get("partzoo_format"), FORMAT, str(path), WeightsError)
        config = parse_json(header["config"])
        if not isinstance(config, dict):
            raise ValueError("its config is not an object")
        return header["architecture"], config, [expand_user(path)]


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
        config: configuration, a dataclass or a dictionary of JSON values.
        dtype: dtype of the stored matrices and kernels; None keeps each tensor's dtype. See :func:`rounded`.
        max_bytes: largest size of one file; a larger state is split into shards with an index.

    Returns:
        The files, the index last.

    Raises:
        WeightsError: a file cannot be written.
    """
    path = expand_user(path)
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
    with _writable(_index(path)) as file, path_aside(file) as aside:
        aside.write_text(json.dumps(index, indent=1), encoding="utf-8")
    path.unlink(missing_ok=True)
    return [*(path.with_name(name) for name in split.filename_to_tensors), _index(path)]


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: dict[str, str]) -> None:
    """Write tensors to one safetensors file atomically. All of partzoo's files of this kind are written here.

    Arrays are written without torch.

    The metadata receives a digest (see :func:`digest`), with which :func:`read_tensors` compares what it reads.

    Tensors may share memory and lie in it in any order: they are made contiguous, because writers of safetensors refuse
    others or, for NumPy's arrays, store the memory as it lies.

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np
    from safetensors import SafetensorError

    save_file: Callable
    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        from safetensors.numpy import save_file

        tensors = {name: np.array(value, order="C") for name, value in tensors.items()}
    else:
        from safetensors.torch import save_file

        tensors = _apart(cast("Mapping[str, Tensor]", tensors))
    try:
        with path_aside(path) as aside:
            save_file(tensors, aside, metadata | {DIGEST: digest(tensors, metadata)})
            _order_metadata(aside)
    except SafetensorError as error:  # of a full disk, for example
        raise OSError(str(error)) from error


def _order_metadata(path: Path) -> None:
    """Sort the metadata in a file's header, which safetensors writes in another order each time, so that equal content
    gives equal files."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def save_streamed(
    path: str | Path,
    arrays: Mapping[str, tuple[np.dtype, Sequence[int]]],
    read: Callable[[str], np.ndarray],
    metadata: dict[str, str],
) -> None:
    """Write arrays as :func:`save_tensors` writes tensors, but hold only one in memory.

    Args:
        path: file to write.
        arrays: dtype, one of :data:`STORED`, and shape of each array.
        read: function that returns the array with a name; it is called twice for each.
        metadata: metadata of the header.

    Raises:
        PartzooError: the file cannot be written.
    """
    import numpy as np

    about = {name: (f"torch.{dtype}", shape) for name, (dtype, shape) in arrays.items()}
    header: dict[str, Any] = {
        "__metadata__": metadata | {DIGEST: _digest(about, lambda name: np.ascontiguousarray(read(name)), metadata)}
    }
    end = 0
    order = sorted(arrays, key=lambda name: -arrays[name][0].itemsize)  # stable, and so each is aligned
    for name in order:
        dtype, shape = arrays[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": STORED[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with write_aside(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(np.ascontiguousarray(read(name)).data)


def rounded(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Convert the matrices and kernels of a state dict to a different precision.

    Vectors (biases, norms, running statistics) keep their precision: they are small, and rounding them is harmful.
    """
    return {
        name: value.to(dtype) if dtype and value.is_floating_point() and value.ndim > 1 else value
        for name, value in state.items()
    }


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> nn.Module:
    """Load a state dict that must match the model exactly, without copying the tensors.

    Args:
        model: model to load, which may be on the meta device; the tensors become its parameters and buffers.
        state: tensors by name.
        source: name of the tensors in error messages.

    Returns:
        The model.

    Raises:
        WeightsError: tensors are missing, unexpected or of a different shape; the message lists all three kinds.
    """
    if misfit := differences(model, state):
        name = getattr(model, "architecture", None) or type(model).__name__
        raise WeightsError(
            f"{source} does not fit {name}: {misfit}. "
            "Load it with the architecture and configuration that it was saved from."
        )
    model.load_state_dict(dict(state), assign=True)
    return model


def differences(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """List the tensors that are missing in a state dict, unexpected or of another shape; "" if it fits the model."""
    wanted = model.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    found = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(_some(what, names) for what, names in found.items() if names)


def bad_values(state: Mapping[str, Tensor]) -> str | None:
    """Describe the first tensor that holds no values, or values that are not finite; None if there is none."""
    for name, value in state.items():
        if value.is_meta:
            return f"{name} is on the meta device, without values"
        if value.is_floating_point() and not value.isfinite().all():
            return f"{name} holds NaN or infinite values"
    return None


def _some(what: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"


@contextlib.contextmanager
def _opened(file: Path, fix: str, framework: str = "pt") -> Iterator[safe_open]:
    from safetensors import safe_open

    if not os.path.exists(file):
        raise WeightsError(f"There is no file {file}: check the path, or run 'partzoo download'.")
    with reading(file, WeightsError, "is not a complete safetensors file", fix):
        while True:
            # safetensors opens the file twice: a writer may replace it between the header and the tensors.
            before = file.stat()
            with safe_open(file, framework) as opened:
                if os.path.samestat(before, file.stat()):
                    yield opened
                    return


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        files |= dict.fromkeys(shards(path) if path.name.endswith(INDEX) else [path])
    return list(files)


def shards(index: Path) -> list[Path]:
    """Return the paths of the shards that an index names, which are beside it.

    Raises:
        WeightsError: the index is missing or damaged.
    """
    with reading(index, WeightsError, "is not an index of safetensors shards"):
        named = set(read_json(index)["weight_map"].values())
        if not named:
            raise ValueError("it names no files")
    if len(named) > MAX_SHARDS:
        raise WeightsError(f"{index} names {len(named):,} files: {MAX_SHARDS:,} are the most.")
    if outside := [name for name in named if not _beside(name)]:
        raise WeightsError(f"{index} names {outside[0]!r:.80}, not beside it or not safetensors: download it again.")
    names = sorted(named)
    return [index.with_name(name) for name in names]


def _beside(name: Any) -> bool:
    if not isinstance(name, str) or len(name) > 255:  # the longest name of a file system
        return False
    return Path(name).name == name and name.endswith(".safetensors") and name.isprintable()


def _index(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".safetensors") + INDEX)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU that share no memory, as safetensors requires."""
    seen: set[int] = set()
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        address = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if address in seen else value
        seen.add(address)
    return tensors


def _save(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    with _writable(path) as file:
        save_tensors(file, tensors, header)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[Path]:
    try:
        create_folder(path.parent)
        yield path
    except OSError as error:
        raise WeightsError(f"{path} cannot be written ({error}): choose another folder or free some space.") from error
