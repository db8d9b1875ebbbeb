"""DINO's and DINOv2's own checkpoints under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partzoo.errors import WeightsError

ARCHITECTURES = {  # by width, patch and registers
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
RENAMED = ((re.compile(r"^blocks\.\d+\.(\d+\.)"), r"blocks.\1"), (re.compile(r"\.w12\."), ".fc1."),
           (re.compile(r"\.w3\."), ".fc2."))  # fmt: skip
WRAPPED = "backbone."  # in training checkpoints, beside the heads
UNUSED = ("mask_token", "head.", "dino_head.", "ibot_head.")


def recognizes(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of a DINO or DINOv2 backbone."""
    bare = _bare(state)
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight"} <= set(bare) and not (
        any(name.startswith(("head.", "fc_norm.", "reg_token")) for name in bare)
    )


def from_published(
    state: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A published backbone as an encoder of the zoo.

    Args:
        state: the published state dict; names may begin with ``backbone.``, and heads are left out.
        architecture: which encoder it is; None tells by the shapes.

    Returns:
        The architecture, no values of its configuration, and the state dict under the encoder's names.

    Raises:
        WeightsError: it is none that is known.
    """
    bare = _bare(state)
    if architecture is None:
        shape = vit_shape(bare)
        if shape not in ARCHITECTURES:
            raise WeightsError(
                f"This backbone is {described(shape)}, which fits several encoders or none: say with architecture= "
                "which one of the zoo it is, for example 'mae-vitb16' or 'timm/vit_base_patch16_224.dino'."
            )
        architecture = ARCHITECTURES[shape]
    return architecture, {}, {f"model.{name}": value for name, value in timm_names(bare).items()}


def unused(state: Mapping[str, Tensor]) -> list[str]:
    """Names of a published state dict that have no place in the encoder."""
    return [name for name in state if name.removeprefix(WRAPPED).startswith(UNUSED)]


def vit_shape(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Width, patch in pixels, and registers of a bare backbone."""
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    return width, patch, state["register_tokens"].shape[1] if "register_tokens" in state else 0


def model_over(backbone: Mapping[str, Tensor], known: Mapping[tuple[int, int, int], str], family: str) -> str:
    """The part model over a bare backbone, by what :func:`vit_shape` finds; the first where the backbone is missing.

    Raises:
        WeightsError: none of the known is over such a backbone.
    """
    shape = vit_shape(backbone) if backbone else next(iter(known))
    if shape not in known:
        raise WeightsError(
            f"This {family}'s encoder is {described(shape)}: say with architecture= and encoder= which one of the zoo "
            "it is."
        )
    return known[shape]


def described(shape: tuple[int, int, int]) -> str:
    """What :func:`vit_shape` found, in words."""
    width, patch, registers = shape
    return f"a ViT {width} wide, with patches of {patch} pixels and {registers} registers"


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A bare backbone under timm's names; with registers, the class token's position becomes part of the token."""
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
    if f"{WRAPPED}patch_embed.proj.weight" not in state:
        return dict(state)
    return {name.removeprefix(WRAPPED): value for name, value in state.items() if name.startswith(WRAPPED)}
