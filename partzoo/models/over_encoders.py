"""Names of part models over any encoder, such as ``partformer-dinov2-vits14`` and ``mpae-timm/resnet50``."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm
from typing import Any

import torch

from partzoo.errors import UnknownModelError
from partzoo.models.base import Encoder, Model
from partzoo.models.frozen import frozen_encoder
from partzoo.models.registry import Architecture, register_prefix, unknown

SIDE = 256  # largest side of the images in pixels, if whole patches allow it
CELLS = 32  # divisor of the side in pixels, so that grids can be halved and doubled


def register_over_encoders(
    family: str, title: str, build: Callable[[Any], Model]
) -> Callable[[Callable[[str, Encoder], Any]], Callable[[str, Encoder], Any]]:
    """Register the decorated function for names of the form ``family-encoder``.

    It is a function from the name of an encoder, and the encoder without values, to the configuration of the part model
    on it. Architectures that are registered under such a name take precedence.

    Args:
        family: name of the family.
        title: name of the method, for summaries.
        build: function from a configuration to the model.
    """

    def decorate(configure: Callable[[str, Encoder], Any]) -> Callable[[str, Encoder], Any]:
        @register_prefix(f"{family}-")
        def resolve(name: str) -> Architecture:
            encoder = name.removeprefix(f"{family}-")
            if not encoder:
                raise UnknownModelError(unknown(name))
            try:
                with torch.device("meta"):
                    config = configure(encoder, frozen_encoder(encoder))
            except UnknownModelError as error:
                if encoder.startswith("timm/"):
                    raise  # timm's closest names are better than the zoo's
                raise UnknownModelError(unknown(name)) from error

            def make(config: Any) -> Model:
                return build(config)

            make.__doc__ = f"{title} on {encoder}, for images of {config.size} pixels."
            return Architecture(name, family, config, make)

        return configure

    return decorate


def side_for(encoder: Encoder) -> int:
    """Return the side in pixels of the images for a part model on an encoder: 256, or 224 for patches of 14 pixels."""
    step = lcm(encoder.preprocess.multiple, encoder.patch, CELLS)
    return max(SIDE // step, 1) * step
