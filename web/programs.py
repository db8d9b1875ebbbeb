"""Change exported programs so that ONNX Runtime Web can run them."""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference


def for_the_web(content: bytes) -> bytes:
    """Return an ONNX file that computes the same without ``Where`` of float64 or bool, which ONNX Runtime Web lacks."""
    model = onnx.load_from_string(content)
    graph = shape_inference.infer_shapes(model).graph
    types = {each.name: each.type.tensor_type.elem_type for each in (*graph.value_info, *graph.output)}
    nodes = []
    for node in model.graph.node:
        replace = REPLACEMENTS.get(types.get(node.output[0])) if node.op_type == "Where" else None
        nodes += replace(*node.input, node.output[0]) if replace else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _of_truths(condition: str, a: str, b: str, output: str) -> list[NodeProto]:
    """Return nodes for ``condition and a or not condition and b``."""
    return [
        helper.make_node("Not", [condition], [f"{output}.other"]),
        helper.make_node("And", [condition, a], [f"{output}.first"]),
        helper.make_node("And", [f"{output}.other", b], [f"{output}.second"]),
        helper.make_node("Or", [f"{output}.first", f"{output}.second"], [output]),
    ]


def _of_doubles(condition: str, a: str, b: str, output: str) -> list[NodeProto]:
    """Return nodes for ``condition * a + (not condition) * b``, which is exact, as both are finite."""
    return [
        helper.make_node("Not", [condition], [f"{output}.other"]),
        helper.make_node("Cast", [condition], [f"{output}.one"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", [f"{output}.other"], [f"{output}.zero"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", [f"{output}.one", a], [f"{output}.first"]),
        helper.make_node("Mul", [f"{output}.zero", b], [f"{output}.second"]),
        helper.make_node("Add", [f"{output}.first", f"{output}.second"], [output]),
    ]


REPLACEMENTS = {TensorProto.BOOL: _of_truths, TensorProto.DOUBLE: _of_doubles}
