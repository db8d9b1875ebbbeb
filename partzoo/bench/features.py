"""Time ViT-S and ViT-B features: our encoder in each precision against timm in eager float32.

The weights are random, and the same on both sides. For the part agreement, the peer's tokens are clustered into
eight directions; the agreement is the share of pixels for which the similarity maps of both sides, upsampled to the
image, have their maximum at the same direction. With random weights the directions are close together, so the agreement
with trained weights (the last case, if there are any) means more.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import timm
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate, normalize

from partzoo.bench.photograph import photograph
from partzoo.bench.runner import Case
from partzoo.discovery.cluster import spherical_kmeans
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens
from partzoo.models.loading import load
from partzoo.models.precision import Precision, has_amx, has_bf16, set_precision
from partzoo.models.registry import list_models
from partzoo.system.device import Device, device_of

SIDE, PARTS = 224, 8
TRAINED = "part-vitt8"
AUTOCAST = "bfloat16 autocast"


def cases(quick: bool = False, device: Device = None) -> list[Case]:
    """Return a case for every precision that is faster on this machine, with batches of four images of 224 pixels.

    There are cases for the CPU and, if the device is another one, for that device.
    """
    devices = list(dict.fromkeys([torch.device("cpu"), device_of(device)]))
    names = ["test_vit"] if quick else ["vit_small_patch16_224", "vit_base_patch16_224"]
    found = []
    for name in names:
        torch.manual_seed(0)
        theirs = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
        ours = cast(Encoder, load(f"timm/{name}", pretrained=False, device="cpu", dtype="float32"))
        ours.model.load_state_dict(theirs.state_dict())
        x = _images(ours.preprocess, 64 if quick else SIDE)
        for place in devices:
            peer = deepcopy(theirs).to(place).forward_features
            found += _against(name, deepcopy(ours).to(place), peer, x.to(place), "timm, float32, eager")
    if not quick and any(trained.startswith(f"{TRAINED}.") for trained in list_models(pretrained=True)):
        encoder = cast(Encoder, load(TRAINED, device="cpu", dtype="float32"))
        x = _images(encoder.preprocess, SIDE)
        found += _against(f"{TRAINED} (trained)", encoder, encoder.forward_features, x, "itself, float32")[1:]
    return found


def _precisions(device: torch.device) -> dict[str, float | None]:
    """Return the precisions to measure on a device, each with its target ratio."""
    on_cpu = device.type == "cpu"
    int8 = {"int8": None if has_amx() else 2.0} if on_cpu else {}
    bfloat16 = {AUTOCAST: 3.0 if on_cpu and has_amx() else None} if has_bf16(device) else {}
    return {"float32": 1.0} | int8 | bfloat16


def converted(encoder: Encoder, precision: str, device: torch.device) -> Encoder:
    """Copy an encoder to a device, in a precision given by its name in this module."""
    model = set_precision(deepcopy(encoder), cast(Precision, "float32" if precision == AUTOCAST else precision), device)
    if precision == AUTOCAST:
        model.autocast = torch.bfloat16
    return model


def _against(name: str, encoder: Encoder, theirs, x: Tensor, peer_is: str) -> list[Case]:
    place = "" if x.device.type == "cpu" else f" on {x.device.type}"
    peer = torch.inference_mode()(lambda: theirs(x))
    found = []
    for precision, target in _precisions(x.device).items():
        model = converted(encoder, precision, x.device)
        ours = torch.inference_mode()(lambda model=model: model.forward_features(x))
        facts = {"batch": len(x), "side": x.shape[-1], **agreement(model, encoder, x)}
        if precision == "float32":
            facts["largest_difference"] = (ours() - peer()).abs().max().item()
        found.append(
            Case(
                f"features, {name}, {precision}{place}",
                ours=ours,
                peer=peer,
                ours_is=f"our encoder, {precision}",
                peer_is=peer_is,
                target=target,
                items=len(x),
                facts=facts,
            )
        )
    return found


@torch.inference_mode()
def agreement(model: Encoder, reference: Encoder, x: Tensor) -> dict[str, Any]:
    """Compare both sides: the mean cosine between their patch tokens, and the share of pixels with the same part."""
    mine, true = model.encode(x), reference.encode(x)
    centres = spherical_kmeans(true.patch.flatten(0, 1), PARTS, seed=0).centres
    same = _parts(mine, centres, x) == _parts(true, centres, x)
    return {
        "cosine": round(cosine_similarity(mine.patch.float(), true.patch, dim=-1).mean().item(), 6),
        "part_agreement_percent": round(100 * same.float().mean().item(), 3),
    }


def _parts(tokens: Tokens, centres: Tensor, x: Tensor) -> Tensor:
    maps = normalize(tokens.patch.float(), dim=-1) @ centres.T
    maps = maps.transpose(1, 2).unflatten(2, tokens.grid)
    return interpolate(maps, x.shape[-2:], mode="bilinear", align_corners=False).argmax(1)


def _images(preprocess: Preprocess, side: int) -> Tensor:
    """Cut the photograph into four quarters and normalize them."""
    pixels = torch.from_numpy(photograph(2 * side)[0].copy()).permute(2, 0, 1)
    quarters = pixels.unflatten(1, (2, side)).unflatten(3, (2, side)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return preprocess.normalize(quarters)
