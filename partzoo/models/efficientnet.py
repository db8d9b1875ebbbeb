"""EfficientNet-Lite, trained on ImageNet-1k labels: the default encoder, also used in the foreground model.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, in its "lite" form of
TensorFlow's model garden: no squeeze-and-excitation, ReLU6, stem and head of fixed width. Parameter names and results
are those of timm's ``tf_efficientnet_lite0`` and its siblings, without timm's import time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn
from torch.nn.functional import pad

from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.registry import register

# Kernel, stride, expansion, width and depth of each stage, before scaling.
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
LEVELS = (0, 1, 2, 4, 6)  # the last stage at each stride: 2, 4, 8, 16, 32
STRIDE = 32
STEM, HEAD = 32, 1280
EPSILON = 1e-3  # value in TensorFlow's batch norms


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Configuration of an EfficientNet-Lite: scales of widths and depths, training size in pixels, and number of
    classes (0 for no classifier)."""

    width: float = 1.0
    depth: float = 1.0
    size: int = 224
    classes: int = 1000


class SamePadConv2d(nn.Conv2d):
    """A convolution with TensorFlow's ``SAME`` padding, for heights and widths divisible by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, symmetric, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.border = None if stride == 1 else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.border is None else pad(x, self.border))


class SeparableBlock(nn.Module):
    """The first stage's block: a depthwise and a pointwise convolution, with timm's parameter names."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = SamePadConv2d(inputs, inputs, kernel, groups=inputs), _norm(inputs)
        self.conv_pw, self.bn2 = SamePadConv2d(inputs, width, 1), _norm(width)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """A block that expands, convolves depthwise and projects its input, and adds it to the result if the shapes agree.

    Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018.
    """

    def __init__(self, inputs: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv_pw, self.bn1 = SamePadConv2d(inputs, inner, 1), _norm(inner)
        self.conv_dw, self.bn2 = SamePadConv2d(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self.conv_pwl, self.bn3 = SamePadConv2d(inner, width, 1), _norm(width)
        self.act = nn.ReLU6(inplace=True)
        self.residual = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn2(self.conv_dw(self.act(self.bn1(self.conv_pw(x))))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


class EfficientNetLite(Encoder):
    """EfficientNet-Lite, whose tokens are the last stage's map, at stride 32, and whose intermediates are the maps at
    strides 2, 4, 8, 16 and 32."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = STRIDE
        self.reductions = (2, 4, 8, 16, STRIDE)
        half = 127 / 255
        self.preprocess = Preprocess(
            size=config.size, mean=(half,) * 3, std=(128 / 255,) * 3, interpolation="bicubic", multiple=STRIDE
        )
        self.conv_stem, self.bn1 = SamePadConv2d(3, STEM, 3, 2), _norm(STEM)
        self.act = nn.ReLU6(inplace=True)
        self.widths = tuple(scaled_width(width, config.width) for _, _, _, width, _ in STAGES)
        sizes = zip(STAGES, (STEM, *self.widths), self.widths, scaled_depths(config.depth), strict=False)
        self.blocks = nn.Sequential(*(_stage(form, inputs, width, depth) for form, inputs, width, depth in sizes))
        self.dim = self.widths[-1]
        if config.classes:
            self.conv_head, self.bn2 = SamePadConv2d(self.dim, HEAD, 1), _norm(HEAD)
            self.classifier = nn.Linear(HEAD, config.classes)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Compute the maps ``(B, C, h, w)`` at strides 2, 4, 8, 16 and 32 of ``x``, whose sides are multiples of 32."""
        x = self.act(self.bn1(self.conv_stem(x)))
        maps = [x := stage(x) for stage in self.blocks]
        return [maps[i] for i in LEVELS]

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        return Tokens.from_maps(self.levels(pad_to_multiple(x, STRIDE))[-1])

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        maps = self.levels(pad_to_multiple(x, STRIDE))
        return as_format([maps[i] for i in choose(indices, len(maps))], output_fmt)

    @in_precision
    def classify(self, x: Tensor) -> Tensor:
        """Compute the logits ``(B, classes)`` of whole images, in the order of ImageNet-1k's WordNet ids."""
        maps = self.levels(pad_to_multiple(x, STRIDE))[-1]
        return self.classifier(self.act(self.bn2(self.conv_head(maps))).mean((2, 3)))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=EPSILON)


def _stage(form: tuple[int, ...], inputs: int, width: int, depth: int) -> nn.Sequential:
    kernel, stride, expansion, _, _ = form
    if expansion == 1:
        return nn.Sequential(SeparableBlock(inputs, width, kernel))
    first = InvertedResidual(inputs, width, kernel, stride, expansion)
    return nn.Sequential(first, *(InvertedResidual(width, width, kernel, 1, expansion) for _ in range(depth - 1)))


def scaled_width(width: int, scale: float) -> int:
    """Scale a width and round it to a multiple of 8, but not below 0.9 of the product."""
    rounded = max(8, int(width * scale + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width * scale else rounded


def scaled_depths(scale: float) -> list[int]:
    """Return the number of blocks of each stage; the lite models do not scale the first and the last."""
    depths = [ceil(depth * scale) for *_, depth in STAGES]
    return [STAGES[0][-1], *depths[1:-1], STAGES[-1][-1]]


@register(family="encoder", config=EfficientNetLiteConfig())
def efficientnet_lite0(config: EfficientNetLiteConfig) -> EfficientNetLite:
    """EfficientNet-Lite0: features at strides 2 to 32, ImageNet-1k's classes."""
    return EfficientNetLite(config)


@register(family="encoder", config=EfficientNetLiteConfig(depth=1.1, size=240))
def efficientnet_lite1(config: EfficientNetLiteConfig) -> EfficientNetLite:
    """EfficientNet-Lite1: deeper than Lite0."""
    return EfficientNetLite(config)


@register(family="encoder", config=EfficientNetLiteConfig(width=1.1, depth=1.2, size=260))
def efficientnet_lite2(config: EfficientNetLiteConfig) -> EfficientNetLite:
    """EfficientNet-Lite2: deeper and wider than Lite0."""
    return EfficientNetLite(config)
