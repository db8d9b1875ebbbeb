"""The two programs of ``partzoo discover`` in ONNX, which lie in the package and read the weights beside them.

ONNX Runtime takes longer to optimize a program than to run it, so the result is kept in partzoo's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from partzoo.discovery.vocabulary import Settings
from partzoo.errors import WeightsError, require
from partzoo.files import create_folder, read_json, sync
from partzoo.locks import hidden_folder, remove_leftovers
from partzoo.weights.checked import cache_folder, sha256_of
from partzoo.weights.manifest import BUNDLED, PACKAGE, manifest

RECORD = "programs.json"  # file with the sha256 of each program and the names of the weights that it reads


class Program:
    """A program in ONNX, run by ONNX Runtime.

    Args:
        name: ``"descriptors"`` or ``"labels"``, the task of the program (docs/export.md).
        keep: whether to keep the memory of a run for the next one. Otherwise it is given back, and each run takes new
            memory from the system, which is a fifth of its time.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        WeightsError: the program or the weights that it reads are damaged.
    """

    def __init__(self, name: str, *, keep: bool) -> None:
        self._runtime = require("onnxruntime", "light")
        self._run = self._runtime.RunOptions()
        if not keep:
            self._run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        record = read_json(PACKAGE / BUNDLED / RECORD)[name]
        kept = cache_folder() / "programs" / f"{name}-{_fingerprint(record['sha256'], self._runtime.__version__)}.onnx"
        self._session = self._kept(kept) or self._optimized(PACKAGE / BUNDLED / f"{name}.onnx", record, kept)

    def __call__(self, *outputs: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program and return the outputs with these names."""
        return dict(zip(outputs, self._session.run(outputs, inputs, self._run), strict=True))

    @property
    def metadata(self) -> dict[str, str]:
        """The program's metadata, as written by :func:`partzoo.export_model`."""
        return self._session.get_modelmeta().custom_metadata_map

    def settings(self) -> Settings:
        """Return the settings of discovery that the program computes with."""
        values: dict[str, Any] = json.loads(self.metadata["settings"])
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Settings(**(values | lists))

    def _options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = 1  # two take a fifth more of the processors' time
        options.enable_mem_pattern = False  # each image has its own sizes
        options.log_severity_level = 3
        return options

    def _started(self, path: Path, options: Any) -> Any:
        return self._runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _kept(self, path: Path) -> Any:
        """Return a session with the optimized program in a file, or None where it is missing or cannot be read."""
        if not path.exists():
            return None
        options = self._options()
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return self._started(path, options)
        except Exception:  # ONNX Runtime's errors have no base class; the file is written again
            return None

    def _optimized(self, path: Path, record: dict[str, Any], kept: Path) -> Any:
        """Return a session with a program that it optimizes, and keep the result if a folder can be written."""
        from partzoo.weights.store import resolve

        if sha256_of(path) != record["sha256"]:
            raise WeightsError(f"{path} is damaged: install partzoo again.")
        for each in record["weights"]:
            resolve(manifest()[each])
        try:
            create_folder(kept.parent)
            remove_leftovers(kept.parent)
            with hidden_folder(kept) as folder:
                options, aside, weights = self._options(), folder / kept.name, kept.with_suffix(".bin").name
                options.optimized_model_filepath = str(aside)
                options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
                session = self._started(path, options)
                for each in (aside.with_suffix(".bin"), aside):  # a program without weights has one file
                    if each.exists():
                        sync(each)  # a power cut must not leave weights of zeros
                        os.replace(each, kept.with_suffix(each.suffix))
                sync(kept.parent)
                return session
        except OSError:
            return self._started(path, self._options())


def _fingerprint(program: str, version: str) -> str:
    """Return a name for what a program is optimized to, which depends on ONNX Runtime and the processor."""
    return hashlib.sha256(f"{program} {version} {_processor()}".encode()).hexdigest()[:16]


def _processor() -> str:
    """Return what distinguishes processors for which programs are optimized differently."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
