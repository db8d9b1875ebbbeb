"""A small model with files and a record, for the tests of weights and hub."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import partzoo
from partzoo.weights.manifest import WeightFile, WeightRecord
from partzoo.weights.release_files import golden


def toy(seed: int = 1) -> nn.Module:
    """A toy ViT whose parameters are not those that the registry's seed gives."""
    model = partzoo.load("toy-vit", device="cpu", dtype="float32")
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        value.add_(torch.randn(value.shape, generator=generator), alpha=0.02)
    return model


def describe(path: Path) -> WeightFile:
    """A file of a record, by the last two names of its path."""
    data = path.read_bytes()
    return WeightFile("/".join(path.parts[-2:]), hashlib.sha256(data).hexdigest(), len(data))


def record_of(model: nn.Module, files: tuple[WeightFile, ...], **changes) -> WeightRecord:
    """A whole record of a toy's weights."""
    values = {
        "name": "toy-vit.test",
        "architecture": "toy-vit",
        "config": asdict(model.config),
        "files": files,
        "licence": "Apache-2.0",
        "terms": "generated numbers, no terms",
        "data": "none",
        "labels_used": False,
        "recipe": "none",
        "command": "python -m pytest",
        "seed": 1,
        "budget": {"hardware": "any CPU", "minutes": 0.0, "images_seen": 0},
        "metrics": ({"name": "top-1", "value": 0.125, "protocol": "none", "command": "none"},),
        "golden": golden(model),
    }
    return WeightRecord(**(values | changes))
