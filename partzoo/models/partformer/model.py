"""PartFormer: part representations from a transformer, matched with the features at every position.

Xia et al., "Unsupervised part discovery via dual representation alignment", TPAMI 2024. A transformer with part
embeddings in place of a class token computes K + 1 representations of an image, background first; a feature encoder
computes a vector for each position; the part maps are their softmax similarity (equation 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, in_precision, pad_to_multiple
from partzoo.models.frozen import encoder_features, frozen_encoder, frozen_features, frozen_shape
from partzoo.models.layers import ChannelNorm
from partzoo.models.over_encoders import CELLS, register_over_encoders, side_for
from partzoo.models.part_model import PartModel
from partzoo.models.part_transformer import PATCH, PartTransformer, ResNetStem, initialize
from partzoo.models.registry import register

RECONSTRUCTION = 128  # side in pixels of the images that the paper's model reconstructs
START_SCALE = 2.6593  # initial value of the learned scale of cosines, ln(1 / 0.07)


@dataclass(frozen=True)
class PartFormerConfig:
    """Configuration of a PartFormer.

    Attributes:
        parts: number of parts K, without the background.
        encoder: ``"stem"``, the first stage of a ResNet-18, which is trained with the rest; or the name of an encoder
            of the zoo or of timm.
        levels: layers of the encoder, numbered as in ``forward_intermediates``, whose features are concatenated on the
            finest of their grids; empty takes the encoder's output.
        frozen: whether to keep the encoder's pretrained weights; otherwise it is trained from random ones (table 8).
        compress: how the encoder's channels are reduced to ``dim``: not at all, by one 1 x 1 convolution
            (``"linear"``), by three with batch norm before or after the ReLU, as the published code does, or by three
            ``"blocks"`` of 3 x 3 convolution, ReLU and batch norm, as the paper does (section 4.3).
        dim: number of channels of the features and the part representations.
        tau: factor of the dot products in the softmax.
        cosine: whether to compare with cosine similarity, and a learned factor instead of ``tau``.
        classes: 0 for images of one category; otherwise each class has separate parts, the background is shared, and
            positions are learned.
        size: side of the images in pixels.
        stride: subsampling of the part transformer's input, which is every ``stride``-th pixel.
        reconstruction: side of the decoder's images, in pixels.
        upsampling: method of upsampling in the decoder.
        decoder: order of layer norm and ReLU in the decoder's blocks, and the side of its last convolution:
            ``"norm-relu"`` and 1 x 1 as in the published code, or ``"relu-norm"`` and 3 x 3 as in the paper (section
            3.1).
        interpolate: whether to interpolate maps finer than the grid of features; otherwise every pixel has the
            probabilities of its cell (table 11).
    """

    parts: int = 8
    encoder: str = "stem"
    levels: tuple[int, ...] = ()
    frozen: bool = True
    compress: Literal["none", "linear", "norm-relu", "relu-norm", "blocks"] = "none"
    dim: int = 64
    tau: float = 0.8
    cosine: bool = False
    classes: int = 0
    size: int = 128
    stride: int = 1
    reconstruction: int = RECONSTRUCTION
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    decoder: Literal["norm-relu", "relu-norm"] = "norm-relu"
    interpolate: bool = True


class PartFormer(PartModel):
    """PartFormer: a part transformer, a feature encoder and a decoder."""

    def __init__(self, config: PartFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.encoder, self.frozen = _encoder(config)
        if isinstance(self.encoder, ResNetStem):
            channels, self.patch = self.encoder.dim, self.encoder.patch
            preprocess = Preprocess(multiple=self.patch)
        else:
            channels, self.patch = frozen_shape(self.encoder, config.levels)
            # In int8, up to 9 % of the labels change for the parity cases, and 3 % if the representations stay exact.
            self.keep_float = ("transformer", *(f"encoder.{name}" for name in self.encoder.keep_float))
            preprocess = self.encoder.preprocess
        multiple = lcm(preprocess.multiple, PATCH * config.stride)
        self.preprocess = replace(preprocess, size=config.size, multiple=multiple)
        self.compress = _compress(config.compress, channels, config.dim)
        self.transformer = PartTransformer(
            config.parts, config.classes, config.dim, config.size // (PATCH * config.stride)
        )
        self.decoder = _decoder(config, config.reconstruction * self.patch // config.size)
        if config.cosine:
            self.scale = nn.Parameter(torch.tensor(START_SCALE))
        for part in (self.compress, self.transformer, self.decoder):
            part.apply(initialize)
        self.train()

    def train(self, mode: bool = True) -> PartFormer:
        super().train(mode)
        if self.frozen:
            self.encoder.eval().requires_grad_(False)
        return self

    def view(self, x: Tensor) -> Tensor:
        """Return the part transformer's input for images ``(B, 3, H, W)``: every ``stride``-th pixel."""
        return x[..., :: self.config.stride, :: self.config.stride]

    def parts_of(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        # The representations decide every label: with products in bfloat16, up to 2 % of the labels change for the
        # parity cases, and below 0.5 % if these stay in float32. This network is small and sees few patches.
        with torch.autocast(x.device.type, enabled=False):
            return self.transformer(self.view(x).to(self.transformer.part_embed.dtype), classes)

    def encoded(self, x: Tensor) -> Tensor:
        """Compute the encoder's features ``(B, C, h, w)``, from which :meth:`features` are compressed."""
        if isinstance(self.encoder, ResNetStem):
            return self.encoder(x)
        look = frozen_features if self.frozen else encoder_features
        return look(self.encoder, x, self.config.levels)

    def features(self, x: Tensor) -> Tensor:
        return self.compress(self.encoded(x))

    def check_start(self) -> None:
        """Raise a UsageError if :meth:`start_with` cannot be used: it needs linear features and dot products."""
        config = self.config
        if not self.frozen or config.compress != "linear" or config.cosine or config.classes > 1:
            raise UsageError(
                "start needs a model with a frozen encoder, compress='linear', cosine=False and classes=0."
            )

    @torch.no_grad()
    def start_with(self, mean: Tensor, std: Tensor, weight: Tensor) -> None:
        """Change the weights so that the maps are the softmax of a linear classifier, until training goes on.

        Args:
            mean, std: ``(C,)`` of the channels of :meth:`encoded`.
            weight: ``(K + 1, C)``, the classifier of standardized features, background first.
        """
        (conv,) = (each for each in self.compress.modules() if isinstance(each, nn.Conv2d))
        assert conv.bias is not None
        maps = weight.shape[0]
        conv.weight[:maps, :, 0, 0] = weight / std
        conv.weight[maps:, :, 0, 0] /= std
        conv.bias.copy_(-conv.weight[:, :, 0, 0] @ mean)
        self.transformer.start_with(torch.eye(maps, self.dim) / self.config.tau)

    def match(self, parts: Tensor, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Implement :meth:`PartModel.match`.

        Dot products are upsampled, which equals upsampling the features; for cosines the features are upsampled. With
        ``interpolate`` off, each pixel has the probabilities of its cell.

        Source: equation 2.
        """
        with torch.autocast(features.device.type, enabled=False):
            exact = torch.promote_types(features.dtype, torch.float32)
            parts, features = parts.to(exact), features.to(exact)
            if size is not None and not self.config.interpolate:
                return interpolate(self.match(parts, features), size, mode="nearest-exact")
            if self.config.cosine:
                features = features if size is None else _upsample(features, size)
                similarity = torch.einsum("bnc,bchw->bnhw", normalize(parts, dim=-1), normalize(features, dim=1))
                return (self.scale * similarity).softmax(1)
            similarity = self.config.tau * torch.einsum("bnc,bchw->bnhw", parts, features)
            return (similarity if size is None else _upsample(similarity, size)).softmax(1)

    def decode(self, maps: Tensor, parts: Tensor) -> Tensor:
        """Decode normalized images ``(B, 3, s, s)`` from part maps and representations (equation 3)."""
        synthetic = torch.einsum("bnhw,bnc->bchw", maps, parts.to(maps.dtype))
        return self.decoder(synthetic.contiguous(memory_format=torch.channels_last))

    @in_precision
    def reconstruct(self, x: Tensor, parts: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """Reconstruct images ``(B, 3, s, s)``, normalized, with the shapes of ``x`` and the appearance of ``parts``."""
        x = pad_to_multiple(x, self.preprocess.multiple)
        parts = self.parts_of(x, classes) if parts is None else parts
        return self.decode(self.match(parts, self.features(x)), parts)


def _upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(maps, size, mode="bilinear", align_corners=False)


def _encoder(config: PartFormerConfig) -> tuple[Encoder | ResNetStem, bool]:
    """Build the feature encoder, and return it with whether it is frozen."""
    if config.encoder == "stem":
        if config.levels:
            raise UsageError(
                f"levels={config.levels}: the stem has only one level; choose an encoder of the zoo or of timm."
            )
        return ResNetStem(), False
    return frozen_encoder(config.encoder).requires_grad_(not config.frozen), config.frozen


def _compress(kind: str, inputs: int, dim: int) -> nn.Module:
    if kind == "none":
        if inputs != dim:
            raise UsageError(f"compress='none' keeps {inputs} channels, but dim is {dim}: use compress='linear'.")
        return nn.Identity()
    if kind == "linear":
        return nn.Sequential(nn.Conv2d(inputs, dim, 1))
    if kind not in ("norm-relu", "relu-norm", "blocks"):
        raise UsageError(f"compress={kind!r} must be 'none', 'linear', 'norm-relu', 'relu-norm' or 'blocks'.")
    side = 3 if kind == "blocks" else 1

    def step(inputs: int, width: int) -> list[nn.Module]:
        norm, relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        order = (norm, relu) if kind == "norm-relu" else (relu, norm)
        return [nn.Conv2d(inputs, width, side, padding=side // 2), *order]

    last = step(2 * dim, dim) if kind == "blocks" else [nn.Conv2d(2 * dim, dim, 1)]
    return nn.Sequential(*step(inputs, 4 * dim), *step(4 * dim, 2 * dim), *last)


def _decoder(config: PartFormerConfig, factor: int) -> nn.Sequential:
    """Build the decoder from maps to images ``factor`` times as large, a power of two (section 3.1)."""
    dim, published = config.dim, config.decoder == "norm-relu"
    if factor < 1 or factor & (factor - 1):
        raise UsageError("reconstruction must be 1, 2, 4 or 8 times the side of the grid of features.")
    if config.decoder not in ("norm-relu", "relu-norm"):
        raise UsageError(f"decoder={config.decoder!r} must be 'norm-relu' or 'relu-norm'.")

    def block() -> nn.Sequential:
        norm, relu = ChannelNorm(dim, eps=1e-6), nn.ReLU(inplace=True)
        order = (norm, relu) if published else (relu, norm)
        return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), *order)

    corners = False if config.upsampling == "bilinear" else None
    layers: list[nn.Module] = []
    for _ in range(factor.bit_length() - 1):
        layers += [block(), block(), nn.Upsample(scale_factor=2, mode=config.upsampling, align_corners=corners)]
    last = nn.Conv2d(dim, 3, 1) if published else nn.Conv2d(dim, 3, 3, padding=1)
    return nn.Sequential(*layers, block(), last)


@register_over_encoders("partformer", "PartFormer", PartFormer)
def partformer_over(name: str, encoder: Encoder) -> PartFormerConfig:
    """Return the configuration of a PartFormer on an encoder, whose grid is doubled up to 128 for reconstruction."""
    side = side_for(encoder)
    grid = side // encoder.patch
    larger = 2 ** max((RECONSTRUCTION // grid).bit_length() - 1, 0)
    # Patches of 14 pixels and every second pixel would allow only squares of 224 pixels.
    stride = 2 if CELLS % encoder.patch == 0 else 1
    return PartFormerConfig(encoder=name, compress="norm-relu", size=side, stride=stride, reconstruction=grid * larger)


@register(family="partformer", config=PartFormerConfig())
def partformer_resnet18(config: PartFormerConfig) -> PartFormer:
    """PartFormer with the first stage of a ResNet-18, for 128-pixel images, trainable from scratch."""
    return PartFormer(config)


@register(
    family="partformer",
    config=PartFormerConfig(parts=4, encoder="dino-vits8", compress="norm-relu", size=256, stride=2),
)
def partformer_vits8(config: PartFormerConfig) -> PartFormer:
    """PartFormer on DINO's ViT-S/8: the paper's model, for images of 256 pixels."""
    return PartFormer(config)


@register(
    family="partformer",
    config=PartFormerConfig(encoder="efficientnet-lite0.in1k", levels=(2, 3, 4), compress="linear", size=256,
                            stride=2, reconstruction=64),
)  # fmt: skip
def partformer_lite0(config: PartFormerConfig) -> PartFormer:
    """PartFormer on EfficientNet-Lite0's features at strides 8, 16 and 32, for images of 256 pixels."""
    return PartFormer(config)


@register(
    family="partformer",
    config=PartFormerConfig(encoder="patchresnet14.tin", levels=(0, 1), compress="norm-relu", reconstruction=64),
)
def partformer_patchresnet14(config: PartFormerConfig) -> PartFormer:
    """PartFormer on both feature levels of the zoo's small residual network, for images of 128 pixels."""
    return PartFormer(config)
