"""Convert DINO, DINOv2, MAE and MoCo v3 backbones to timm's parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partzoo.errors import WeightsError

READS = (
    (
        "DINO, DINOv2",
        "backbones, and training checkpoints (the teacher is converted)",
        "`dino-vits8`, `dinov2-vitb14reg`, ...; `timm/...` where the zoo has no short name",
    ),
    (
        "MAE",
        "`mae_pretrain_vit_base.pth` and the large and huge ones, with and without decoder",
        "`mae-vitb16`, `timm/vit_large_patch16_224.mae`, `timm/vit_huge_patch14_224.mae`",
    ),
    ("MoCo v3", "`vit-b-300ep.pth.tar`; training checkpoints (the base encoder is converted)", "`mocov3-vitb16`"),
)
ARCHITECTURES = {  # keys are width, patch size and number of registers
    (384, 8, 0): "dino-vits8",
    (384, 16, 0): "dino-vits16",
    (768, 8, 0): "dino-vitb8",
    (384, 14, 0): "dinov2-vits14",
    (768, 14, 0): "timm/vit_base_patch14_dinov2.lvd142m",
    (1024, 14, 0): "timm/vit_large_patch14_dinov2.lvd142m",
    (1536, 14, 0): "timm/vit_giant_patch14_dinov2.lvd142m",
    (384, 14, 4): "timm/vit_small_patch14_reg4_dinov2.lvd142m",
    (768, 14, 4): "dinov2-vitb14reg",
    (1024, 14, 4): "timm/vit_large_patch14_reg4_dinov2.lvd142m",
    (1536, 14, 4): "timm/vit_giant_patch14_reg4_dinov2.lvd142m",
}
MAE = {
    (768, 16, 0): "mae-vitb16",
    (1024, 16, 0): "timm/vit_large_patch16_224.mae",
    (1280, 14, 0): "timm/vit_huge_patch14_224.mae",
}
MOCO = {(768, 16, 0): "mocov3-vitb16"}
MOCO_SMALL = 384  # width of MoCo v3's ViT-S; its 12 heads cannot be inferred from the shapes
RENAMED = ((re.compile(r"^blocks\.\d+\.(\d+\.)"), r"blocks.\1"), (re.compile(r"\.w12\."), ".fc1."),
           (re.compile(r"\.w3\."), ".fc2."))  # fmt: skip
OF_MOCO = "base_encoder."
WRAPPED = ("backbone.", OF_MOCO)  # prefixes in training checkpoints, which also hold heads and MoCo's other networks
PROJECTION = f"{OF_MOCO}head."
UNUSED = ("mask_token", "decoder_", "head.", "dino_head.", "ibot_head.")


def recognizes(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the parameter names of a DINO, DINOv2, MAE or MoCo v3 backbone."""
    bare = _bare(state)
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight"} <= set(bare) and not (
        any(name.startswith(("head.", "fc_norm.", "reg_token")) for name in bare)
    )


def from_published(
    state: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert a published backbone to an encoder of the zoo.

    Args:
        state: the published state dict; names may begin with ``backbone.`` or ``base_encoder.``; heads, MAE's decoder
            and MoCo's momentum encoder are left out.
        architecture: name of the encoder; None infers it from the shapes.

    Returns:
        Name of the architecture, an empty configuration, and the state dict with the encoder's names.

    Raises:
        WeightsError: the backbone is unknown.
    """
    bare = _bare(state)
    shape, known = vit_shape(bare), MOCO if _prefix(state) == OF_MOCO else _known(bare)
    if known is MOCO and shape[0] == MOCO_SMALL:
        raise WeightsError(
            "This is MoCo v3's ViT-S with 12 heads, which the zoo does not have: convert MoCo v3's ViT-B."
        )
    if architecture is None:
        if shape not in known:
            raise WeightsError(
                f"This backbone is {described(shape)}, which fits several encoders or none: name the encoder with "
                "architecture=, for example 'mae-vitb16' or 'timm/vit_base_patch16_224.dino'."
            )
        architecture = known[shape]
    return architecture, {}, {f"model.{name}": value for name, value in timm_names(bare).items()}


def unused(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors in a published state dict that the encoder does not use."""
    prefix = _prefix(state)
    left_out = (*(prefix + name for name in UNUSED), PROJECTION)
    return [name for name in state if not name.startswith(prefix) or name.startswith(left_out)]


def vit_shape(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Return the width, patch size in pixels, and number of registers of a bare backbone."""
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    return width, patch, state["register_tokens"].shape[1] if "register_tokens" in state else 0


def model_over(backbone: Mapping[str, Tensor], known: Mapping[tuple[int, int, int], str], family: str) -> str:
    """Return the name of the part model on a backbone with this :func:`vit_shape`; for None, the first known.

    Raises:
        WeightsError: no known model is built on such a backbone.
    """
    shape = vit_shape(backbone) if backbone else next(iter(known))
    if shape not in known:
        raise WeightsError(
            f"This {family}'s encoder is {described(shape)}, which is unknown: name the model and its encoder with "
            "architecture= and encoder=."
        )
    return known[shape]


def described(shape: tuple[int, int, int]) -> str:
    """Describe the result of :func:`vit_shape` in words."""
    width, patch, registers = shape
    return f"a ViT {width} wide, with patches of {patch} pixels and {registers} registers"


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a bare backbone to timm's names; with registers, add the class token's position to the token."""
    found = {}
    for name, value in state.items():
        if not name.startswith(UNUSED):
            for published, ours in RENAMED:
                name = published.sub(ours, name)
            found[name] = value
    if "register_tokens" in found:
        found["reg_token"] = found.pop("register_tokens")
        table = found["pos_embed"]
        found["cls_token"] = found["cls_token"] + table[:, :1]
        found["pos_embed"] = table[:, 1:]
    return found


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = _prefix(state)
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.startswith(PROJECTION)
    }


def _prefix(state: Mapping[str, Tensor]) -> str:
    return next((prefix for prefix in WRAPPED if f"{prefix}patch_embed.proj.weight" in state), "")


def _known(bare: Mapping[str, Tensor]) -> Mapping[tuple[int, int, int], str]:
    """Return the architectures that have a backbone of these shapes.

    MAE and MoCo v3 have fixed sine positions, which are zero for the class token. The first quarter of the channels
    holds the sines of the column in MAE and of the row in MoCo, so these channels at the second patch of the first row
    distinguish the two.
    """
    table = bare["pos_embed"]
    if any(name.startswith("decoder_") for name in bare):
        return MAE
    if table.is_meta or table[:, 0].any():
        return ARCHITECTURES
    return MAE if table[0, 2, : table.shape[2] // 4].any() else MOCO
