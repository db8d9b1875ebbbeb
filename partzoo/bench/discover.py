"""Time ``discover_parts`` on one photograph, against the encoder's forward pass, which it cannot avoid.

The model is loaded beforehand on both sides. Our side takes pixels and returns finished ``Parts``, with labels at the
image's original size.
"""

from __future__ import annotations

from typing import cast

import torch

from partzoo.bench.photograph import photograph
from partzoo.bench.runner import Case
from partzoo.discovery.factory import default_size
from partzoo.discovery.pipeline import discover_parts
from partzoo.features import DEFAULT_MODEL
from partzoo.images.opening import open_image
from partzoo.images.preprocess import to_tensor, working_size
from partzoo.models.loading import load
from partzoo.parts.parts import Parts
from partzoo.system.device import Device


def cases(quick: bool = False, device: Device = None) -> list[Case]:
    """Return one case: a 448 px photograph, eight parts and the bundled default model."""
    name, side = ("toy-vit", 64) if quick else (DEFAULT_MODEL, 448)
    encoder = load(name, device=device)
    pixels, what = photograph(side)
    image = open_image(pixels)
    working = working_size(image.size, default_size(encoder), encoder.preprocess.multiple)
    x = to_tensor(image, working, encoder.preprocess)[None].to(next(encoder.parameters()).device)

    def ours():
        return cast(Parts, discover_parts(pixels, k=8, model=encoder)).labels

    facts = {
        "image": what,
        "working_size": list(working),
        "parts_found": int(ours().max()),
        "target_seconds": 1.0,
    }
    return [
        Case(
            f"discover_parts, {name}, {side} px",
            ours=ours,
            peer=torch.inference_mode()(lambda: encoder(x)),
            ours_is="discover_parts(pixels, k=8), model loaded",
            peer_is=f"{name}'s forward at {working[0]} x {working[1]} px",
            target=1.5,
            measure="cost",
            items=1,
            facts=facts,
        )
    ]
