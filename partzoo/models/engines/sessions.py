"""Engines: libraries that run a program in ONNX on the CPU, instead of torch. Several threads may call a session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from partzoo.errors import require
from partzoo.models.precision import has_bf16

Session = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def onnxruntime_session(program: bytes, precision: str) -> Session:
    """Start a program in ONNX Runtime; outputs are returned in the program's order."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_mem_pattern = False  # images have many sizes
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would keep cores busy between images
    session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))


def openvino_session(program: bytes, precision: str) -> Session:
    """Start a program in OpenVINO; outputs are returned in the program's order."""
    openvino = require("openvino", "openvino")
    core = openvino.Core()
    # OpenVINO computes in bfloat16 where a CPU has it, unless it is asked for float32. Beside int8 it is welcome.
    bfloat16 = precision == "bfloat16" or (precision == "int8" and has_bf16(torch.device("cpu")))
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled, own = core.compile_model(core.read_model(program), "CPU", settings), threading.local()

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if not hasattr(own, "request"):  # two threads cannot share one
            own.request = compiled.create_infer_request()
        found = own.request.infer(dict(inputs), share_inputs=True)
        return [found[index].copy() for index in range(len(found))]

    return run


SESSIONS: dict[str, Callable[[bytes, str], Session]] = {
    "onnxruntime": onnxruntime_session,
    "openvino": openvino_session,
}
