"""PART for finetuning: a class token and position embeddings in place of the relative encoder.

Ayoughi et al., "How PARTs assemble into wholes: learning the relative composition of images", section 4, "Training
setup". The same network without pretraining is the paper's supervised baseline; without classes it is the backbone of
a detector, with the windows of Li et al., "Exploring plain vision transformer backbones for object detection" (ViTDet).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.layers import Attention, Block, Blocks
from partzoo.models.part.model import Part
from partzoo.models.part_transformer import resampled
from partzoo.models.registry import register

SHARED = ("dim", "depth", "heads", "patch")


@dataclass(frozen=True)
class PartClassifierConfig:
    """Configuration of a PART model for finetuning.

    Attributes:
        dim, depth, heads, patch: as in :class:`partzoo.models.part.model.PartConfig`.
        size: side of the images, in pixels, that the position embeddings are trained for.
        classes: number of classes; 0 makes a backbone without class token and head.
        names: names of the classes, if known.
        positions: whether to add learned position embeddings to the patches. Without them the patches are a set, as in
            pretraining, which is the weaker of the paper's two supervised baselines.
        drop_path: rate of stochastic depth in the last block; it increases linearly from 0 in the first.
        window: side in patches of the windows within which all blocks but four, evenly spaced, attend; 0 attends
            globally. For backbones only (ViTDet, section 3).
        relative: whether to add learned relative positions, initially zero, to attention. For backbones only (ViTDet,
            appendix).
    """

    dim: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 8
    size: int = 64
    classes: int = 200
    names: tuple[str, ...] = ()
    positions: bool = True
    drop_path: float = 0.0
    window: int = 0
    relative: bool = False


class PartClassifier(Encoder):
    """A vision transformer with learned positions on the regular grid and, if there are classes, a class token."""

    def __init__(self, config: PartClassifierConfig) -> None:
        super().__init__()
        if (config.window or config.relative) and config.classes:
            raise UsageError(
                f"window={config.window}, relative={config.relative}: a class token has no position, so it fits "
                "neither: use classes=0."
            )
        if config.names and len(config.names) != config.classes:
            raise UsageError(
                f"There are {len(config.names)} names for classes={config.classes}: give one for each class, or none."
            )
        self.config = config
        self.dim, self.patch = config.dim, config.patch
        self.preprocess = Preprocess(size=config.size, multiple=config.patch)
        self.side = config.size // config.patch
        self.prefix = 1 if config.classes else 0
        self.patch_embed = nn.Linear(3 * config.patch**2, config.dim)
        if config.classes:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
            self.head = nn.Linear(config.dim, config.classes)
        if config.positions:
            self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + self.side**2, config.dim))
        self.blocks = Blocks(
            Block(config.dim, config.heads, drop_path=config.drop_path * i / max(config.depth - 1, 1))
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.windowed = [bool(config.window) and (i + 1) % max(config.depth // 4, 1) > 0 for i in range(config.depth)]
        if config.relative:
            for block, inside in zip(self.blocks, self.windowed, strict=True):
                side = config.window if inside else self.side
                block.relative = RelativePositions(side, config.dim // config.heads)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize as DeiT does: weights from a truncated normal of deviation 0.02, biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.config.positions:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.prefix:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    @classmethod
    def from_part(cls, part: Part, **config: Any) -> PartClassifier:
        """Make a network for finetuning from a PART model's encoder; other parameters are drawn from torch's generator.

        Args:
            part: the pretrained model, which is not changed; its relative encoder is not used.
            **config: values of :class:`PartClassifierConfig`; sizes default to those of the model.

        Raises:
            UsageError: a size differs from the encoder's, a value is not in the configuration, or the model is
                quantized.
        """
        own = {name: getattr(part.config, name) for name in (*SHARED, "size")}
        try:
            chosen = PartClassifierConfig(**(own | config))
        except TypeError as error:
            names = ", ".join(field.name for field in dataclasses.fields(PartClassifierConfig))
            raise UsageError(f"Unknown option among {', '.join(config)}: the options are {names}.") from error
        differing = [name for name in SHARED if getattr(chosen, name) != own[name]]
        if differing:
            listed = ", ".join(f"{name}={getattr(chosen, name)} for {own[name]}" for name in differing)
            raise UsageError(
                f"{listed}: the encoder keeps the sizes that {part.architecture or 'it'} was trained with."
            )
        model = cls(chosen)
        model.architecture = classifier_of(part.architecture)
        state = {name: value for name, value in part.state_dict().items() if not name.startswith("relative_encoder.")}
        missing, unexpected = model.load_state_dict(state, strict=False)
        added = re.compile(r"cls_token|pos_embed|head\.|blocks\.\d+\.relative\.")
        if unexpected or not all(map(added.match, missing)):
            raise UsageError("The PART model's layers are quantized or replaced: load it with dtype='float32'.")
        return model

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed the class token, if any, and the grid's patches with their positions; return also the grid's size."""
        x = pad_to_multiple(x, self.patch)
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)
        tokens = self.patch_embed(patches)
        if self.prefix:
            tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)
        if not self.config.positions:
            return tokens, grid
        of_class, of_patches = self.pos_embed[0, : self.prefix], self.pos_embed[0, self.prefix :]
        placed = resampled(of_patches, self.side, grid).to(of_patches.dtype)
        return tokens + torch.cat([of_class, placed]), grid

    def _run(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        block, side = self.blocks[index], self.config.window
        inside = self.windowed[index] and max(grid) > side
        bias = partial(block.relative, grid=(side, side) if inside else grid) if self.config.relative else None
        if inside:
            return block(tokens, partial(_attend_in_windows, block.attn, bias=bias, grid=grid, side=side))
        return block(tokens, partial(block.attn, bias=bias))

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens, grid = self._embed(x)
        for index in range(len(self.blocks)):
            tokens = self._run(index, tokens, grid)
        return self.norm(tokens), grid

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        tokens, grid = self._tokens(x)
        return Tokens(tokens[:, self.prefix :], tokens[:, : self.prefix], grid)

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        (tokens, grid), kept = self._embed(x), []
        chosen = choose(indices, len(self.blocks))
        for index in range(len(self.blocks)):
            tokens = self._run(index, tokens, grid)
            if index in chosen:
                kept.append(rearrange(self.norm(tokens)[:, self.prefix :], "b (h w) c -> b c h w", h=grid[0]))
        return as_format(kept, output_fmt)

    @in_precision
    def classify(self, x: Tensor) -> Tensor:
        """Compute class logits ``(B, classes)`` of normalized images, from the class token.

        Raises:
            UsageError: the model has no classes.
        """
        if not self.prefix:
            raise UsageError(
                "This backbone has no classes (classes=0): finetune a model with classes to classify images."
            )
        return self.head(self._tokens(x)[0][:, 0])


def classifier_of(name: str) -> str:
    """Return the name of the classifier architecture for a PART model of this name."""
    return f"part-classifier-{name.removeprefix('part-')}"


class RelativePositions(nn.Module):
    """Decomposed relative positions: products of queries with vectors of row and column offsets, added to the logits.

    Args:
        side: number of patches along a side of the grid that the vectors are trained for; other grids resample them.
        channels: channels of a head.

    Source: Li et al., "MViTv2: improved multiscale vision transformers for classification and detection", CVPR 2022,
    section 4.1 (decomposed relative position embeddings), as in ViTDet.
    """

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.zeros(2 * side - 1, channels)) for _ in range(2))

    def forward(self, queries: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute terms ``(B, heads, N, N)`` of the logits from queries ``(B, heads, N, channels)`` of N patches."""
        from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias

        found = get_decomposed_rel_pos_bias(queries.flatten(0, 1), self.rows, self.columns, grid, grid)
        return found.unflatten(0, queries.shape[:2])


def _attend_in_windows(
    attention: Attention, tokens: Tensor, bias: Callable[[Tensor], Tensor] | None, grid: tuple[int, int], side: int
) -> Tensor:
    """Attend within windows of ``side`` x ``side`` patches; the last windows are padded with zeros."""
    rows, columns = grid
    maps = rearrange(tokens, "b (h w) c -> b h w c", h=rows)
    maps = nn.functional.pad(maps, (0, 0, 0, -columns % side, 0, -rows % side))
    down, across = maps.shape[1] // side, maps.shape[2] // side
    windows = rearrange(maps, "b (i p) (j q) c -> (b i j) (p q) c", p=side, q=side)
    maps = rearrange(attention(windows, bias), "(b i j) (p q) c -> b (i p) (j q) c", i=down, j=across, p=side)
    return maps[:, :rows, :columns].flatten(1, 2)


@register(family="part", config=PartClassifierConfig(dim=64, depth=6, heads=1))
def part_classifier_vitn8(config: PartClassifierConfig) -> PartClassifier:
    """Classifier with 64 channels and 6 blocks for 64-pixel images, patches of 8 pixels, from PART or from scratch."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig())
def part_classifier_vitt8(config: PartClassifierConfig) -> PartClassifier:
    """ViT-Ti classifier for 64-pixel images and patches of 8 pixels, finetuned from PART or trained from scratch."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig(dim=384, heads=6))
def part_classifier_vits8(config: PartClassifierConfig) -> PartClassifier:
    """ViT-S classifier for 64-pixel images and patches of 8 pixels, finetuned from PART or trained from scratch."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig(dim=768, heads=12))
def part_classifier_vitb8(config: PartClassifierConfig) -> PartClassifier:
    """ViT-B classifier for 64-pixel images and patches of 8 pixels, finetuned from PART or trained from scratch."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig(dim=384, heads=6, patch=4, size=32, classes=100))
def part_classifier_vits4(config: PartClassifierConfig) -> PartClassifier:
    """ViT-S classifier for 32-pixel images and patches of 4 pixels: the paper's CIFAR-100 classifier."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig(dim=384, heads=6, patch=16, size=224, classes=1000))
def part_classifier_vits16(config: PartClassifierConfig) -> PartClassifier:
    """ViT-S classifier for 224-pixel images and patches of 16 pixels, finetuned from PART or trained from scratch."""
    return PartClassifier(config)


@register(family="part", config=PartClassifierConfig(dim=768, heads=12, patch=16, size=224, classes=1000))
def part_classifier_vitb16(config: PartClassifierConfig) -> PartClassifier:
    """ViT-B classifier for 224-pixel images and patches of 16 pixels: the paper's ImageNet classifier."""
    return PartClassifier(config)
