"""Write a traced program as one ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from partzoo.errors import PartzooError, require
from partzoo.tracing.graph import Graph

MOST_BYTES = 2**31 - 1  # of one ONNX file, which is one message of protobuf
FLOAT = 1  # onnx.TensorProto.FLOAT


def onnx_bytes(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file with named inputs, outputs and free sizes.

    Raises:
        PartzooError: it would have more than 2 GB, which one file cannot hold.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    inputs = graph.inputs()
    size = sum(each.numel() * each.element_size() for each in program.state_dict.values())
    if size > MOST_BYTES:
        raise PartzooError(
            f"The weights have {size / 1e9:.1f} GB, and one ONNX file holds at most 2: use torch-export."
        )
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what the optimizer left as it is concerns nobody
    try:
        written = torch.onnx.export(
            program, dynamo=True, input_names=list(inputs), output_names=list(graph.outputs), verbose=False
        )
    finally:
        logging.disable(before)
    assert written is not None, "without a file to write, the exporter returns the program"
    model = written.model_proto
    _name_sizes(model.graph.input, [each.shape for each in inputs.values()])
    _name_sizes(model.graph.output, [each.shape for each in graph.outputs.values()])
    del model.graph.value_info[:]  # with the tracer's names of sizes
    for node in model.graph.node:
        del node.metadata_props[:]  # where the tracer found the operation, most of the size of a file without weights
    scales = {name.removesuffix("scale"): scale for name, scale in graph.named_buffers() if name.endswith(".scale")}
    _factor(model.graph, {f"{name}weight": scale.numpy()[:, None, None, None] for name, scale in scales.items()})
    model.producer_name, model.producer_version = "partzoo", metadata["partzoo_version"]
    for key, text in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    return model.SerializeToString()


def _factor(graph: Any, scales: Mapping[str, np.ndarray]) -> None:
    """Store kernels into which batch norms were folded as products of a float16 kernel and a factor for each channel.

    Most released weights have kernels in float16, so that this is exact; other kernels stay. Engines multiply once,
    when they read the file.

    Args:
        graph: graph of an ONNX file.
        scales: factors ``(C, 1, 1, 1)`` by the name of the kernel.
    """
    from onnx import helper, numpy_helper

    nodes = []
    for tensor in graph.initializer:
        if tensor.name not in scales:
            continue
        name, kernel, scale = tensor.name, numpy_helper.to_array(tensor), scales[tensor.name]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            halved = np.nan_to_num(kernel / scale).astype(np.float16)
        if np.array_equal(halved.astype(np.float32) * scale, kernel):
            tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.stored"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            nodes.append(helper.make_node("Cast", [f"{name}.stored"], [f"{name}.cast"], to=FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name]))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _name_sizes(values: Iterable[Any], shapes: Iterable[Sequence[object]]) -> None:
    """Replace the names of the free sizes of an ONNX file's inputs or outputs, which are the tracer's."""
    for value, shape in zip(values, shapes, strict=True):
        for size, name in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(name, int):
                size.dim_value = name
            else:
                size.dim_param = str(name)
