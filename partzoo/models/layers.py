"""Blocks of transformers and residual networks, with timm's parameter names, results and initialization.

They are reimplemented because importing one of timm's layers imports all of timm's models and torchvision, which takes
longer than importing torch, and would slow down every command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from partzoo.errors import UsageError
from partzoo.system.device import default_device
from partzoo.system.ranks import count, mine

FEW_PATCHES = 512  # up to here unfused attention is faster in bfloat16 on a CPU; above, fused attention always is


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        dim: number of channels.
        heads: number of attention heads.
        eps: epsilon of the norms.
        activation: activation between the two layers of the MLP, whose hidden layer has four times the channels.
        drop_path: probability, per example, of skipping each residual branch in training.

    Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021.
    """

    relative: nn.Module  # relative positions in the attention, which only backbones of detectors have

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        eps: float = 1e-6,
        activation: Callable[[], nn.Module] = nn.GELU,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim, activation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Transform tokens ``(B, N, dim)``; ``attend``, a function of normalized tokens, replaces the attention."""
        x = x + self.drop_path((attend or self.attn)(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Blocks(nn.ModuleList):
    """A ``ModuleList`` of :class:`Block`, typed for type checkers."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Block]: ...

        @overload
        def __getitem__(self, idx: slice) -> Blocks: ...

        @overload
        def __getitem__(self, idx: int) -> Block: ...

        def __getitem__(self, idx: int | slice) -> Block | Blocks: ...


class Attention(nn.Module):
    """Multi-head self-attention; ``fused_attn`` selects torch's fused kernel instead of the explicit formula."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise UsageError(f"{heads} heads cannot share {dim} channels equally: choose a number that divides {dim}.")
        self.num_heads, self.scale, self.fused_attn = heads, (dim // heads) ** -0.5, True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Attend among tokens ``(B, N, dim)``; ``bias`` maps queries ``(B, heads, N, C)`` to terms of the logits."""
        queries, keys, values = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        added = None if bias is None else bias(queries)
        if self.fused_attn:
            found = scaled_dot_product_attention(queries, keys, values, added)
        else:
            logits = (queries * self.scale) @ keys.mT
            found = (logits if added is None else logits + added).softmax(-1) @ values
        return self.proj(found.transpose(1, 2).flatten(2))


def train_fast(blocks: Iterable[Block], patches: int) -> None:
    """Select the attention, fused or not, that trains faster with this number of patches."""
    for block in blocks:
        block.attn.fused_attn = patches > FEW_PATCHES or default_device().type != "cpu"


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = activation()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: a random share of the examples is set to zero, and the others are scaled to keep the mean."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        if not (self.part and self.training):
            return x
        kept = mine(x.new_empty(count(x.shape[0]), *[1] * (x.ndim - 1)).bernoulli_(1 - self.part))
        return x * kept.div_(1 - self.part)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of maps ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BasicBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions.

    Args:
        inputs: number of channels of the input.
        width: number of channels of both convolutions.
        stride: stride of the first convolution.
        shortcut: module on the residual path, needed if the block changes the shape; None means the identity.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, inputs: int, width: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)), inplace=True)))
        found += x if self.downsample is None else self.downsample(x)
        return relu(found, inplace=True)
