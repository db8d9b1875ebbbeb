"""MPAE's restoration branch, which decodes an image from a few visible patches and the part descriptors."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from partzoo.models.layers import Block, Blocks
from partzoo.models.part_transformer import resampled, sine_positions


class MaskedAutoencoder(nn.Module):
    """A transformer over the visible patches, and one over the whole grid that predicts pixels (MPAE, section 3.1).

    Args:
        patch: side of a patch of the input, in pixels.
        restored: side of a patch of the output, in pixels.
        side: number of patches along a side of the training images.
        width, depth, heads: width, depth and number of heads of the encoder.
        dim: number of channels of the descriptors, and width of the decoder.
        decoder_depth, decoder_heads: depth and number of heads of the decoder.
    """

    def __init__(
        self,
        *,
        patch: int,
        restored: int,
        side: int,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        dim: int = 256,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
    ) -> None:
        super().__init__()
        self.side, self.restored = side, restored
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(sine_positions(side, width), requires_grad=False)
        self.blocks = _blocks(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.decoder_embed = nn.Linear(width, dim)
        self.decoder_positions = nn.Parameter(sine_positions(side, dim), requires_grad=False)
        self.decoder_blocks = _blocks(dim, decoder_depth, decoder_heads)
        self.decoder_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 3 * restored**2)
        self.apply(_initialize)

    def forward(self, x: Tensor, filler: Tensor, kept: Tensor) -> Tensor:
        """Restore images from their visible patches.

        Args:
            x: ``(B, 3, H, W)``, normalized; H and W are multiples of the patch.
            filler: ``(B, dim, h, w)`` tokens that replace the hidden patches.
            kept: ``(B, n)`` int64, numbers of the visible patches; n may be 0.

        Returns:
            ``(B, 3, restored * h, restored * w)``, normalized.

        Source: MPAE, equation 2.
        """
        grid = filler.shape[2], filler.shape[3]
        tokens = self.decoder_embed(self.encode(x, kept))
        filled = rearrange(filler, "b c h w -> b (h w) c").to(tokens.dtype)
        filled = filled.scatter(1, _rows(kept, tokens.shape[-1]), tokens)
        tokens = filled + resampled(self.decoder_positions, self.side, grid).to(filled.dtype)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        pixels = self.head(self.decoder_norm(tokens))
        return rearrange(pixels, "b (h w) (p q c) -> b c (h p) (w q)", h=grid[0], p=self.restored, q=self.restored)

    def encode(self, x: Tensor, kept: Tensor) -> Tensor:
        """Compute tokens ``(B, n, width)`` of the visible patches, in the order of ``kept``."""
        patches = self.patch_embed(x)
        positions = resampled(self.positions, self.side, (patches.shape[2], patches.shape[3]))
        patches = patches.flatten(2).mT + positions.to(patches.dtype)
        tokens = patches.gather(1, _rows(kept, patches.shape[-1]))
        if not kept.shape[1]:
            return tokens
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def visible_patches(noise: Tensor, ratio: float) -> Tensor:
    """Choose the patches that stay visible under random masking.

    Args:
        noise: ``(B, L)`` random numbers, one for each patch; patches with the lowest stay visible.
        ratio: share of hidden patches, 0..1; the paper hides 0.9.

    Returns:
        ``(B, int(L * (1 - ratio)))`` int64, numbers of the visible patches.

    Source: MPAE, section 3.1 (random masking).
    """
    return noise.argsort(dim=1)[:, : int(noise.shape[1] * (1 - ratio))]


def _blocks(width: int, depth: int, heads: int) -> Blocks:
    blocks = Blocks(Block(width, heads, eps=1e-5) for _ in range(depth))
    for block in blocks:
        block.attn.fused_attn = False
    return blocks


def _rows(indices: Tensor, channels: int) -> Tensor:
    return indices[..., None].expand(-1, -1, channels)


def _initialize(module: nn.Module) -> None:
    """Apply Xavier initialization, treating the patch embedding as a matrix over flattened patches."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
