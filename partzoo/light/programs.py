"""The two programs of ``partzoo discover`` in ONNX, which lie in the package and use the weights beside them."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

from partzoo.discovery.vocabulary import Settings
from partzoo.errors import WeightsError, require
from partzoo.files import read_json
from partzoo.weights.manifest import BUNDLED, PACKAGE, manifest
from partzoo.weights.store import resolve

RECORD = "programs.json"  # file with the sha256 of each program and the names of the weights that it reads
FIX = "install partzoo again"


class Program:
    """A program in ONNX, run by ONNX Runtime.

    Args:
        name: ``"descriptors"`` or ``"labels"``, the task of the program (docs/export.md).

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        WeightsError: the program or the weights that it reads are damaged.
    """

    def __init__(self, name: str) -> None:
        onnxruntime = require("onnxruntime", "light")
        record = read_json(PACKAGE / BUNDLED / RECORD)[name]
        path = PACKAGE / BUNDLED / f"{name}.onnx"
        if hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
            raise WeightsError(f"{path} is damaged: {FIX}.")
        for each in record["weights"]:
            resolve(manifest()[each])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait use no processor
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # each image has its own sizes
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @property
    def metadata(self) -> dict[str, Any]:
        """The program's metadata, as written by :func:`partzoo.export_model`."""
        return self._session.get_modelmeta().custom_metadata_map

    def __call__(self, *outputs: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program and return the outputs with these names."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))

    def settings(self) -> Settings:
        """Return the settings of discovery that the program computes with."""
        values = json.loads(self.metadata["settings"])
        return Settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
