"""Convert published PartFormer checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partzoo.conversion.backbones import model_over, timm_names, vit_shape
from partzoo.errors import WeightsError
from partzoo.models.part_transformer import PATCH

READS = (
    (
        "PartFormer",
        "`CelebA_K4.pth`, `CUB.pth`, `PartImage.pth`; `model_best.pth`, `final_state.pth`, `checkpoint.pth`",
        "`partformer-vits8`",
    ),
    ("PartFormer from scratch", "a state dict with `stem.`", "`partformer-resnet18`"),
)
CLIP_NAMES = (  # for transformers derived from CLIP's, as in PartFormer and MPAE
    (".ln_pre.", ".norm_pre."),
    (".ln_post.", ".norm."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".ln_", ".norm"),
    (".c_fc.", ".fc1."),
    (".c_proj.", ".fc2."),
)
RENAMED = (
    ("stem.", "encoder."),
    ("compress_layer.", "compress."),
    ("Reconstruct_Block.", "decoder."),
    ("Transformer.transformer.resblocks.", "transformer.blocks."),
    ("Transformer.", "transformer."),
    ("transformer.conv1.", "transformer.patch_embed."),
    *CLIP_NAMES,
)
BACKBONE, STEM = "backbone1.", "stem."
UNUSED = ("ArcMarginProduct.", "stem.fc.")
ARCHITECTURES = {(384, 8, 0): "partformer-vits8"}  # keys are width, patch size and registers of the encoder
CLASSES = 110  # number of classes in PartImageNet, whose models have separate parts for each class


def recognizes(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the parameter names of a PartFormer."""
    return "Transformer.pos_embed" in state and bool({"compress_layer.0.weight", "stem.conv1.weight"} & set(state))


def unused(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors in a published state dict that the model does not use."""
    names = UNUSED if _several(state) else (*UNUSED, "logit_scale")
    return [name for name in state if name.startswith(names)]


def from_published(
    state: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Convert a published model to one of the zoo, background first.

    Args:
        state: the published state dict, unwrapped and without ``module.``; the frozen encoder's tensors may be missing.
        architecture: name of the architecture; None infers it from the encoder's shapes, or uses the paper's
            architecture if the encoder is missing.

    Returns:
        Name of the architecture, the values of its configuration that follow from the shapes, and the state dict with
        this model's names. Models with parts for each class are assumed to have PartImageNet's 110 classes; if the
        number of embeddings is not a multiple of 110, ``parts`` and ``classes`` are omitted.

    Raises:
        WeightsError: the state dict does not come from a PartFormer, or its encoder is unknown.

    The models published for CelebA, CUB and PartImageNet compress features differently; the PartImageNet model also
    uses cosine similarity, has separate parts for each class and upsamples with nearest neighbours.
    """
    several = _several(state)
    embedding = "Transformer.foreground_embedding" if several else "Transformer.class_embedding"
    wanted = {embedding, "Transformer.pos_embed", "Transformer.proj.weight"}
    if missing := (wanted | ({"logit_scale"} if several else set())) - set(state):
        raise WeightsError(
            f"This is not a PartFormer, as it lacks {', '.join(sorted(missing))}: convert a published checkpoint."
        )
    backbone = {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}
    stem = any(name.startswith(STEM) for name in state)
    if architecture is None:
        architecture = "partformer-resnet18" if stem else model_over(backbone, ARCHITECTURES, "PartFormer")
    prefix = 0 if several else state[embedding].shape[1]
    stride = 1 if stem else 2
    size = PATCH * stride * round((state["Transformer.pos_embed"].shape[1] - prefix) ** 0.5)
    config = {
        "compress": _compression(state),
        "dim": len(state["Transformer.proj.weight"]),
        "cosine": several,
        "size": size,
        "stride": stride,
        "upsampling": "nearest" if several else "bilinear",
    }
    if not several:
        config |= {"parts": prefix - 1, "classes": 0}
    elif len(state[embedding]) % CLASSES == 0:
        config |= {"parts": len(state[embedding]) // CLASSES, "classes": CLASSES}
    if layers := [int(name.split(".")[1]) for name in state if name.startswith("Reconstruct_Block.")]:
        patch = 4 if stem else vit_shape(backbone)[1] if backbone else 8
        config["reconstruction"] = 2 ** (max(layers) // 3) * size // patch
    rest = {name: value for name, value in state.items() if not name.startswith((BACKBONE, *UNUSED))}
    encoder = {f"encoder.model.{name}": value for name, value in timm_names(backbone).items()}
    return architecture, config, encoder | renamed(rest)


def _several(state: Mapping[str, Tensor]) -> bool:
    return "Transformer.foreground_embedding" in state


def _compression(state: Mapping[str, Tensor]) -> str:
    if "compress_layer.0.weight" not in state:
        return "none"
    if "compress_layer.3.weight" not in state:
        return "linear"
    return "norm-relu" if "compress_layer.1.weight" in state else "relu-norm"


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published state dict, or of its part transformer alone, to this zoo's names.

    The background comes first, and the positions of part tokens are added to the part embeddings. The scale of cosines
    is left out of models that compare vectors with dot products.
    """
    several = _several(state)
    found = {}
    for name, value in state.items():
        for published, ours in RENAMED:
            name = name.replace(published, ours)
        if name.startswith(("compress.", "decoder.", "encoder.", "transformer.")):
            found[name] = value
    positions = found.pop("transformer.pos_embed")[0]
    if several:
        grounds = [found.pop(f"transformer.{ground}_embedding") for ground in ("background", "foreground")]
        found["transformer.part_embed"] = torch.cat(grounds)
        found["scale"] = state["logit_scale"]
    else:
        parts = found.pop("transformer.class_embedding")[0]
        found["transformer.part_embed"] = (parts + positions[: len(parts)]).roll(1, dims=0)
        positions = positions[len(parts) :]
    return found | {"transformer.positions": positions}
