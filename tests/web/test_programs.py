"""Programs that are changed for ONNX Runtime Web compute the same."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

SOURCE = Path(__file__).parents[2] / "web" / "programs.py"


def for_the_web(content: bytes) -> bytes:
    spec = importlib.util.spec_from_file_location("programs", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.for_the_web(content)


def program(kind: int) -> bytes:
    """Return a program that chooses between two tensors twice."""
    value = [helper.make_tensor_value_info(name, kind, ["n", 1]) for name in "ab"]
    conditions = [helper.make_tensor_value_info(name, TensorProto.BOOL, ["n", 3]) for name in "cd"]
    output = helper.make_tensor_value_info("chosen", kind, ["n", 3])
    nodes = [
        helper.make_node("Where", ["c", "a", "b"], ["first"]),
        helper.make_node("Where", ["d", "first", "b"], ["second"]),
        helper.make_node("Identity", ["second"], ["chosen"]),
    ]
    graph = helper.make_graph(nodes, "choice", [*conditions, *value], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(
    "kind, replaced",
    [(TensorProto.DOUBLE, True), (TensorProto.BOOL, True), (TensorProto.FLOAT, False), (TensorProto.INT64, False)],
)
def test_choices_are_replaced_where_the_runtime_has_none(kind, replaced):
    before = program(kind)
    after = for_the_web(before)
    left = [node.op_type for node in onnx.load_from_string(after).graph.node]
    assert left.count("Where") == (0 if replaced else 2)
    generator = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    given = {name: generator.integers(-3, 3, (50, 1)).astype(dtype) for name in "ab"}
    given |= {name: generator.random((50, 3)) < 0.7 for name in "cd"}
    [found] = onnxruntime.InferenceSession(after).run(None, given)
    expected = np.where(given["d"], np.where(given["c"], given["a"], given["b"]), given["b"])
    assert len(np.unique(found)) > 1 and np.array_equal(found, expected)
