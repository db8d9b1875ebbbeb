"""Backbones for Spatial Reasoning: conv-4 and ResNets for small and large images.

The backbones are from Patacchiola and Storkey, "Self-supervised relational reasoning for representation learning",
NeurIPS 2020 (conv-4; ResNet-8, -32, -56 for 32 and 64 pixels, ResNet-34 for 96), after He et al., CVPR 2016. Parameters
have the names used in the published checkpoints; those of ResNet-34 are also torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from partzoo.models.layers import BasicBlock


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class Conv4(nn.Module):
    """A network of four convolutions, the first three each followed by average pooling with stride 2."""

    dim, stride = 64, 8

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = ConvBlock(3, 8), ConvBlock(8, 16)
        self.layer3, self.layer4 = ConvBlock(16, 32), ConvBlock(32, 64)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the maps ``(B, C, h, w)`` of the four layers."""
        maps = [x := avg_pool2d(layer(x), 2) for layer in (self.layer1, self.layer2, self.layer3)]
        return [*maps, self.layer4(x)]


class ResNet(nn.Module):
    """A residual network of basic blocks.

    Args:
        depths: number of blocks of each stage.
        widths: number of channels of each stage.
        large: whether to begin with a 7 x 7 convolution of stride 2 and max pooling instead of a 3 x 3 convolution.
    """

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...] = (16, 32, 64), *, large: bool = False) -> None:
        super().__init__()
        self.dim = widths[-1]
        self.stride = 2 ** (len(widths) - 1) * (4 if large else 1)
        side, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, widths[0], side, stride, side // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = [f"layer{i + 1}" for i in range(len(widths))]
        for i, (name, inputs, width, depth) in enumerate(
            zip(self.stages, (widths[0], *widths[:-1]), widths, depths, strict=True)
        ):
            self.add_module(name, _stage(inputs, width, depth, 2 if i else 1))
        self.apply(_initialize)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the maps ``(B, C, h, w)`` of the stages."""
        x = self.pool(relu(self.bn1(self.conv1(x))))
        return [x := self.get_submodule(name)(x) for name in self.stages]


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return nn.Sequential(
        BasicBlock(inputs, width, stride, shortcut), *(BasicBlock(width, width) for _ in range(depth - 1))
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


BACKBONES: dict[str, Callable[[], Conv4 | ResNet]] = {
    "conv4": Conv4,
    "resnet8": partial(ResNet, (1, 1, 1)),
    "resnet32": partial(ResNet, (5, 5, 5)),
    "resnet56": partial(ResNet, (9, 9, 9)),
    "resnet34": partial(ResNet, (3, 4, 6, 3), (64, 128, 256, 512), large=True),
}
