"""Grow a larger PART model that computes the same as a smaller trained one (Spatial Reasoning: ``deepen``).

Wider models repeat channels, heads and hidden units a whole number of times, and layers that read them share their
weights among the copies, unevenly at random, so that copies can diverge in training. A repeated vector has the mean
and variance of its original, so LayerNorm is kept exactly. Deeper models have new blocks that add zero, because their
last layers are zero. In both cases the larger model computes the same function before its first step, up to rounding.

Source: Chen et al., "Net2Net: accelerating learning via knowledge transfer" (2016), for sharing among copies.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn

from partzoo.errors import UsageError
from partzoo.models.layers import Block
from partzoo.models.loading import build, load
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.part.relative import CrossAttentionRelativeEncoder
from partzoo.models.registry import Architecture
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.train.growth.deepen import deepen, spread

GROWING = ("dim", "depth", "heads")


def grow(small: Part, entry: Architecture, config: PartConfig, *, noise: float = 0.5) -> Part:
    """Grow a PART model to a larger configuration, without changing its outputs.

    Args:
        small: trained model in float32.
        entry: architecture of the large model.
        config: configuration of the large model: ``dim`` and ``heads`` are the same multiple of the small model's,
            ``depth`` is at least the small model's, and everything else is equal.
        noise: unevenness of the copies' shares of weights, in standard deviations of a layer's shared weights; with 0,
            copies would stay equal forever.

    Returns:
        The large model, with random parameters drawn from torch's generator.

    Raises:
        UsageError: the configuration cannot be grown from the small model's.
    """
    times = _times(small, entry, config)
    large = cast(Part, build(entry, config))
    with torch.no_grad():
        _linear(small.patch_embed, large.patch_embed, times, noise, inputs=0)
        kept = spread(len(small.blocks), len(large.blocks))
        for index, block in enumerate(large.blocks):
            if index in kept:
                _block(small.blocks[kept.index(index)], block, times, noise)
            else:
                for last in (block.attn.proj, block.mlp.fc2):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)
        _norm(small.norm, large.norm, times)
        _relative(small.relative_encoder, large.relative_encoder, times, noise)
    return large


def grown(name: str, entry: Architecture, config: PartConfig | SpatialConfig) -> Any:
    """Grow a model from weights, given by name or file.

    Raises:
        UsageError: the weights were trained with a different method, or cannot grow into this model.
        WeightsError: the weights cannot be read.
    """
    small = load(name, device="cpu", dtype="float32")
    if isinstance(small, Part) and isinstance(config, PartConfig):
        return grow(small, entry, config)
    if isinstance(small, Spatial) and isinstance(config, SpatialConfig):
        return deepen(small, entry, config)
    raise UsageError(f"{entry.name} cannot grow from {name}, which is not a {entry.family} model. Choose another.")


def _times(small: Part, entry: Architecture, config: PartConfig) -> int:
    """Return the number of copies of each channel."""
    old, new = dataclasses.asdict(small.config), dataclasses.asdict(config)
    differing = [name for name in old if name not in GROWING and old[name] != new[name]]
    if differing:
        changes = ", ".join(f"{name}={new[name]!r} instead of {old[name]!r}" for name in differing)
        raise UsageError(
            f"{entry.name} has {changes}, but only {', '.join(GROWING)} can differ from the smaller model."
        )
    times = config.dim // small.config.dim
    whole = times * small.config.dim == config.dim and times * small.config.heads == config.heads and times > 0
    if not whole or config.depth < small.config.depth:
        raise UsageError(
            f"{entry.name} (dim {config.dim}, {config.heads} heads, depth {config.depth}) cannot grow from dim "
            f"{small.config.dim}, {small.config.heads} heads, depth {small.config.depth}: dim and heads must be "
            "the same whole multiple, depth no less. Name a larger architecture with model=."
        )
    return times


def _block(small: Block, large: Block, times: int, noise: float) -> None:
    for name in ("norm1", "norm2"):
        _norm(getattr(small, name), getattr(large, name), times)
    _linear(small.attn.qkv, large.attn.qkv, times, noise, outputs=3)
    _linear(small.attn.proj, large.attn.proj, times, noise)
    _linear(small.mlp.fc1, large.mlp.fc1, times, noise)
    _linear(small.mlp.fc2, large.mlp.fc2, times, noise)


def _relative(small: Any, large: Any, times: int, noise: float) -> None:
    if not isinstance(small, CrossAttentionRelativeEncoder):
        (name, layer), (_, grown) = next(small.named_children()), next(large.named_children())
        tokens = 2 if name == "pair" else small.patches
        _linear(layer, grown, times, noise, inputs=tokens, outputs=0)
        return
    _linear(small.pair, large.pair, times, noise, inputs=2)
    for name in ("query", "key", "value", "out"):
        if isinstance(getattr(small, name), nn.Linear):
            _linear(getattr(small, name), getattr(large, name), times, noise)
    if isinstance(small.query, nn.Identity):
        # Without projections there is one head: its logits are summed over all copies, but divided by the root of their
        # number only, so one more root is needed.
        large.pair.weight.mul_(times**-0.5)
        large.pair.bias.mul_(times**-0.5)
    _linear(small.head, large.head, times, noise, outputs=0)


def _norm(small: nn.LayerNorm, large: nn.LayerNorm, times: int) -> None:
    large.weight.copy_(small.weight.repeat(times))
    large.bias.copy_(small.bias.repeat(times))


def _linear(small: nn.Linear, large: nn.Linear, times: int, noise: float, *, inputs: int = 1, outputs: int = 1) -> None:
    """Repeat a layer's outputs and share its weights among the copies of its inputs.

    Args:
        small, large: the layers to copy from and to.
        times: number of copies of each channel.
        noise: unevenness of the shares.
        inputs: number of token vectors that the layer reads one after the other; 0 if it reads no channels (pixels).
        outputs: number of vectors that it writes one after the other (3 for queries, keys and values); 0 if it writes
            no channels.
    """
    weight = _repeat(small.weight, times, outputs)
    if inputs:
        blocks = weight.unflatten(1, (inputs, 1, -1)) / times
        shares = noise * blocks.std() * torch.randn(len(weight), inputs, times, blocks.shape[-1])
        shares = shares - shares.mean(2, keepdim=True)
        weight = (blocks + (shares if times > 1 else 0)).flatten(1)
    large.weight.copy_(weight)
    if small.bias is not None:
        large.bias.copy_(_repeat(small.bias, times, outputs))


def _repeat(values: Tensor, times: int, vectors: int) -> Tensor:
    """Repeat each of the ``vectors`` vectors along the first axis ``times`` times, one copy after the other."""
    if not vectors:
        return values
    return values.unflatten(0, (vectors, 1, -1)).expand(-1, times, *[-1] * values.ndim).flatten(0, 2)
