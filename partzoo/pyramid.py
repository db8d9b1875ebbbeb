"""Feature pyramids, which turn any encoder of the zoo into the backbone of a detector.

This is the simple feature pyramid of Li, Mao, Girshick and He, "Exploring plain vision transformer backbones for object
detection" (ViTDet), ECCV 2022, section 3: the maps of all scales are computed from the encoder's last map alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from partzoo.errors import UsageError
from partzoo.features import placed
from partzoo.models.base import Encoder
from partzoo.models.layers import ChannelNorm
from partzoo.models.part.classifier import PartClassifier
from partzoo.models.part.model import Part
from partzoo.system.device import Device

STRIDES = (4, 8, 16, 32)
Style = Literal["torchvision", "detectron2"]


class Level(NamedTuple):
    """The shape of one map of the pyramid, with the fields of detectron2's ``ShapeSpec``."""

    channels: int
    stride: int
    height: int | None = None
    width: int | None = None


class FeaturePyramid(nn.Module):
    """An encoder with a pyramid built on its last map: finer maps by deconvolution, coarser ones by pooling.

    ``forward`` takes normalized images ``(B, 3, H, W)`` and returns an ordered dictionary of maps
    ``(B, out_channels, h, w)``, finest first: one for each of the strides 4, 8, 16 and 32, and a last one that keeps
    every other cell of the coarsest. The strides are the encoder's stride times powers of two, so an encoder whose
    stride is not a power of two gets the closest possible strides.

    Attributes:
        out_channels: number of channels of every map, which torchvision's detectors read.
        encoder: the encoder, which is trained with the pyramid.
        preprocess: preprocessing of the images; a detector must use its mean and standard deviation.
        strides: stride of each map in pixels, by the map's name.
        size_divisibility: number of pixels that height and width should be a multiple of.

    Args:
        encoder: any encoder of the zoo.
        out_channels: number of channels of every map.
        style: names of the maps: ``"0"`` ... ``"3"`` and ``"pool"``, or ``"p2"`` ... ``"p6"``.

    Source: ViTDet, section 3, "Simple feature pyramid", with the norms of section 3, "Implementation".
    """

    def __init__(self, encoder: Encoder, out_channels: int = 256, style: Style = "torchvision") -> None:
        super().__init__()
        if style not in get_args(Style) or out_channels < 1:
            raise UsageError(
                f"style={style!r}, out_channels={out_channels}: style is 'torchvision' or 'detectron2', "
                "out_channels at least 1."
            )
        self.encoder, self.out_channels, self.preprocess = encoder, out_channels, encoder.preprocess
        doublings = [round(math.log2(encoder.patch / stride)) for stride in STRIDES]
        self.levels = nn.ModuleList(_level(encoder.dim, times, out_channels) for times in doublings)
        names = ("0", "1", "2", "3", "pool") if style == "torchvision" else ("p2", "p3", "p4", "p5", "p6")
        widths = [encoder.patch / 2**times for times in doublings]
        self.strides = dict(zip(names, [round(width) for width in (*widths, 2 * widths[-1])], strict=True))
        self.size_divisibility = math.lcm(encoder.preprocess.multiple, 32)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        last = self.encoder.encode(x).maps().to(next(self.levels.parameters()).dtype)
        maps = [level(last) for level in self.levels]
        return OrderedDict(zip(self.strides, [*maps, max_pool2d(maps[-1], 1, 2)], strict=True))

    def output_shape(self) -> dict[str, Level]:
        """Return channels and stride of every map by its name, as detectron2's backbones do."""
        return {name: Level(self.out_channels, stride) for name, stride in self.strides.items()}


def feature_pyramid(
    model: str | Path | nn.Module,
    out_channels: int = 256,
    *,
    style: Style = "torchvision",
    positions: int | None = None,
    window: int = 0,
    relative: bool = False,
    drop_path: float = 0.0,
    device: Device = None,
) -> FeaturePyramid:
    """Turn a trained encoder into the backbone of a detector, to be trained end to end with the detector.

    Args:
        model: name, in any form that :func:`partzoo.load` accepts, or an encoder, which is itself used, not copied,
            except with ``positions``.
        out_channels: number of channels of every map.
        style: ``"torchvision"`` (maps ``"0"`` ... ``"3"``, ``"pool"``) or ``"detectron2"`` (``"p2"`` ... ``"p6"``).
        positions: side in pixels of the images for which a PART model gets random position embeddings (resampled for
            other sizes), as in the paper's finetuning; None leaves it without positions, as in pretraining.
        window: with ``positions``, side in patches of the windows within which all blocks but four attend; 0 attends
            globally. ViTDet uses 14.
        relative: with ``positions``, whether to add learned relative positions to the attention, as ViTDet does.
        drop_path: with ``positions``, rate of stochastic depth in training; ViTDet uses 0.1 for ViT-B.
        device: where the pyramid runs, as for :func:`partzoo.load`; an encoder is moved there, None leaves it in place.

    Returns:
        The pyramid in training mode and float32, with all parameters trainable.

    Raises:
        UsageError: the style is unknown, the model is not an encoder whose grid grows with the image, or ``positions``
            is given for a model other than PART.
        WeightsError: the weights are missing.
    """
    if isinstance(model, nn.Module):
        encoder: nn.Module = placed(model, device)
    else:
        from partzoo.models.loading import load

        encoder = load(model, device=device, dtype="float32")
    if not isinstance(encoder, Encoder):
        raise UsageError(f"A feature pyramid needs an encoder, not a {type(encoder).__name__}: pass an encoder.")
    if encoder.fixed:
        raise UsageError(
            f"{encoder.architecture} squashes images to {encoder.fixed[0]}x{encoder.fixed[1]} pixels, and a pyramid's "
            "maps grow with the image: choose an encoder that takes any size, such as 'dino-vits16'."
        )
    device = next(encoder.parameters()).device
    if positions is not None:
        if not isinstance(encoder, Part):
            raise UsageError(
                f"positions={positions} is for PART models, and {encoder.architecture} is not one: leave it out."
            )
        options = {"size": positions, "window": window, "relative": relative, "drop_path": drop_path}
        encoder = PartClassifier.from_part(encoder, classes=0, **options)
    elif window or relative or drop_path:
        raise UsageError(
            f"window={window}, relative={relative} and drop_path={drop_path} need positions=: give it too."
        )
    return FeaturePyramid(encoder, out_channels, style).to(device).float().train().requires_grad_(True)


def _level(dim: int, doublings: int, out_channels: int) -> nn.Sequential:
    """Build layers that make the encoder's map ``2 ** doublings`` times as fine, with the pyramid's channels."""
    steps: list[nn.Module] = []
    for number in range(doublings):
        steps += [ChannelNorm(dim, eps=1e-6), nn.GELU()] if number else []
        steps.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim //= 2
    if doublings < 0:
        steps.append(nn.MaxPool2d(2**-doublings))
    return nn.Sequential(
        *steps,
        nn.Conv2d(dim, out_channels, 1, bias=False),
        ChannelNorm(out_channels, eps=1e-6),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        ChannelNorm(out_channels, eps=1e-6),
    )
