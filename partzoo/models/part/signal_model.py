"""PART for signals: a vision transformer on one-second patches of a window with several channels.

Ayoughi et al., "How PARTs assemble into wholes: learning the relative composition of images", sections 5.2
("Time-series prediction") and 8.1 ("1D time series classification", "Choice of Architecture").
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from partzoo.errors import ShapeError, UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision
from partzoo.models.layers import Block, Blocks
from partzoo.models.part.relative import build_relative_encoder
from partzoo.models.registry import register
from partzoo.signals.preparing import check_finite

AT_ONCE = 256  # number of windows in one batch


@dataclass(frozen=True)
class SignalPreprocess:
    """Shape, rate and band of a signal model's input, which :func:`partzoo.signals.to_windows` computes.

    Attributes:
        channels: number of channels.
        samples: number of samples of each channel.
        rate: samples per second.
        band: lowest and highest frequency, in Hz.
    """

    channels: int = 6
    samples: int = 3000
    rate: int = 100
    band: tuple[float, float] = (0.1, 30.0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.channels, self.samples

    def __getattr__(self, name: str) -> Any:
        if name in {field.name for field in fields(Preprocess)}:
            raise UsageError("This model takes signals, not images: see docs/signals.md.")
        raise AttributeError(name)


@dataclass(frozen=True)
class SignalPartConfig:
    """Configuration of a PART model for signals.

    Attributes:
        dim, depth, heads: sizes of the transformer.
        channels: number of channels of a window.
        patch, size: length of a patch and of a window, in samples.
        patches: number of patches drawn from a window in pretraining.
        projections, relative_encoder: as in :class:`partzoo.models.part.model.PartConfig`.
        classes: number of classes; unless it is 0, a class token, learned position embeddings and a classifier replace
            the relative encoder.
    """

    dim: int = 512
    depth: int = 4
    heads: int = 8
    channels: int = 6
    patch: int = 100
    size: int = 3000
    patches: int = 40
    projections: bool = True
    relative_encoder: Literal["cross-attention", "pairwise-mlp", "mlp"] = "cross-attention"
    classes: int = 0


class SignalPart(Encoder):
    """A transformer over a set of patches of a signal, with a relative encoder, or with positions and a classifier.

    Windows are ``(B, channels, size)``, each channel with mean 0 and standard deviation 1.
    """

    preprocess: Any  # a SignalPreprocess, which raises an error if code for images reads it
    keep_float = ("relative_encoder",)

    def __init__(self, config: SignalPartConfig) -> None:
        super().__init__()
        if config.size % config.patch or config.patches < 2:
            raise UsageError(
                f"size={config.size}, patch={config.patch}, patches={config.patches}: size must be a multiple of patch "
                "and patches at least 2."
            )
        self.config = config
        self.dim, self.patch = config.dim, config.patch
        self.preprocess = SignalPreprocess(config.channels, config.size)
        self.patch_embed = nn.Linear(config.channels * config.patch, config.dim)
        self.blocks = Blocks(Block(config.dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        if config.classes:
            self.class_token = nn.Parameter(torch.empty(1, 1, config.dim))
            self.positions = nn.Parameter(torch.empty(1, config.size // config.patch, config.dim))
            self.head = nn.Linear(config.dim, config.classes)
            for learned in (self.class_token, self.positions):
                nn.init.trunc_normal_(learned, std=0.02)
        else:
            self.relative_encoder = build_relative_encoder(
                config.relative_encoder,
                config.dim,
                heads=config.heads,
                patches=config.patches,
                outputs=1,
                projections=config.projections,
            )

    def encode_patches(self, patches: Tensor) -> Tensor:
        """Compute tokens ``(B, N, d)`` of patches ``(B, N, channels, P)``, in the same order, without positions."""
        return self._through(self.patch_embed(patches.flatten(2)))

    def relate(self, patches: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Predict time shifts ``(B, S, 1)``, in patches, between patches ``(B, N, channels, P)``.

        ``pairs`` is ``(B, S, 2)`` int64 of (reference, target); None relates all N * N, ordered by reference.

        Raises:
            UsageError: the model has classes instead of a relative encoder.
        """
        if self.config.classes:
            raise UsageError("This model was finetuned to classes: use a pretrained model to relate patches.")
        return self.relative_encoder(self.encode_patches(patches), pairs)

    def classify(self, x: Tensor, *, masked: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Compute logits ``(B, classes)`` of windows.

        Args:
            x: ``(B, channels, size)``.
            masked: share of the position embeddings, 0..1, that is masked at random, differently for each window.
            generator: source of randomness, on the device of ``x``.

        Raises:
            UsageError: the model has no classes.

        Source: PART, section 8.1 ("We randomly mask out 20% of the position embeddings").
        """
        if not self.config.classes:
            raise UsageError("This model has no classes: finetune it with 'partzoo stages'.")
        kept = None
        if masked:
            count = self.positions.shape[1]
            order = torch.rand(x.shape[0], count, generator=generator, device=x.device).argsort(1)
            kept = (order >= round(masked * count)).to(x.dtype)[..., None]
        return self.head(self._through(self._embedded(x, kept))[:, 0])

    @torch.inference_mode()
    def stages(self, windows: np.ndarray) -> np.ndarray:
        """Return the most probable class ``(n,)`` int64 of each window ``(n, channels, size)``.

        Raises:
            UsageError: a value is NaN or infinite, or the model has no classes.
        """
        check_finite(np.asarray(windows))
        parameter = next(self.parameters())
        found = [np.zeros(0, np.int64)]
        for start in range(0, len(windows), AT_ONCE):
            x = torch.from_numpy(np.array(windows[start : start + AT_ONCE]))
            found.append(self.classify(x.to(parameter)).argmax(1).cpu().numpy())
        return np.concatenate(found)

    def check_input(self, x: Tensor) -> None:
        channels, patch = self.config.channels, self.patch
        if x.ndim != 3 or x.shape[1] != channels or x.shape[2] < patch or x.shape[2] % patch:
            raise ShapeError(f"The input must be (B, {channels}, a multiple of {patch}), not {tuple(x.shape)}.")
        if self.config.classes and x.shape[2] != self.config.size:
            raise ShapeError(f"Windows must be of {self.config.size} samples, not {x.shape[2]}.")

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        tokens = self._through(self._embedded(x))
        prefix = int(self.config.classes > 0)
        return Tokens(tokens[:, prefix:], tokens[:, :prefix], (1, x.shape[2] // self.patch))

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        tokens, kept = self._embedded(x), []
        chosen = choose(indices, len(self.blocks))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i in chosen:
                kept.append(rearrange(self.norm(tokens)[:, int(self.config.classes > 0) :], "b t c -> b c 1 t"))
        return as_format(kept, output_fmt)

    def _embedded(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Embed the grid's patches for the first block, with the class token and the positions in ``kept``."""
        tokens = self.patch_embed(rearrange(x, "b c (t p) -> b t (c p)", p=self.patch))
        if not self.config.classes:
            return tokens
        tokens = tokens + (self.positions if kept is None else self.positions * kept)
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)

    def _through(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


@register(family="part", config=SignalPartConfig())
def part_vit1d(config: SignalPartConfig) -> SignalPart:
    """PART on one-second patches of six-channel, 30-second windows: the paper's EEG model, 12.9 M parameters."""
    return SignalPart(config)
