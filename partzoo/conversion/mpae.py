"""Convert published MPAE checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partzoo.conversion.backbones import model_over, timm_names
from partzoo.conversion.partformer import CLIP_NAMES
from partzoo.errors import WeightsError

READS = (
    (
        "MPAE",
        "`CelebA_K16.pth`, `CUB_K16.pth`, `PartImage_O_K50.pth`, `PartImage_S_K50.pth`; training checkpoints as for "
        "PartFormer",
        "`mpae-vitb14reg`",
    ),
)
RENAMED = (
    ("backbone1.", "encoder.model."),
    ("compress_layer.", "compress."),
    ("Transformer.transformer.resblocks.", "extractor.blocks."),
    ("Transformer.", "extractor."),
    ("Decoder.patch_embed.proj.", "Decoder.patch_embed."),
    ("Decoder.pos_embed", "Decoder.positions"),
    ("Decoder.decoder_pos_embed", "Decoder.decoder_positions"),
    ("Decoder.decoder_pred.", "Decoder.head."),
    ("Decoder.", "autoencoder."),
    ("extractor.conv1.", "extractor.patch_embed."),
    *CLIP_NAMES,
)
BACKBONE = "backbone1."
UNUSED = ("ArcMarginProduct.weight", "Decoder.cls_token", "Decoder.mask_token", "backbone1.mask_token")
ARCHITECTURES = {(768, 14, 4): "mpae-vitb14reg"}  # keys are width, patch size and registers of the encoder


def recognizes(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the parameter names of an MPAE."""
    return "Transformer.pos_embed" in state and ("compress_layer.weight" in state or "Decoder.pos_embed" in state)


def unused(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors in a published state dict that the model does not use."""
    return [name for name in state if name in UNUSED]


def from_published(
    state: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert a published model to one of the zoo, background first.

    Args:
        state: the published state dict, unwrapped and without ``module.``; the encoder's tensors may be missing.
        architecture: name of the architecture; None infers it from the encoder's shapes, or uses the paper's
            architecture if the encoder is missing.

    Returns:
        Name of the architecture, the configuration values that follow from the shapes (the number of heads does not),
        and the state dict with this model's names.

    Raises:
        WeightsError: the state dict does not come from an MPAE, or its encoder is unknown.
    """
    missing = {"Transformer.class_embedding", "Transformer.pos_embed", "compress_layer.weight"} - set(state)
    if missing:
        raise WeightsError(
            f"This is not an MPAE, as it lacks {', '.join(sorted(missing))}: convert a published checkpoint."
        )
    backbone = {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}
    kept = {n: value for n, value in state.items() if n not in UNUSED and not n.startswith(BACKBONE)}
    parts = kept["Transformer.class_embedding"].shape[1]
    width, _, patch, _ = kept["Transformer.conv1.weight"].shape
    if architecture is None:
        architecture = model_over(backbone, ARCHITECTURES, "MPAE")
    config = {
        "parts": parts - 1,
        "size": patch * round((kept["Transformer.pos_embed"].shape[1] - parts) ** 0.5),
        "dim": len(kept["compress_layer.weight"]),
        "width": width,
        "depth": _depth(kept, "Transformer.transformer.resblocks."),
    }
    if "Decoder.decoder_pred.bias" in kept:
        config |= {
            "masked_width": len(kept["Decoder.patch_embed.proj.weight"]),
            "masked_depth": _depth(kept, "Decoder.blocks."),
            "decoder_depth": _depth(kept, "Decoder.decoder_blocks."),
            "restored": round((len(kept["Decoder.decoder_pred.bias"]) / 3) ** 0.5),
        }
    found = {f"encoder.model.{name}": value for name, value in timm_names(backbone).items()}
    for name, value in kept.items():
        for published, ours in RENAMED:
            name = name.replace(published, ours)
        found[name] = value
    embedding = found.pop("extractor.class_embedding")[0]
    table = found.pop("extractor.pos_embed")[0]
    found["extractor.part_embed"] = embedding.roll(1, dims=0)
    found["extractor.positions"] = torch.cat([table[:parts].roll(1, dims=0), table[parts:]])
    for name in ("autoencoder.positions", "autoencoder.decoder_positions"):
        if name in found:
            found[name] = found[name][0]
    return architecture, config, found


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
