"""Write an exported program as ONNX, as a ``torch.export`` archive or for OpenVINO, with its metadata inside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from partzoo.errors import PartzooError, require
from partzoo.files import path_aside, write_aside
from partzoo.tracing.onnx_file import onnx_bytes

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from partzoo.tracing.graph import Graph

METADATA = "partzoo.json"  # file in a torch.export archive that holds the metadata
RT_INFO = "partzoo"  # key of the metadata in OpenVINO's rt_info

Write = Callable[["ExportedProgram", "Graph", Mapping[str, str], Path], None]


def write_onnx(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program as one ONNX file, with the metadata in ``metadata_props``."""
    content = onnx_bytes(program, graph, metadata)
    with write_aside(path) as file:
        file.write(content)


def write_torch_export(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program with ``torch.export.save``, with the metadata in the extra file ``partzoo.json``."""
    import torch

    with write_aside(path) as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata))})


def write_openvino(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str], path: Path) -> None:
    """Write a program as ``.xml`` and ``.bin`` in float32, with the metadata under ``partzoo`` in ``rt_info``.

    It goes through ONNX, because OpenVINO's own converter of torch programs lacks operations that the models use.
    """
    openvino = require("openvino", "openvino")
    model = openvino.Core().read_model(onnx_bytes(program, graph, metadata))
    for key, value in metadata.items():
        model.set_rt_info(value, [RT_INFO, key])
    try:
        with path_aside(path) as aside:
            openvino.save_model(model, aside, compress_to_fp16=False)
            path.unlink(missing_ok=True)  # it must not be read with the other's weights
            os.replace(aside.with_suffix(".bin"), path.with_suffix(".bin"))
    except OSError as error:
        raise PartzooError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


FORMATS: dict[str, tuple[str, Write]] = {
    "onnx": (".onnx", write_onnx),
    "torch-export": (".pt2", write_torch_export),
    "openvino": (".xml", write_openvino),
}
