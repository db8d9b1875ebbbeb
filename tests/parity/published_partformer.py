"""Published PartFormer state dicts, drawn by name."""

from functools import cache

import torch
from parity.published_mpae import block, drawn, linear, norm

CLASSES = 110  # of PartImageNet
COMPRESSIONS = {"celeba": (1, 4), "cub": (2, 5), "partimage": ()}  # places of its batch norms


def vit_shapes(width=384, patch=8, side=28, depth=12):
    """Names and shapes of DINO's transformers."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + side**2, width)} | norm("norm", width)
    shapes |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        shapes |= block(f"blocks.{i}", width)
    return shapes


def transformer_shapes(parts, classes=0):
    """Names and shapes of the part transformer."""
    shapes = {"conv1.weight": (256, 3, 16, 16), "proj.weight": (64, 256)} | norm("ln_pre", 256) | norm("ln_post", 256)
    if classes:
        shapes |= {"foreground_embedding": (classes * parts, 256), "background_embedding": (1, 256)}
        shapes |= {"pos_embed": (1, 64, 256)}
    else:
        shapes |= {"class_embedding": (1, parts + 1, 256), "pos_embed": (1, parts + 65, 256)}
    for i in range(6):
        at = f"transformer.resblocks.{i}"
        shapes |= {f"{at}.attn.in_proj_weight": (768, 256), f"{at}.attn.in_proj_bias": (768,)}
        shapes |= linear(f"{at}.attn.out_proj", 256, 256) | norm(f"{at}.ln_1", 256) | norm(f"{at}.ln_2", 256)
        shapes |= linear(f"{at}.mlp.c_fc", 1024, 256) | linear(f"{at}.mlp.c_proj", 256, 1024)
    return {f"Transformer.{name}": shape for name, shape in shapes.items()}


def decoder_shapes():
    shapes = {f"{i}.0.weight": (64, 64, 3, 3) for i in (0, 1, 3, 4, 6)} | {"7.weight": (3, 64, 1, 1), "7.bias": (3,)}
    for i in (0, 1, 3, 4, 6):
        shapes |= norm(f"{i}.1", 64)
    return {f"Reconstruct_Block.{name}": shape for name, shape in shapes.items()}


def compression_shapes(variant):
    places = COMPRESSIONS[variant]
    widths = (256, 128, 64) if places else (64,)
    shapes = {}
    for i, (inputs, width) in enumerate(zip((384, *widths), widths, strict=False)):
        shapes |= {f"{3 * i}.weight": (width, inputs, 1, 1), f"{3 * i}.bias": (width,)}
    for at, width in zip(places, widths, strict=False):
        shapes |= norm(str(at), width) | {f"{at}.running_{moment}": (width,) for moment in ("mean", "var")}
        shapes |= {f"{at}.num_batches_tracked": ()}
    return {f"compress_layer.{name}": shape for name, shape in shapes.items()}


@cache
def shapes_of(variant, parts=4):
    """Names and shapes of a whole published model: ``"celeba"``, ``"cub"`` or ``"partimage"``."""
    classes = CLASSES if variant == "partimage" else 0
    shapes = {"logit_scale": (), "ArcMarginProduct.weight": (parts * max(classes, 1), 64)}
    shapes |= {f"backbone1.{name}": shape for name, shape in vit_shapes().items()}
    return shapes | compression_shapes(variant) | decoder_shapes() | transformer_shapes(parts, classes)


def published(variant, parts=4):
    """A published model's state dict with drawn weights."""
    state = drawn(shapes_of(variant, parts))
    return state | ({"logit_scale": torch.tensor(12.0)} if variant == "partimage" else {})
