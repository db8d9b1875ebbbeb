"""MPAE: part descriptors that match a frozen encoder's features and restore the hidden patches of an image.

Xia et al., "Unsupervised part discovery via descriptor-based masked image restoration with optimized constraints",
ICCV 2025. A small transformer with part embeddings computes K + 1 descriptors of an image (here, background first). The
part maps are their softmax similarity to the compressed features of a frozen encoder (equation 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from partzoo.errors import UsageError
from partzoo.models.base import Encoder, in_precision, pad_to_multiple
from partzoo.models.frozen import frozen_encoder, frozen_features, frozen_shape
from partzoo.models.mpae.masked_autoencoder import MaskedAutoencoder, visible_patches
from partzoo.models.over_encoders import register_over_encoders, side_for
from partzoo.models.part_model import PartModel
from partzoo.models.part_transformer import PartTransformer, initialize
from partzoo.models.registry import register


@dataclass(frozen=True)
class MpaeConfig:
    """Configuration of an MPAE.

    Attributes:
        parts: number of parts K, without the background.
        encoder: name of an encoder of the zoo or of timm; it stays frozen, and the maps have its grid.
        levels: layers of the encoder whose features are concatenated and compressed; empty takes its output.
        standardize: whether to standardize each channel of these features over the training images, for encoders that
            do not end in a norm, where a component shared by all positions hides the differences between them.
        classes: 0 for one vocabulary of parts; otherwise each class has K separate parts (table 6, K = 4 N_c) and
            the background is shared.
        size: side of the images in pixels, a multiple of the encoder's patch.
        dim: channels of the descriptors and of the compressed features.
        width, depth, heads: sizes of the descriptor extractor.
        masked_width, masked_depth, masked_heads: sizes of the encoder of visible patches.
        decoder_depth, decoder_heads: depth and heads of the decoder, whose width is ``dim``.
        restored: side of a restored patch in pixels.
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
    """MPAE: a frozen encoder, a descriptor extractor and a masked autoencoder."""

    def __init__(self, config: MpaeConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.encoder = frozen_encoder(config.encoder)
        # Descriptors decide every label: in int8, 4 % of the labels change for the ViT-B of the parity cases.
        self.keep_float = ("extractor", *(f"encoder.{name}" for name in self.encoder.keep_float))
        channels, self.patch = frozen_shape(self.encoder, config.levels)
        if config.size % self.patch:
            raise UsageError(f"size={config.size} must be a multiple of {self.patch}, the patch of {config.encoder}.")
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

    def encoded(self, x: Tensor) -> Tensor:
        """Compute the encoder's features ``(B, C, h, w)``, from which :meth:`features` are compressed."""
        return frozen_features(self.encoder, x, self.config.levels)

    def features(self, x: Tensor) -> Tensor:
        return self.compress(self.standardize(self.encoded(x)))

    def check_start(self) -> None:
        """Raise a UsageError if :meth:`start_with` cannot be used: it needs standardized features and no classes."""
        if not self.config.standardize or self.config.classes > 1:
            raise UsageError("start needs a model with standardize=True and classes=0.")

    @torch.no_grad()
    def start_with(self, mean: Tensor, std: Tensor, weight: Tensor) -> None:
        """Change the weights so that the maps are the softmax of a linear classifier, until training goes on.

        Args:
            mean, std: ``(C,)`` of the channels of :meth:`encoded`.
            weight: ``(K + 1, C)``, the classifier of standardized features, background first.
        """
        self.standardize.load_state_dict({"running_mean": mean, "running_var": std**2}, strict=False)
        maps = weight.shape[0]
        self.compress.weight[:maps, :, 0, 0] = weight
        self.extractor.start_with(torch.eye(maps, self.dim))

    def match(self, parts: Tensor, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Implement :meth:`PartModel.match`.

        It upsamples the K + 1 similarities: this costs less than upsampling the features, and is equal because dot
        products are linear.

        Source: equation 1.
        """
        with torch.autocast(features.device.type, enabled=False):
            exact = torch.promote_types(features.dtype, torch.float32)
            similarity = torch.einsum("bnc,bchw->bnhw", parts.to(exact), features.to(exact))
            if size is not None:
                similarity = interpolate(similarity, size, mode="bilinear", align_corners=False)
            return similarity.softmax(1)

    def restore(self, x: Tensor, maps: Tensor, parts: Tensor, kept: Tensor) -> Tensor:
        """Restore normalized images ``(B, 3, s, t)`` from the visible patches ``kept`` (B, n) of ``x`` and descriptors.

        Source: equation 2. A hidden patch is replaced by the mean of the descriptors, weighted by the part maps.
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
        """Restore normalized images ``(B, 3, s, t)`` from a random selection of their patches.

        Args:
            x: ``(B, 3, H, W)``; any size.
            ratio: share of hidden patches, 0..1.
            parts: descriptors ``(B, K + 1, dim)`` that replace hidden patches; None takes those of ``x``.
            generator: source of randomness, on the device of ``x``.
            classes: ``(B,)`` int64, for a model that has separate parts for each class.
        """
        x = pad_to_multiple(x, self.preprocess.multiple)
        own, features = self.parts_of(x, classes), self.features(x)
        noise = torch.rand(x.shape[0], features[0, 0].numel(), generator=generator, device=x.device)
        maps = self.match(own, features)
        return self.restore(x, maps, own if parts is None else parts, visible_patches(noise, ratio))


@register_over_encoders("mpae", "MPAE", Mpae)
def mpae_over(name: str, encoder: Encoder) -> MpaeConfig:
    """Return the configuration of an MPAE on an encoder."""
    return MpaeConfig(parts=8, encoder=name, size=side_for(encoder))


@register(family="mpae", config=MpaeConfig())
def mpae_vitb14reg(config: MpaeConfig) -> Mpae:
    """MPAE on DINOv2's ViT-B/14 with registers: the paper's model, for images of 448 or 224 pixels."""
    return Mpae(config)


@register(
    family="mpae",
    config=MpaeConfig(parts=8, encoder="patchresnet14.tin", size=128, dim=192, width=192, depth=4, heads=6,
                      masked_width=192, masked_heads=3, decoder_heads=3),
)  # fmt: skip
def mpae_patchresnet14(config: MpaeConfig) -> Mpae:
    """MPAE on the zoo's small residual network, for images of 64 to 128 pixels."""
    return Mpae(config)


@register(
    family="mpae",
    config=MpaeConfig(parts=8, encoder="efficientnet-lite0.in1k", levels=(3, 4), standardize=True, size=256, dim=192,
                      width=192, depth=4, heads=6, masked_width=192, masked_heads=3, decoder_heads=3),
)  # fmt: skip
def mpae_lite0(config: MpaeConfig) -> Mpae:
    """MPAE on EfficientNet-Lite0's features at strides 16 and 32, for images of 256 pixels."""
    return Mpae(config)
