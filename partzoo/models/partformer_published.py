"""Published PartFormer checkpoints under this zoo's names."""

from __future__ import annotations

import torch
from torch import Tensor

RENAMED = (
    ("backbone1.", "encoder.model."),
    ("stem.", "encoder."),
    ("compress_layer.", "compress."),
    ("Reconstruct_Block.", "decoder."),
    ("Transformer.transformer.resblocks.", "transformer.blocks."),
    ("Transformer.", "transformer."),
    ("transformer.conv1.", "transformer.patch_embed."),
    (".ln_pre.", ".norm_pre."),
    (".ln_post.", ".norm."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".ln_", ".norm"),
    (".c_fc.", ".fc1."),
    (".c_proj.", ".fc2."),
)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published model's state dict, or a part of one with the part transformer, under this zoo's names.

    The background comes first, and the rows of the position table that belong to part tokens are added to the part
    embeddings. Left out: the vectors of the consistency loss, and the scale of cosines where similarities are dot
    products.
    """
    several = "Transformer.foreground_embedding" in state
    found = {}
    for name, value in state.items():
        for published, ours in RENAMED:
            name = name.replace(published, ours)
        if name.startswith(("compress.", "decoder.", "encoder.", "transformer.")):
            found[name] = value
    positions = found.pop("transformer.pos_embed")[0]
    if several:
        parts = [found.pop(f"transformer.{ground}_embedding") for ground in ("background", "foreground")]
        found["transformer.part_embed"] = torch.cat(parts)
        found["scale"] = state["logit_scale"]
    else:
        parts = found.pop("transformer.class_embedding")[0]
        found["transformer.part_embed"] = (parts + positions[: len(parts)]).roll(1, dims=0)
        positions = positions[len(parts) :]
    return found | {"transformer.positions": positions}
