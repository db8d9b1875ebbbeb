"""The part transformer of PartFormer and MPAE, which computes part descriptors, and PartFormer's small encoder."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from partzoo.errors import UsageError
from partzoo.images.resampling import multiplied
from partzoo.models.layers import FEW_PATCHES, BasicBlock, Block, Blocks, QuickGELU

WIDTH, DEPTH, HEADS, PATCH = 256, 6, 8, 16  # sizes of PartFormer's transformer


class ResNetStem(nn.Module):
    """A ResNet-18 up to its first stage: ``(B, 3, H, W)`` -> ``(B, 64, H / 4, W / 4)``."""

    dim, patch = 64, 4

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, self.dim, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.dim)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(self.dim, self.dim), BasicBlock(self.dim, self.dim))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for block in self.layer1.children():
            if isinstance(block, BasicBlock):
                nn.init.zeros_(block.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer1(self.maxpool(self.act1(self.bn1(self.conv1(x)))))


class PartTransformer(nn.Module):
    """A vision transformer with K + 1 part embeddings instead of a class token; their outputs describe the parts.

    Args:
        parts: number of parts K.
        classes: number of classes with separate parts, or 0, as in the models' configurations.
        dim: number of channels of the descriptors.
        side: number of patches along a side of the training images.
        patch: side of a patch in pixels.
        width, depth, heads: width, depth and number of heads of the transformer.
        placed: whether part embeddings have positions too, and all positions are trained, as in MPAE. Otherwise only
            patches have positions, which are trained if there are classes, as in PartFormer.

    Source: PartFormer, section 3.1; MPAE, section 3.1.
    """

    def __init__(
        self,
        parts: int,
        classes: int,
        dim: int,
        side: int,
        *,
        patch: int = PATCH,
        width: int = WIDTH,
        depth: int = DEPTH,
        heads: int = HEADS,
        placed: bool = False,
    ) -> None:
        super().__init__()
        self.parts, self.side, self.placed = parts, side, placed
        self.patch_embed = nn.Conv2d(3, width, patch, patch, bias=False)
        self.part_embed = nn.Parameter(torch.empty(1 + max(classes, 1) * parts, width))
        of_parts = torch.zeros(1 + parts if placed else 0, width)
        positions = torch.cat([of_parts, sine_positions(side, width)])
        self.positions = nn.Parameter(positions, requires_grad=placed or classes > 0)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = Blocks(Block(width, heads, eps=1e-5, activation=QuickGELU) for _ in range(depth))
        for block in self.blocks:
            block.attn.fused_attn = side**2 > FEW_PATCHES
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, dim, bias=False)
        nn.init.normal_(self.part_embed, std=0.02)

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Compute part descriptors ``(B, K + 1, dim)``, background first, of images ``(B, 3, H, W)`` of whole patches.

        ``classes`` is ``(B,)`` int64, for a model that has separate parts for each class.
        """
        patches = self.patch_embed(x)
        of_parts, of_patches = self.positions[: -(self.side**2)], self.positions[-(self.side**2) :]
        table = resampled(of_patches, self.side, (patches.shape[2], patches.shape[3]))
        patches = patches.flatten(2).mT + table.to(patches.dtype)
        parts = part_tokens(self.part_embed, self.parts, x.shape[0], classes)
        if self.placed:
            parts = parts + of_parts
        tokens = self.norm_pre(torch.cat([parts.to(patches.dtype), patches], dim=1))
        for block in self.blocks:
            tokens = block(tokens)
        return self.proj(self.norm(tokens[:, : 1 + self.parts]))

    @torch.no_grad()
    def start_with(self, descriptors: Tensor) -> None:
        """Change the weights so that all images have the same descriptors ``(K + 1, dim)`` until training goes on.

        The residual branches start at zero, and the last layer maps the part embeddings to the descriptors.
        """
        for block in self.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(layer.weight)
        tokens = self.norm(self.norm_pre(self.part_embed))
        self.proj.weight.copy_((torch.linalg.pinv(tokens) @ descriptors).T)


def initialize(module: nn.Module) -> None:
    """Initialize linear layers and convolutions with Xavier's rule, and biases with zeros; for ``Module.apply``."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def part_tokens(table: Tensor, parts: int, batch: int, classes: Tensor | None) -> Tensor:
    """Return the embeddings ``(B, K + 1, C)`` of the background and of each image's parts.

    Args:
        table: ``(1 + n K, C)``: the background's embedding, shared by all n classes, then those of the parts by class.
        parts: number of parts K.
        batch: number of images B.
        classes: ``(B,)`` int64, if there are several classes.

    Raises:
        UsageError: ``classes`` is missing, unexpected or out of range.
    """
    several = (table.shape[0] - 1) // parts
    if several == 1:
        if classes is not None:
            raise UsageError(
                "classes= is for models with separate parts for each class, and this model is not one: leave it out."
            )
        return table.expand(batch, -1, -1)
    if classes is None:
        raise UsageError(f"This model has parts for {several} classes: choose one for each image with classes=.")
    fits = classes.shape == (batch,) and not classes.is_floating_point()
    # An exported program cannot raise an error that depends on values.
    if not torch.compiler.is_compiling():
        fits = fits and bool(((classes >= 0) & (classes < several)).all())
    if not fits:
        raise UsageError(f"classes= must be {batch} whole numbers in 0..{several - 1}, one for each image.")
    rows = 1 + classes[:, None] * parts + torch.arange(parts, device=classes.device)
    return table[nn.functional.pad(rows, (1, 0))]


def resampled(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Resample position embeddings for a different grid of patches.

    Args:
        table: ``(side * side, C)``.
        side: side of the square grid that the table was trained for.
        grid: rows and columns of the result.

    Returns:
        ``(rows * columns, C)``: the table itself for its grid, otherwise resampled (bicubic, antialiased, float32).
        A compiled or exported program serves all grids, so it resamples for the table's grid too, with equal values.
    """
    if not torch.compiler.is_compiling() and tuple(grid) == (side, side):
        return table
    square = rearrange(table, "(h w) c -> 1 c h w", h=side).float()
    if torch.compiler.is_compiling():
        return multiplied(square, grid, "bicubic")[0].flatten(1).T
    return interpolate(square, tuple(grid), mode="bicubic", antialias=True)[0].flatten(1).T


def sine_positions(side: int, width: int) -> Tensor:
    """Compute position embeddings ``(side * side, width)``: sines and cosines, of the column and then of the row."""
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * omega
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([line.repeat(side, 1), line.repeat_interleave(side, 0)], dim=1).float()
