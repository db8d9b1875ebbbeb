"""A small residual network on patches of 4 x 4 pixels, trained with labels.

He et al., "Deep residual learning for image recognition", CVPR 2016 (basic blocks), with the patch stem of
Liu et al., "A ConvNet for the 2020s", CVPR 2022. It is the zoo's cheap supervised encoder. It has features at strides
4 and 8, and 200 classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.layers import BasicBlock
from partzoo.models.registry import register


@dataclass(frozen=True)
class PatchResNetConfig:
    """Configuration of a :class:`PatchResNet`.

    Attributes:
        widths, depths: channels and blocks of each stage; the first stage has stride 4, and each later one doubles it.
        classes: number of classes.
        size: side of the training images in pixels.
    """

    widths: tuple[int, ...] = (96, 192)
    depths: tuple[int, ...] = (3, 3)
    classes: int = 200
    size: int = 64


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(inputs, width, stride, shortcut if stride > 1 else None)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


class PatchResNet(Encoder):
    """A residual network with a stem of non-overlapping 4 x 4 patches; its tokens have the last stage's grid."""

    STEM = 4

    def __init__(self, config: PatchResNetConfig) -> None:
        super().__init__()
        widths = config.widths
        self.config = config
        self.dim = widths[-1]
        self.patch = self.STEM * 2 ** (len(widths) - 1)
        self.preprocess = Preprocess(size=config.size, multiple=self.patch)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], self.STEM, self.STEM, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)
        )
        self.stages = nn.ModuleList(
            _stage(inputs, width, depth, 1 if i == 0 else 2)
            for i, (inputs, width, depth) in enumerate(
                zip((widths[0], *widths[:-1]), widths, config.depths, strict=True)
            )
        )
        self.head = nn.Linear(self.dim, config.classes)

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = self.stem(pad_to_multiple(x, self.patch))
        return [x := stage(x) for stage in self.stages]

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        return Tokens.from_maps(self._maps(x)[-1])

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        maps = self._maps(x)
        return as_format([maps[i] for i in choose(indices, len(maps))], output_fmt)

    @in_precision
    def classify(self, x: Tensor) -> Tensor:
        """Compute class logits ``(B, classes)`` of whole images."""
        return self.head(self._maps(x)[-1].mean((2, 3)))


@register(family="encoder", config=PatchResNetConfig())
def patchresnet14(config: PatchResNetConfig) -> PatchResNet:
    """Small residual network on patches of 4 x 4 pixels: features at strides 4 and 8, 200 classes."""
    return PatchResNet(config)
