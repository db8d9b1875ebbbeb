"""Programs that engines run, exported once and kept in partzoo's cache folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import partzoo
from partzoo.errors import PartzooError, require
from partzoo.files import create_folder, write_aside
from partzoo.models.base import Model
from partzoo.models.engines.graphs import Call, MethodGraph
from partzoo.tracing.graph import traced
from partzoo.tracing.onnx_file import onnx_bytes
from partzoo.weights.checked import cache_folder
from partzoo.weights.tensors import digest

MADE_BY = ("torch", "onnx", "onnxscript")  # packages whose version decides what a program looks like
LENGTH = 16  # number of digits of each digest in a file's name


def identity(model: Model) -> str:
    """Return a digest of a model's architecture, configuration and weights."""
    about = {"architecture": model.architecture, "config": json.dumps(dataclasses.asdict(model.config))}
    return digest(model.state_dict(), about)


def kept_program(model: str, call: Call, prepare: Callable[[], Model]) -> bytes:
    """Return the program of a model's method from the cache folder, where it is stored if it is missing or damaged.

    Args:
        model: the model's :func:`identity`, and how it is quantized.
        call: the method.
        prepare: function that returns the model as it is to be exported.

    Raises:
        MissingExtraError: the libraries that export are not installed.
        PartzooError: the model cannot be exported.
    """
    about = [model, dataclasses.astuple(call), _code(), *map(_version, MADE_BY)]
    key = _sha256(json.dumps(about).encode())
    folder = cache_folder() / "engines"
    for file in sorted(folder.glob(f"{key}-*.onnx")):
        if (content := _content(file)) is not None:
            return content
    graph = MethodGraph(prepare(), call).eval()
    content = onnx_bytes(traced(graph), graph, {"partzoo_version": partzoo.__version__})
    try:
        create_folder(folder)
        with write_aside(folder / f"{key}-{_sha256(content)}.onnx") as stream:
            stream.write(content)
    except (OSError, PartzooError):  # a folder that cannot be written is no reason not to run
        pass
    return content


@functools.cache
def _code() -> str:
    """Return a digest of the package's modules that decide what a program computes."""
    package = Path(partzoo.__file__).parent
    files = sorted(file for folder in ("images", "models", "tracing") for file in (package / folder).rglob("*.py"))
    return _sha256(b"".join(file.read_bytes() for file in files))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        require(package, "export")
        raise


def _content(file: Path) -> bytes | None:
    """Return a file's content if it has the digest in the file's name; otherwise the file is removed."""
    try:
        content = file.read_bytes()
        if _sha256(content) == file.stem.rpartition("-")[2]:
            return content
        file.unlink(missing_ok=True)
    except OSError:
        pass
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]
