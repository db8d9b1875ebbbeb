"""PART: an encoder that predicts the relative positions of off-grid patches.

Ayoughi et al., "How PARTs assemble into wholes: learning the relative composition of images". The encoder
sees an unordered set of patches, without position embedding or class token (section 4); the relative encoder
says where each patch lies as seen from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from partzoo.encoders.base import Encoder, Preprocess, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.registry import register


@dataclass(frozen=True)
class PartConfig:
    """Size of the vision transformer and of its pictures (PART, sections 5 and 8.1).

    ``projections`` chooses the attention module of Vaswani et al. in the relative encoder (learned query,
    key, value and output projections, ``heads`` heads); without it, the bare formula of section 4.
    """

    dim: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 8
    size: int = 64
    projections: bool = True


class CrossAttentionRelativeEncoder(nn.Module):
    """Translation of every pair of tokens, by attention of the pair to all tokens.

    The query of a pair is ``Linear(2d -> d)`` of both tokens, keys and values are the tokens, and a last
    ``Linear(d -> 2)`` reads out (PART, section 4). Every step from tokens to logits and from values to
    translations is linear, so the sum over a pair and the read-out of a value are taken before pairs are formed:
    all N * N pairs cost three products of N x N matrices a head, and no pair has a vector of its own.
    """

    def __init__(self, dim: int, heads: int, projections: bool = True) -> None:
        super().__init__()
        self.heads = heads if projections else 1
        self.pair = nn.Linear(2 * dim, dim)
        self.query = nn.Linear(dim, dim) if projections else nn.Identity()
        self.key = nn.Linear(dim, dim) if projections else nn.Identity()
        self.value = nn.Linear(dim, dim) if projections else nn.Identity()
        self.out = nn.Linear(dim, dim) if projections else nn.Identity()
        self.head = nn.Linear(dim, 2)

    def forward(self, tokens: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Translations from reference to target, in patches.

        Args:
            tokens: ``(B, N, d)``.
            pairs: ``(B, S, 2)`` int64 as (reference, target); None is all N * N, row by reference.

        Returns:
            ``(B, S, 2)``, x and y.

        Source: PART, section 4, "Relative encoder".
        """
        reference_weight, target_weight = self.pair.weight.chunk(2, dim=1)
        reference = self.query(nn.functional.linear(tokens, reference_weight, self.pair.bias))
        target = nn.functional.linear(tokens, target_weight)
        if isinstance(self.query, nn.Linear):
            target = nn.functional.linear(target, self.query.weight)
        split = "b n (h c) -> b h n c"
        keys = rearrange(self.key(tokens), split, h=self.heads).mT * (tokens.shape[-1] // self.heads) ** -0.5
        from_reference = rearrange(reference, split, h=self.heads) @ keys
        from_target = rearrange(target, split, h=self.heads) @ keys
        readout, bias = self._readout()
        values = rearrange(self.value(tokens), split, h=self.heads)
        values = torch.einsum("bhnc,ohc->bhon", values, rearrange(readout, "o (h c) -> o h c", h=self.heads))
        found = _attend_to_sums(from_reference, from_target, values).to(tokens.dtype) + bias
        if pairs is None:
            return found
        chosen = pairs[..., 0] * tokens.shape[1] + pairs[..., 1]
        return found.gather(1, chosen[..., None].expand(-1, -1, 2))

    def _readout(self) -> tuple[Tensor, Tensor]:
        """Weight ``(2, d)`` and bias ``(2,)`` of the output projection and the head as one map."""
        if isinstance(self.out, nn.Identity):
            return self.head.weight, self.head.bias
        return self.head.weight @ self.out.weight, self.head.weight @ self.out.bias + self.head.bias


def _attend_to_sums(first: Tensor, second: Tensor, values: Tensor) -> Tensor:
    """``sum_h softmax_n(first[i, n] + second[j, n]) . values[n]`` for all i and j, without forming the pairs.

    The exponential of a sum is a product, so numerator and denominator of the softmax are products of N x N
    matrices. In float64, because those of far apart maxima would underflow otherwise.

    Args:
        first, second: ``(B, H, N, N)`` logits.
        values: ``(B, H, 2, N)``.

    Returns:
        ``(B, N * N, 2)`` float64, row by i.
    """
    with torch.autocast(first.device.type, enabled=False):
        first = (first - first.amax(-1, keepdim=True).detach()).double().exp()
        second = (second - second.amax(-1, keepdim=True).detach()).double().exp()
        weighted = torch.cat([first[:, :, None] * values[:, :, :, None], first[:, :, None]], dim=2)
        sums = (weighted.flatten(2, 3) @ second.mT).unflatten(2, (3, -1))
        return (sums[:, :, :2] / sums[:, :, 2:]).sum(1).flatten(2).mT


class Part(Encoder):
    """Vision transformer over a set of patches, with its relative encoder.

    ``encode`` and ``forward_intermediates`` take pictures and use the patches of the ordinary grid;
    ``encode_patches`` takes any set of patches, and ``relate`` says how they lie.
    """

    keep_float = ("relative_encoder",)

    def __init__(self, config: PartConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.patch = config.dim, config.patch
        self.preprocess = Preprocess(size=config.size, multiple=config.patch)
        self.patch_embed = nn.Linear(3 * config.patch**2, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.relative_encoder = CrossAttentionRelativeEncoder(config.dim, config.heads, config.projections)

    def encode_patches(self, patches: Tensor) -> Tensor:
        """Tokens ``(B, N, d)`` of a set of normalized patches ``(B, N, 3, P, P)``, in their order."""
        x = self.patch_embed(patches.flatten(2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def relate(self, patches: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Translations ``(B, S, 2)`` in patches between patches ``(B, N, 3, P, P)``; see the relative encoder."""
        return self.relative_encoder(self.encode_patches(patches), pairs)

    def _grid_patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = pad_to_multiple(x, self.patch)
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) c p q", p=self.patch, q=self.patch)
        return patches, (x.shape[2] // self.patch, x.shape[3] // self.patch)

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        patches, grid = self._grid_patches(x)
        tokens = self.encode_patches(patches)
        return Tokens(tokens, tokens.new_zeros(len(x), 0, self.dim), grid)

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        patches, grid = self._grid_patches(x)
        tokens, kept = self.patch_embed(patches.flatten(2)), []
        chosen = choose(indices, len(self.blocks))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i in chosen:
                kept.append(rearrange(self.norm(tokens), "b (h w) c -> b c h w", h=grid[0]))
        return as_format(kept, output_fmt)


@register(family="part", config=PartConfig(), aliases=["part-vitt"])
def part_vitt8(config: PartConfig) -> Part:
    """PART, ViT-Ti over 8 x 8 patches of 64-pixel pictures."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6), aliases=["part-vits"])
def part_vits8(config: PartConfig) -> Part:
    """PART, ViT-S over 8 x 8 patches of 64-pixel pictures."""
    return Part(config)


@register(family="part", config=PartConfig(dim=768, heads=12), aliases=["part-vitb"])
def part_vitb8(config: PartConfig) -> Part:
    """PART, ViT-B over 8 x 8 patches of 64-pixel pictures."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6, patch=4, size=32))
def part_vits4(config: PartConfig) -> Part:
    """PART, ViT-S over 4 x 4 patches of 32-pixel pictures: the paper's CIFAR-100 model."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6, patch=16, size=224))
def part_vits16(config: PartConfig) -> Part:
    """PART, ViT-S over 16 x 16 patches of 224-pixel pictures."""
    return Part(config)


@register(family="part", config=PartConfig(dim=768, heads=12, patch=16, size=224))
def part_vitb16(config: PartConfig) -> Part:
    """PART, ViT-B over 16 x 16 patches of 224-pixel pictures: the paper's ImageNet model."""
    return Part(config)
