"""Writes the programs of ``partzoo discover`` without torch, ``partzoo/weights/*.onnx``, and their record.

    python scripts/light_programs.py

They are what ``partzoo export`` writes for the default model, but for the weights: those lie in the package already, as
safetensors files, and the programs refer to their place in these files.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

from partzoo.export.about import metadata
from partzoo.export.export import graph_of
from partzoo.features import DEFAULT_MODEL
from partzoo.light.programs import RECORD
from partzoo.tracing.graph import traced
from partzoo.tracing.onnx_file import onnx_bytes
from partzoo.weights.manifest import BUNDLED, PACKAGE, manifest

FOLDER = PACKAGE / BUNDLED
LARGE = 1024  # bytes from which a tensor is left to the weights


def places_in(file: Path) -> dict[str, tuple[str, int, int]]:
    """Return, for the sha256 of each tensor in a safetensors file, the file's name, the offset and the length."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = {name: each for name, each in json.loads(content[8 : 8 + length]).items() if name != "__metadata__"}
    found = {}
    for each in tensors.values():
        start, end = (8 + length + offset for offset in each["data_offsets"])
        found[hashlib.sha256(content[start:end]).hexdigest()] = file.name, start, end - start
    return found


def without_weights(content: bytes, files: list[Path]) -> bytes:
    """Replace the tensors of an ONNX file that safetensors files hold by references to these files."""
    places = {digest: place for file in files for digest, place in places_in(file).items()}
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        if len(data) < LARGE:
            continue
        if place := places.get(hashlib.sha256(data).hexdigest()):
            tensor.raw_data = data
            set_external_data(tensor, *place)
            tensor.ClearField("raw_data")
    return model.SerializeToString()


def main() -> None:
    record = {}
    for task, name in (("descriptors", None), ("labels", DEFAULT_MODEL)):
        graph, named = graph_of(name, task, resize=task == "labels")
        weights = sorted(named) if task == "descriptors" else []
        files = [FOLDER / Path(file.path).name for each in weights for file in manifest()[each].files]
        content = without_weights(onnx_bytes(traced(graph), graph, metadata(graph, named)), files)
        (FOLDER / f"{task}.onnx").write_bytes(content)
        record[task] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "weights": weights}
    (FOLDER / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
