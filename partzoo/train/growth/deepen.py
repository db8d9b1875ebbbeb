"""Grow a deeper Spatial Reasoning model from a trained shallower one, with the same features at the start.

New residual blocks add zero, because their last normalization multiplies by zero. Their input is not negative, so the
final ReLU passes it on unchanged. The deeper model computes the same features before its first step.

Source: Chen et al., "Net2Net: accelerating learning via knowledge transfer" (2016), section 2.3, deeper networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import nn

from partzoo.errors import UsageError
from partzoo.models.loading import build
from partzoo.models.registry import Architecture
from partzoo.models.spatial.backbones import ResNet
from partzoo.models.spatial.model import Spatial, SpatialConfig

GROWING = ("backbone", "size", "patch_size")


def deepen(small: Spatial, entry: Architecture, config: SpatialConfig) -> Spatial:
    """Grow a ResNet to more blocks, without changing its features and relations.

    Args:
        small: trained model in float32.
        entry: architecture of the large model.
        config: configuration of the large model: a ResNet with the same widths and at least as many blocks per stage.
            The sizes of images and patches may differ; everything else must be equal.

    Returns:
        The large model, with random parameters drawn from torch's generator.

    Raises:
        UsageError: the configuration cannot be grown from the small model's.
    """
    old, new = dataclasses.asdict(small.config), dataclasses.asdict(config)
    differing = [name for name in old if name not in GROWING and old[name] != new[name]]
    if differing:
        changes = ", ".join(f"{name}={new[name]!r} instead of {old[name]!r}" for name in differing)
        raise UsageError(
            f"{entry.name} has {changes}, but only {', '.join(GROWING)} can differ from the smaller model."
        )
    large = cast(Spatial, build(entry, config))
    if not _fits(small.backbone, large.backbone):
        raise UsageError(
            f"{entry.name} cannot grow from {small.architecture}. Only a ResNet can grow, into a deeper one."
        )
    for part in ("conv1", "bn1"):
        _copy(small.backbone.get_submodule(part), large.backbone.get_submodule(part))
    for name in cast(ResNet, large.backbone).stages:
        blocks, deeper = _stage(small.backbone, name), _stage(large.backbone, name)
        kept = spread(len(blocks), len(deeper))
        for index, block in enumerate(deeper):
            if index in kept:
                _copy(blocks[kept.index(index)], block)
            else:
                nn.init.zeros_(block.bn2.weight)
    _copy(small.relation, large.relation)
    return large


def spread(small: int, large: int) -> list[int]:
    """Return the indices of the trained blocks among all blocks, evenly spread; the first block stays first."""
    return [index * large // small for index in range(small)]


def _fits(small: nn.Module, large: nn.Module) -> bool:
    if not isinstance(small, ResNet) or not isinstance(large, ResNet) or small.stages != large.stages:
        return False
    if small.conv1.weight.shape != large.conv1.weight.shape or small.dim != large.dim:
        return False
    return all(len(_stage(small, name)) <= len(_stage(large, name)) for name in small.stages)


def _stage(network: nn.Module, name: str) -> Any:
    """Return the blocks of a stage as a sequence."""
    return network.get_submodule(name)


@torch.no_grad()
def _copy(small: nn.Module, large: nn.Module) -> None:
    large.load_state_dict(small.state_dict())
