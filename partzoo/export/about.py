"""The metadata inside an exported file: what a program needs to know to use it, and where its weights come from."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor, nn

import partzoo
from partzoo.features import name_of
from partzoo.models.base import Model
from partzoo.models.loading import parse
from partzoo.tracing.graph import Graph
from partzoo.weights.manifest import manifest
from partzoo.weights.tensors import digest

FORMAT = 1  # version of the names and meanings of inputs, outputs and metadata

UNKNOWN = "unknown: the weights are not recorded by partzoo"


def metadata(graph: Graph, named: dict[str, Model]) -> dict[str, str]:
    """Return the metadata of a program, by name; values other than words are JSON.

    Args:
        graph: the program.
        named: its models by the names that they were loaded by, or by "" for a module without a name.
    """
    found: dict[str, Any] = {
        "partzoo_format": str(FORMAT),
        "partzoo_version": partzoo.__version__,
        "task": graph.task,
        "inputs": {
            name: {"about": each.about, "shape": [axis if isinstance(axis, int) else str(axis) for axis in each.shape]}
            for name, each in graph.inputs().items()
        },
        "outputs": {name: dataclasses.asdict(each) for name, each in graph.outputs.items()},
        "models": [described(name, model) for name, model in named.items()],
        **graph.facts,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def described(name: str, model: Model) -> dict[str, Any]:
    """Describe a model: its architecture, preprocessing, weights, their licence and their sha256."""
    record = manifest().get(parse(name, pretrained=True).label) if name else None
    return {
        "name": record.name if record else name or name_of(model),
        "architecture": name_of(model),
        "preprocess": dataclasses.asdict(model.preprocess),
        "licence": record.licence if record else UNKNOWN,
        "terms": record.terms if record else UNKNOWN,
        "sha256": [file.sha256 for file in record.files] if record else [digest(tensors(model), {})],
    }


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
