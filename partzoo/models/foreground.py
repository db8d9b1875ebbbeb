"""A network that segments the foreground of an image: an EfficientNet-Lite with a feature pyramid.

The pyramid follows Lin et al., "Feature pyramid networks for object detection", CVPR 2017, with separable
convolutions, one logit per level (deep supervision) and the mean of the coarsest level added to it, as in Zhao et al.,
"Pyramid scene parsing network", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from partzoo.errors import ShapeError
from partzoo.images.preprocess import to_tensor, working_size
from partzoo.models.base import Model, pad_to_multiple
from partzoo.models.efficientnet import LEVELS, STRIDE, EfficientNetLite, EfficientNetLiteConfig
from partzoo.models.registry import register


@dataclass(frozen=True)
class ForegroundConfig:
    """Configuration of a foreground model.

    Attributes:
        width, depth: scales of :class:`partzoo.models.efficientnet.EfficientNetLiteConfig`.
        pyramid: channels at strides 8 and 16; half as many at stride 4 and twice as many at stride 32.
        size: longer side to which images are resized, in pixels.
        image_size, mirror_size: longer sides, in pixels, of the image and of its mirror image, over which
            :meth:`ForegroundModel.probability` averages; None uses ``size``. Different sizes also average over scales.
    """

    width: float = 1.0
    depth: float = 1.0
    pyramid: int = 64
    size: int = 288
    image_size: int | None = None
    mirror_size: int | None = None


class ForegroundModel(Model):
    """A model that predicts the probability that a pixel belongs to the foreground of an image."""

    frozen = False  # the encoder is trained, so its tensors are saved with the model

    def __init__(self, config: ForegroundConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = EfficientNetLite(EfficientNetLiteConfig(config.width, config.depth, config.size, classes=0))
        self.preprocess = self.encoder.preprocess
        inputs = [self.encoder.widths[i] for i in LEVELS]
        base = config.pyramid
        widths = [16, base // 2, base, base, 2 * base]
        self.lateral = nn.ModuleList(_project(i, w) for i, w in zip(inputs, widths, strict=True))
        self.context = nn.Sequential(nn.Conv2d(inputs[-1], widths[-1], 1, bias=False), nn.ReLU6())
        self.down = nn.ModuleList(
            nn.Identity() if fine == coarse else nn.Conv2d(coarse, fine, 1, bias=False)
            for fine, coarse in pairwise(widths)
        )
        self.smooth = nn.ModuleList(_separable(w, 3 if i < 2 else 5) for i, w in enumerate(widths))
        self.heads = nn.ModuleList(nn.Conv2d(w, 1, 1) for w in widths)

    def logits(self, x: Tensor) -> list[Tensor]:
        """Compute logits ``(B, 1, h, w)`` at strides 2, 4, 8, 16 and 32 of ``x``, whose sides are multiples of 32."""
        heads = reversed([*self.heads])
        return [head(maps) for head, maps in zip(heads, self._pyramid(x), strict=True)][::-1]

    def features(self, x: Tensor) -> list[Tensor]:
        """Compute the pyramid's maps ``(B, C, h, w)`` at strides 4, 8, 16 and 32 of ``x``, as for :meth:`logits`."""
        return [*islice(self._pyramid(x), len(self.heads) - 1)][::-1]

    def _pyramid(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the pyramid's maps, from the coarsest to the finest."""
        levels = self.encoder.levels(x)
        above = None
        for i in reversed(range(len(levels))):
            here = self.lateral[i](levels[i])
            if above is None:
                here = here + self.context(levels[i].mean((2, 3), keepdim=True))
            else:
                above = self.down[i](above)
                here = here + interpolate(above, here.shape[-2:], mode="bilinear", align_corners=False)
            above = self.smooth[i](here.clamp(0, 6))
            yield above

    def forward(self, x: Tensor) -> Tensor:
        """Compute the foreground's probabilities ``(B, 1, h, w)`` at half the resolution of ``x``.

        Args:
            x: normalized images ``(B, 3, H, W)`` of any size; they are padded to multiples of 32.

        Raises:
            ShapeError: ``x`` is not a batch of images.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"The input must be (B, 3, H, W), not {tuple(x.shape)}.")
        height, width = (-(-n // 2) for n in x.shape[-2:])
        padded = pad_to_multiple(x.to(next(self.parameters()).dtype), STRIDE)
        return self.logits(padded)[0][..., :height, :width].sigmoid()

    @torch.inference_mode()
    def probability(self, pixels: np.ndarray, size: int | None = None, *, mirror: bool = True) -> Tensor:
        """Compute the foreground probability of one image.

        Args:
            pixels: ``(H, W, 3)`` uint8.
            size: longer side to which the image is resized, in pixels; None uses the configuration's.
            mirror: whether to average over the image and its mirror image.

        Returns:
            ``(h, w)`` float32 probabilities on the CPU, at half of the larger working size.
        """
        sizes = (size, size) if size else self.sizes
        x = self._input(pixels, sizes[0])
        if not mirror:
            return self(x)[0, 0].float().cpu()
        other = x if sizes[0] == sizes[1] else self._input(pixels, sizes[1])
        return self.averaged(x, other)[0, 0]

    @property
    def sizes(self) -> tuple[int, int]:
        """Longer sides, in pixels, to which the image and its mirror image are resized."""
        return self.config.image_size or self.config.size, self.config.mirror_size or self.config.size

    def averaged(self, x: Tensor, other: Tensor) -> Tensor:
        """Compute probabilities ``(B, 1, h, w)`` from images in two sizes, the second of which are mirrored here.

        Args:
            x, other: the same normalized images ``(B, 3, H, W)``, with longer sides of :attr:`sizes`.

        Returns:
            Float32 probabilities on the CPU, at half of the larger size.
        """
        found, mirrored = self(x).float().cpu(), self(other.flip(3)).float().cpu().flip(3)
        if torch.compiler.is_compiling() or found.shape != mirrored.shape:
            larger = found.shape[2:] if self.sizes[0] >= self.sizes[1] else mirrored.shape[2:]
            found, mirrored = (
                interpolate(each, larger, mode="bilinear", align_corners=False) for each in (found, mirrored)
            )
        return (found + mirrored) / 2

    def _input(self, pixels: np.ndarray, size: int) -> Tensor:
        working = working_size(pixels.shape[:2], size, STRIDE)
        return to_tensor(pixels, working, self.preprocess)[None].to(next(self.parameters()).device)


def _project(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))


def _separable(width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False), nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(inplace=True),
    )  # fmt: skip


@register(family="foreground", config=ForegroundConfig())
def foreground_lite0(config: ForegroundConfig) -> ForegroundModel:
    """EfficientNet-Lite0 with a feature pyramid, which segments the foreground of any photograph."""
    return ForegroundModel(config)
