"""The frozen encoder inside a part model, and the features that the part model takes from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from partzoo.errors import UsageError
from partzoo.models.base import Encoder
from partzoo.models.registry import find, records_of, stored_architecture
from partzoo.weights.folder import stored_model


def frozen_encoder(name: str) -> Encoder:
    """Build an encoder with the configuration of its trained weights, but without loading them.

    Args:
        name: name of an encoder of the zoo or of timm, or a folder or file.

    Raises:
        UnknownModelError: the name is unknown.
        WeightsError: the folder or file does not hold a model of the zoo.
        UsageError: the model of this name is not an encoder, or its grid does not grow with the image.
    """
    if (stored := stored_model(name)) is not None:
        architecture, config, _ = stored
        entry = stored_architecture(architecture, config, name)
    else:
        entry = find(name)
        config = next((record.config for record in records_of(name, entry.name)), {})
    # Models that are built on an encoder are not encoders themselves; building one could go on in a circle of files.
    encoder = None if hasattr(entry.config, "encoder") else entry.build(entry.configure(config))
    if not isinstance(encoder, Encoder):
        raise UsageError(
            f"encoder={name!r}: {entry.name} is not an encoder. See partzoo.list_models(family='encoder')."
        )
    if encoder.fixed:
        raise UsageError(
            f"encoder={name!r} squashes images to {encoder.fixed[0]}x{encoder.fixed[1]} pixels, and part models need a "
            "grid that grows with the image: choose an encoder that takes any size, such as 'dino-vits16'."
        )
    encoder.architecture = entry.name
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def frozen_features(encoder: Encoder, x: Tensor, levels: Sequence[int] = ()) -> Tensor:
    """Compute :func:`encoder_features` without gradients."""
    return encoder_features(encoder, x, levels)


def encoder_features(encoder: Encoder, x: Tensor, levels: Sequence[int] = ()) -> Tensor:
    """Compute features ``(B, C, h, w)`` of normalized images with sides divisible by ``encoder.preprocess.multiple``.

    Args:
        encoder: an encoder returned by :func:`frozen_encoder`.
        x: ``(B, 3, H, W)``.
        levels: layers, numbered as in ``encoder.forward_intermediates``. Their channels are concatenated on the finest
            grid among them, to which the others are resampled bilinearly. If empty, ``encoder.encode`` is used.
    """
    return torch.cat(level_features(encoder, x, levels), dim=1)


def level_features(encoder: Encoder, x: Tensor, levels: Sequence[int] = ()) -> list[Tensor]:
    """Compute the features of each level ``(B, C_i, h, w)``, which :func:`encoder_features` concatenates."""
    if not levels:
        return [encoder.encode(x).maps()]
    maps = encoder.forward_intermediates(x, list(levels))
    grid = max((level.shape[-2:] for level in maps), key=lambda size: size[0] * size[1])
    return [_on(level, grid) for level in maps]


def frozen_shape(encoder: Encoder, levels: Sequence[int] = ()) -> tuple[int, int]:
    """Return the number of channels of :func:`frozen_features`, and their stride in pixels."""
    if not levels:
        return encoder.dim, encoder.patch
    side = encoder.preprocess.multiple
    features = frozen_features(encoder, next(encoder.parameters()).new_zeros(1, 3, side, side), levels)
    return features.shape[1], side // features.shape[-1]


def _on(maps: Tensor, grid: torch.Size) -> Tensor:
    return maps if maps.shape[-2:] == grid else interpolate(maps, grid, mode="bilinear", align_corners=False)
