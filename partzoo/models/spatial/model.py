"""Spatial Reasoning: small convolutional encoders, trained to predict the distance between patches.

Albert, Eskofier and Zanca, "From patches to objects: exploiting spatial reasoning for better visual representations",
2024. A backbone computes one vector for an image or an enlarged patch of it; a relation module predicts from two
vectors whether they come from the same image, and the distance between them in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from partzoo.errors import ShapeError, UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens, as_format, choose, in_precision, pad_to_multiple
from partzoo.models.registry import register
from partzoo.models.spatial.backbones import BACKBONES

# Indices of windows in the 3 x 3 grid, row by row, for each number of patches: the centre; its row; the cross; that
# with the top-left and bottom-right corners (the paper draws two new corners each time); all.
WINDOWS = {
    0: (), 1: (4,), 3: (3, 4, 5), 5: (1, 3, 4, 5, 7), 7: (1, 3, 4, 5, 7, 0, 8), 9: tuple(range(9)),
}  # fmt: skip


@dataclass(frozen=True)
class SpatialConfig:
    """Configuration of a Spatial Reasoning model.

    Attributes:
        backbone: key of :data:`partzoo.models.spatial.backbones.BACKBONES`.
        size: side of the images in pixels, to which patches are enlarged.
        patch_size: side of the patches in pixels. The paper uses 24 for images of 64 (section 4.1); 12 for 32 and 36
            for 96 are in proportion.
        additive: whether to place patches on an empty image instead of enlarging them (section 4.4).
        in_place: whether additive patches keep their place in the image, as the paper's "padding the patch back"
            suggests; the place then shows the position that is to be predicted. Otherwise they are placed at random, as
            in the published code.
        aggregation: how the relation module combines two features; ``"cat"`` is used in the paper. The others do not
            distinguish the first from the second, and learn distances in each direction without sign.
        mean, std: mean and standard deviation of each channel, for pixels in 0..1; by default those published for
            Tiny-ImageNet.
        related: whether there is a relation module; a model converted from a backbone alone has none.
    """

    backbone: str = "resnet32"
    size: int = 64
    patch_size: int = 24
    additive: bool = False
    in_place: bool = False
    aggregation: Literal["cat", "sum", "mean", "max"] = "cat"
    mean: tuple[float, float, float] = (0.1307, 0.1307, 0.1307)
    std: tuple[float, float, float] = (0.3081, 0.3081, 0.3081)
    related: bool = True

    @property
    def enlarged(self) -> int:
        """Side in pixels of the enlarged image, in which a patch has the side of the original image."""
        return int(self.size / self.patch_size * self.size)

    @property
    def unit(self) -> float:
        """Unit of predicted distances, as a share of the image's side.

        As published for images of 64 pixels, the unit is 128 pixels of the enlarged image, that is, twice the side. For
        additive patches it is the range of their positions.
        """
        return 1 - self.patch_size / self.size if self.additive else 2 * self.size / self.enlarged


class RelationModule(nn.Module):
    """A module that predicts the relation between two features (section 3.2)."""

    def __init__(self, dim: int, aggregation: str = "cat", hidden: int = 256) -> None:
        super().__init__()
        if aggregation not in ("cat", "sum", "mean", "max"):
            raise UsageError(f"aggregation={aggregation!r} must be 'cat', 'sum', 'mean' or 'max'.")
        self.dim, self.aggregation = dim, aggregation
        self.ordered = aggregation == "cat"  # whether it distinguishes the first feature from the second
        self.linear1 = nn.Linear(2 * dim if aggregation == "cat" else dim, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.linear2 = nn.Linear(hidden, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Predict the relation between features ``a`` and ``b``, ``(P, F)`` each.

        Returns:
            ``(P, 3)``: the offset of ``a`` from ``b``, down and to the right, in :attr:`SpatialConfig.unit`, and the
            logit that they come from different images. This is the published code's order; the paper puts the logit
            first. If features are not concatenated, the offsets have no sign.

        Raises:
            ShapeError: the features do not have these shapes.
        """
        if a.ndim != 2 or a.shape != b.shape or a.shape[1] != self.dim:
            raise ShapeError(f"Two (P, {self.dim}) features are needed, not {(*a.shape,)} and {(*b.shape,)}.")
        return self.linear2(leaky_relu(self.bn1(self.linear1(self._joined(a, b)))))

    def _joined(self, a: Tensor, b: Tensor) -> Tensor:
        if self.aggregation == "cat":
            return torch.cat([a, b], dim=1)
        if self.aggregation == "max":
            return torch.maximum(a, b)
        return a + b if self.aggregation == "sum" else (a + b) / 2


class NoRelation(nn.Module):
    """Placeholder for the relation module of a model that has none."""

    ordered = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Refuse to relate.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "This model has a backbone alone and cannot relate images: convert a checkpoint of Spatial Reasoning that "
            "also has the state dict 'relation', or load a model such as 'spatial-resnet32.tin'."
        )


@dataclass(frozen=True)
class SpatialRelations:
    """The predicted relations of pairs of images or patches.

    Attributes:
        same: ``(B,)`` probability, 0..1, that both members of a pair come from the same image.
        shift: ``(B, 2)``, x and y from the second to the first, in sides of the image that they are patches of. Whole
            images have no position: the model is trained to predict about (0, 0) for views of one image, and
            ``SpatialConfig.unit`` along both axes for different images.
        distance: ``(B,)`` length of the shift.
    """

    same: Tensor
    shift: Tensor
    distance: Tensor


class Spatial(Encoder):
    """Spatial Reasoning: a backbone and a relation module; its tokens have the grid of the backbone's last stage.

    ``model(x)`` returns tokens ``(B, N, F)``, one for each of the N cells; ``model.features(x)`` returns one vector
    ``(B, F)`` for each image, the mean that the relation module compares.
    """

    keep_float = ("relation",)

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        if config.backbone not in BACKBONES:
            raise UsageError(f"backbone={config.backbone!r} must be one of {', '.join(map(repr, BACKBONES))}.")
        if config.patch_size < 1 or config.enlarged < config.size + 2:
            most = next(side for side in range(config.size, 0, -1) if config.size**2 // side >= config.size + 2)
            raise UsageError(f"patch_size={config.patch_size} must be 1 to {most} pixels, for images of {config.size}.")
        if config.in_place and not config.additive:
            raise UsageError("in_place=True is for additive patches: set additive=True too, or leave it out.")
        self.config = config
        self.backbone = BACKBONES[config.backbone]()
        self.relation = RelationModule(self.backbone.dim, config.aggregation) if config.related else NoRelation()
        self.dim, self.patch = self.backbone.dim, self.backbone.stride
        self.preprocess = Preprocess(config.size, config.mean, config.std, "bilinear", self.patch)

    @in_precision
    def encode(self, x: Tensor) -> Tokens:
        return Tokens.from_maps(self._maps(pad_to_multiple(x, self.patch))[-1])

    @in_precision
    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, output_fmt: str = "NCHW"
    ) -> list[Tensor]:
        maps = self._maps(pad_to_multiple(x, self.patch))
        return as_format([maps[i] for i in choose(indices, len(maps))], output_fmt)

    @in_precision
    def features(self, x: Tensor) -> Tensor:
        """Compute one vector ``(B, F)`` for each normalized image ``(B, 3, H, W)`` of any size, without padding."""
        return self._maps(x)[-1].mean((2, 3))

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Compute the maps of the backbone's stages; at inference with channels last, which is faster on CPUs."""
        return self.backbone(x if self.training else x.contiguous(memory_format=torch.channels_last))

    def windows(self, patches: int) -> list[tuple[int, int]]:
        """Return the corners (top, left) of :meth:`represent`'s patches, in pixels of the enlarged image.

        They form a 3 x 3 grid, row by row, which ends a pixel or two inside the image, as in the published code.

        Raises:
            UsageError: the number of patches is not one of :data:`WINDOWS`.
        """
        if isinstance(patches, bool) or not isinstance(patches, int) or patches not in WINDOWS:
            raise UsageError(f"patches={patches!r} must be one of {', '.join(map(str, WINDOWS))}.")
        if patches and self.config.additive:
            raise UsageError(
                f"patches={patches!r}: a model of additive patches represents whole images only: use patches=0."
            )
        step = int((self.config.enlarged - self.config.size) / 2) - 1
        return [(window // 3 * step, window % 3 * step) for window in WINDOWS[patches]]

    def crops(self, x: Tensor, windows: list[tuple[int, int]]) -> Tensor:
        """Cut patches ``(B, n, 3, S, S)`` at windows of the bilinearly enlarged images ``(B, 3, S, S)``."""
        size, side = self.config.size, self.config.enlarged
        enlarged = interpolate(x, (side, side), mode="bilinear", align_corners=False)
        return torch.stack([enlarged[..., y : y + size, x : x + size] for y, x in windows], dim=1)

    @in_precision
    def represent(self, x: Tensor, patches: int | None = None) -> Tensor:
        """Compute the features of whole images, followed by those of their patches.

        Args:
            x: normalized images ``(B, 3, S, S)``, S the configured size.
            patches: number of patches, 0, 1, 3, 5, 7 or 9: more patches give better features and take longer. None uses
                the paper's number, 9, or 0 for a model trained on additive patches.

        Returns:
            ``(B, (patches + 1) * F)``: the image, then its patches in the order of :meth:`windows`.

        Raises:
            ShapeError: the images have a different size.
            UsageError: the number of patches is not available, or the model's patches are additive.

        Source: section 3.3; for the choice of patches, section 4.3.
        """
        size = self.config.size
        if tuple(x.shape[2:]) != (size, size):
            raise ShapeError(f"represent takes images of {size}x{size} pixels, not {x.shape[2]}x{x.shape[3]}.")
        windows = self.windows((0 if self.config.additive else 9) if patches is None else patches)
        if windows:
            x = torch.cat([x[:, None], self.crops(x, windows)], dim=1).flatten(0, 1)
        return rearrange(self.features(x), "(b n) f -> b (n f)", n=len(windows) + 1)

    @in_precision
    def relate_images(self, a: Tensor, b: Tensor) -> SpatialRelations:
        """Predict whether two images, or two enlarged patches, come from one image, and the shift between them.

        Args:
            a, b: normalized images, ``(B, 3, H, W)`` each.

        Raises:
            ShapeError: their numbers differ.
            UsageError: the model has no relation module.
        """
        if a.shape[0] != b.shape[0]:
            raise ShapeError(f"{a.shape[0]} images cannot be paired with {b.shape[0]}.")
        found = self.relation(self.features(a), self.features(b)).float()
        shift = found[:, :2].flip(1) * self.config.unit
        return SpatialRelations(torch.sigmoid(-found[:, 2]), shift, shift.norm(dim=1))


@register(family="spatial", config=SpatialConfig("conv4"))
def spatial_conv4(config: SpatialConfig) -> Spatial:
    """Spatial Reasoning with four convolutions, for images of 32 or 64 pixels; features at stride 8."""
    return Spatial(config)


@register(family="spatial", config=SpatialConfig("resnet8"))
def spatial_resnet8(config: SpatialConfig) -> Spatial:
    """Spatial Reasoning with a ResNet-8, for images of 32 or 64 pixels; features at strides 1, 2 and 4."""
    return Spatial(config)


@register(family="spatial", config=SpatialConfig("resnet32"))
def spatial_resnet32(config: SpatialConfig) -> Spatial:
    """Spatial Reasoning with a ResNet-32, for images of 32 or 64 pixels: the paper's main model; strides 1, 2 and 4."""
    return Spatial(config)


@register(family="spatial", config=SpatialConfig("resnet56"))
def spatial_resnet56(config: SpatialConfig) -> Spatial:
    """Spatial Reasoning with a ResNet-56, for images of 32 or 64 pixels; features at strides 1, 2 and 4."""
    return Spatial(config)


@register(family="spatial", config=SpatialConfig("resnet34", 96, 36, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
def spatial_resnet34(config: SpatialConfig) -> Spatial:
    """Spatial Reasoning with a ResNet-34, for images of 96 pixels: the paper's model for STL-10; strides 4 to 32."""
    return Spatial(config)
