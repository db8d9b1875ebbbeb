"""PART: an encoder that predicts the relative positions of off-grid patches.

Ayoughi et al., "How PARTs assemble into wholes: learning the relative composition of images". The encoder
takes an unordered set of patches, without position embeddings or class token (section 4); the relative encoder predicts
the translation between any two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.layers import Block, Blocks
from partzoo.models.part.relative import build_relative_encoder
from partzoo.models.registry import register


@dataclass(frozen=True)
class PartConfig:
    """Configuration of a PART model (PART, sections 4, 5 and 8.1).

    Attributes:
        dim, depth, heads: sizes of the vision transformer.
        patch: side of a patch in pixels.
        size: side of the training images in pixels.
        projections: whether ``"cross-attention"`` has learned query, key, value and output projections and ``heads``
            heads, as in Vaswani et al.; without them it follows the formula of section 4.
        relative_encoder: ``"cross-attention"``, ``"pairwise-mlp"`` or ``"mlp"`` (section 5.3).
        targets: 2 (x and y), or 4 (also relative width and height, section 5.1).
    """

    dim: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 8
    size: int = 64
    projections: bool = True
    relative_encoder: Literal["cross-attention", "pairwise-mlp", "mlp"] = "cross-attention"
    targets: Literal[2, 4] = 2


class Part(Encoder):
    """A vision transformer over a set of patches, with a relative encoder.

    ``encode`` and ``forward_intermediates`` take images and use the patches of the regular grid; ``encode_patches``
    takes any set of patches, and ``relate`` predicts their relative positions.
    """

    keep_float = ("relative_encoder",)

    def __init__(self, config: PartConfig) -> None:
        super().__init__()
        if config.targets not in (2, 4):
            raise UsageError(f"targets={config.targets!r} must be 2 (x, y) or 4 (x, y, relative width and height).")
        self.config = config
        self.dim, self.patch = config.dim, config.patch
        self.preprocess = Preprocess(size=config.size, multiple=config.patch)
        self.patch_embed = nn.Linear(3 * config.patch**2, config.dim)
        self.blocks = Blocks(Block(config.dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.relative_encoder = build_relative_encoder(
            config.relative_encoder,
            config.dim,
            heads=config.heads,
            patches=(config.size // config.patch) ** 2,
            outputs=config.targets,
            projections=config.projections,
        )

    def encode_patches(self, patches: Tensor) -> Tensor:
        """Compute tokens ``(B, N, d)`` of a set of normalized patches ``(B, N, 3, P, P)``, in the same order."""
        x = self.patch_embed(patches.flatten(2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def relate(self, patches: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Predict translations ``(B, S, targets)``, in patches, between normalized patches ``(B, N, 3, P, P)``.

        ``pairs`` is ``(B, S, 2)`` int64 of (reference, target); None relates all N * N, ordered by reference.
        """
        return self.relative_encoder(self.encode_patches(patches), pairs)

    def _grid_patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = pad_to_multiple(x, self.patch)
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) c p q", p=self.patch, q=self.patch)
        return patches, (x.shape[2] // self.patch, x.shape[3] // self.patch)

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        patches, grid = self._grid_patches(x)
        tokens = self.encode_patches(patches)
        return Tokens(tokens, tokens.new_zeros(x.shape[0], 0, self.dim), grid)

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


@register(family="part", config=PartConfig(dim=64, depth=6, heads=1), aliases=["part-vitn"])
def part_vitn8(config: PartConfig) -> Part:
    """PART with 64 channels and 6 blocks, for 64-pixel images and patches of 8 pixels; larger models grow from it."""
    return Part(config)


@register(family="part", config=PartConfig(), aliases=["part-vitt"])
def part_vitt8(config: PartConfig) -> Part:
    """PART with a ViT-Ti, for 64-pixel images and patches of 8 pixels."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6), aliases=["part-vits"])
def part_vits8(config: PartConfig) -> Part:
    """PART with a ViT-S, for 64-pixel images and patches of 8 pixels."""
    return Part(config)


@register(family="part", config=PartConfig(dim=768, heads=12), aliases=["part-vitb"])
def part_vitb8(config: PartConfig) -> Part:
    """PART with a ViT-B, for 64-pixel images and patches of 8 pixels."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6, patch=4, size=32))
def part_vits4(config: PartConfig) -> Part:
    """PART with a ViT-S, for 32-pixel images and patches of 4 pixels: the paper's CIFAR-100 model."""
    return Part(config)


@register(family="part", config=PartConfig(dim=384, heads=6, patch=16, size=224))
def part_vits16(config: PartConfig) -> Part:
    """PART with a ViT-S, for 224-pixel images and patches of 16 pixels."""
    return Part(config)


@register(family="part", config=PartConfig(dim=768, heads=12, patch=16, size=224))
def part_vitb16(config: PartConfig) -> Part:
    """PART with a ViT-B, for 224-pixel images and patches of 16 pixels: the paper's ImageNet model."""
    return Part(config)
