"""Published MPAE checkpoints under this zoo's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from partzoo.errors import WeightsError

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
    (".ln_pre.", ".norm_pre."),
    (".ln_post.", ".norm."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".ln_", ".norm"),
    (".c_fc.", ".fc1."),
    (".c_proj.", ".fc2."),
)
UNUSED = ("ArcMarginProduct.weight", "Decoder.cls_token", "Decoder.mask_token", "backbone1.mask_token")
ARCHITECTURES = {(768, 14, 4): "mpae-vitb14reg"}  # by width, patch and registers of the encoder


def from_published(
    state: dict[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A published model as one of the zoo, background first.

    Args:
        state: the published state dict, bare and without ``module.``; the encoder's part may be missing.
        architecture: whose encoder is meant; None tells by the shapes, and a state without encoder is the paper's.

    Returns:
        The architecture, the values of its configuration that the shapes say (heads are not among them), and the state
        dict under this model's names.

    Raises:
        WeightsError: it is no MPAE, or its encoder is none that is known.
    """
    missing = {"Transformer.class_embedding", "Transformer.pos_embed", "compress_layer.weight"} - set(state)
    if missing:
        raise WeightsError(f"This is no MPAE: it has no {', '.join(sorted(missing))}.")
    kept = {name: value for name, value in state.items() if name not in UNUSED}
    parts = kept["Transformer.class_embedding"].shape[1]
    width, _, patch, _ = kept["Transformer.conv1.weight"].shape
    if architecture is None:
        architecture = _architecture(kept)
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
    found = {}
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
    if "encoder.model.register_tokens" in found:
        table = found["encoder.model.pos_embed"]
        found["encoder.model.cls_token"] = found["encoder.model.cls_token"] + table[:, :1]
        found["encoder.model.pos_embed"] = table[:, 1:]
        found["encoder.model.reg_token"] = found.pop("encoder.model.register_tokens")
    return architecture, config, found


def _architecture(state: dict[str, Tensor]) -> str:
    if "backbone1.patch_embed.proj.weight" not in state:
        return ARCHITECTURES[768, 14, 4]
    width, _, patch, _ = state["backbone1.patch_embed.proj.weight"].shape
    registers = state["backbone1.register_tokens"].shape[1] if "backbone1.register_tokens" in state else 0
    try:
        return ARCHITECTURES[width, patch, registers]
    except KeyError:
        raise WeightsError(
            f"This MPAE's encoder is a ViT {width} wide, with patches of {patch} pixels and {registers} registers: "
            "say with architecture= which one of the zoo it is."
        ) from None


def _depth(state: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
