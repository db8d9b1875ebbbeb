"""MPAE: part descriptors that name the features of a frozen encoder, and stand in for the hidden patches of an image.

Xia et al., "Unsupervised part discovery via descriptor-based masked image restoration with optimized constraints",
ICCV 2025. A small transformer with part embeddings gives K + 1 descriptors of an image, the background's first here;
their softmax similarity to the compressed features of a frozen encoder is the part maps (equation 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from partzoo.errors import UsageError
from partzoo.models.base import in_precision, pad_to_multiple
from partzoo.models.frozen import frozen_encoder, frozen_features, frozen_shape
from partzoo.models.mpae.masked_autoencoder import MaskedAutoencoder, visible_patches
from partzoo.models.part_model import PartModel
from partzoo.models.part_transformer import PartTransformer, initialize
from partzoo.models.registry import register


@dataclass(frozen=True)
class MpaeConfig:
    """What an MPAE is made of.

    Attributes:
        parts: K, without the background.
        encoder: name of an encoder of the zoo or of timm; it stays as it is, and its grid is that of the maps.
        levels: its layers whose features are compressed, side by side; none is what it gives.
        standardize: bring each channel of these features to mean 0 and variance 1 over the images trained on, for
            encoders that do not end in a norm: what all places share hides what tells them apart.
        classes: 0 for one vocabulary of parts; else each class has K of its own (table 6, K = 4 N_c), the background
            is shared.
        size: side of the images, in pixels, a multiple of the encoder's patch.
        dim: channels of descriptors and compressed features.
        width, depth, heads: of the descriptor extractor.
        masked_width, masked_depth, masked_heads: of the encoder of visible patches.
        decoder_depth, decoder_heads: of the decoder, whose width is ``dim``.
        restored: side of a restored patch, in pixels.
    """

    parts: int = 16
    encoder: str = "dinov2-vitb14reg"
    levels: tuple[int, ...] = ()
    standardize: bool = False
    classes: int = 0
    size: int = 448
    dim: int = 256
    width: int = 256
    depth: int = 6
    heads: int = 8
    masked_width: int = 256
    masked_depth: int = 2
    masked_heads: int = 4
    decoder_depth: int = 2
    decoder_heads: int = 4
    restored: int = 8


class Mpae(PartModel):
    """Frozen encoder, descriptor extractor and masked autoencoder."""

    def __init__(self, config: MpaeConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.encoder = frozen_encoder(config.encoder)
        # The descriptors decide every place: in int8 they cost the drawn ViT-B of the parity cases 4 % of its places.
        self.keep_float = ("extractor", *(f"encoder.{name}" for name in self.encoder.keep_float))
        channels, self.patch = frozen_shape(self.encoder, config.levels)
        if config.size % self.patch:
            raise UsageError(f"size={config.size}: {config.encoder} needs a multiple of its patch, {self.patch}.")
        multiple = lcm(self.encoder.preprocess.multiple, self.patch)
        self.preprocess = replace(self.encoder.preprocess, size=config.size, multiple=multiple)
        self.standardize = nn.BatchNorm2d(channels, affine=False) if config.standardize else nn.Identity()
        self.compress = nn.Conv2d(channels, config.dim, 1, bias=False)
        nn.init.xavier_uniform_(self.compress.weight)
        self.extractor = PartTransformer(
            config.parts,
            config.classes,
            config.dim,
            config.size // self.patch,
            patch=self.patch,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            placed=True,
        )
        self.extractor.apply(initialize)
        self.autoencoder = MaskedAutoencoder(
            patch=self.patch,
            restored=config.restored,
            side=config.size // self.patch,
            width=config.masked_width,
            depth=config.masked_depth,
            heads=config.masked_heads,
            dim=config.dim,
            decoder_depth=config.decoder_depth,
            decoder_heads=config.decoder_heads,
        )
        self.train()

    def train(self, mode: bool = True) -> Mpae:
        super().train(mode)
        self.encoder.eval().requires_grad_(False)
        return self

    def parts_of(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.extractor(x, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.compress(self.standardize(frozen_features(self.encoder, x, self.config.levels)))

    def match(self, parts: Tensor, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """As :meth:`PartModel.match` says.

        The K + 1 similarities are upsampled, which equals upsampling the features, as dot products are linear.

        Source: equation 1.
        """
        with torch.autocast(features.device.type, enabled=False):
            exact = torch.promote_types(features.dtype, torch.float32)
            similarity = torch.einsum("bnc,bchw->bnhw", parts.to(exact), features.to(exact))
            if size is not None:
                similarity = interpolate(similarity, size, mode="bilinear", align_corners=False)
            return similarity.softmax(1)

    def restore(self, x: Tensor, maps: Tensor, parts: Tensor, kept: Tensor) -> Tensor:
        """Normalized images ``(B, 3, s, t)`` from visible patches ``kept`` (B, n) of ``x`` and descriptors elsewhere.

        Source: equation 2: a hidden patch is filled with the mean of the descriptors, weighted by its maps.
        """
        filler = torch.einsum("bnhw,bnc->bchw", maps, parts.to(maps.dtype))
        return self.autoencoder(x, filler, kept)

    @in_precision
    def reconstruct(
        self,
        x: Tensor,
        ratio: float = 0.9,
        parts: Tensor | None = None,
        generator: torch.Generator | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        """Normalized images ``(B, 3, s, t)`` restored from a random few of their patches.

        Args:
            x: ``(B, 3, H, W)``; any size.
            ratio: part of the patches that is hidden.
            parts: descriptors ``(B, K + 1, dim)`` to fill hidden patches with; None is ``x``'s.
            generator: source of randomness, on the images' device.
            classes: ``(B,)`` int64, of a model with several.
        """
        x = pad_to_multiple(x, self.preprocess.multiple)
        own, features = self.parts_of(x, classes), self.features(x)
        noise = torch.rand(len(x), features[0, 0].numel(), generator=generator, device=x.device)
        maps = self.match(own, features)
        return self.restore(x, maps, own if parts is None else parts, visible_patches(noise, ratio))


@register(family="mpae", config=MpaeConfig())
def mpae_vitb14reg(config: MpaeConfig) -> Mpae:
    """MPAE over DINOv2's ViT-B/14 with registers: the paper's, for images of 448 or 224 pixels."""
    return Mpae(config)


@register(
    family="mpae",
    config=MpaeConfig(parts=8, encoder="patchresnet14.tin", size=128, dim=192, width=192, depth=4, heads=6,
                      masked_width=192, masked_heads=3, decoder_heads=3),
)  # fmt: skip
def mpae_patchresnet14(config: MpaeConfig) -> Mpae:
    """MPAE over the zoo's small residual network, for images of 64 to 128 pixels."""
    return Mpae(config)
