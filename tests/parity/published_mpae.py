"""Published MPAE state dicts, drawn by name, and in timm what the tiny cases' frozen encoder is."""

from functools import cache

import numpy as np
import torch
from parity.synthetic import image as synthetic_image
from parity.synthetic import parameter
from timm.models import build_model_with_cfg, register_model
from timm.models.vision_transformer import VisionTransformer

import partzoo
from partzoo.images.preprocess import Preprocess

TINY = {"width": 64, "depth": 2, "registers": 4, "grid": 10}
BASE = {"width": 768, "depth": 12, "registers": 4, "grid": 37}
TINY_CONFIG = {"heads": 4, "masked_heads": 2, "decoder_heads": 1}
TINY_ENCODER = "timm/vit_partzoo_test_patch14_reg4"


@register_model
def vit_partzoo_test_patch14_reg4(pretrained=False, **kwargs):
    shape = {"img_size": 140, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 4, "reg_tokens": 4}
    options = {"init_values": 1e-5, "no_embed_class": True}
    return build_model_with_cfg(
        VisionTransformer, "vit_partzoo_test_patch14_reg4", pretrained, **shape, **options, **kwargs
    )


def linear(name, outputs, inputs, bias=True):
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name, width, scaled=False):
    shapes = norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
    shapes |= linear(f"{name}.attn.qkv", 3 * width, width) | linear(f"{name}.attn.proj", width, width)
    shapes |= linear(f"{name}.mlp.fc1", 4 * width, width) | linear(f"{name}.mlp.fc2", width, 4 * width)
    return shapes | ({f"{name}.ls1.gamma": (width,), f"{name}.ls2.gamma": (width,)} if scaled else {})


def backbone_shapes(width, depth, registers, grid):
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width), "mask_token": (1, width)}
    shapes |= {"register_tokens": (1, registers, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)} | norm("norm", width)
    for i in range(depth):
        shapes |= block(f"blocks.{i}", width, scaled=True)
    return {f"backbone1.{name}": shape for name, shape in shapes.items()}


def extractor_shapes(parts, side, width=256, depth=6, dim=256):
    shapes = {"class_embedding": (1, parts + 1, width), "pos_embed": (1, parts + 1 + side**2, width)}
    shapes |= {"conv1.weight": (width, 3, 14, 14), "proj.weight": (dim, width)}
    shapes |= norm("ln_pre", width) | norm("ln_post", width)
    for i in range(depth):
        at = f"transformer.resblocks.{i}"
        shapes |= {f"{at}.attn.in_proj_weight": (3 * width, width), f"{at}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{at}.attn.out_proj", width, width) | norm(f"{at}.ln_1", width) | norm(f"{at}.ln_2", width)
        shapes |= linear(f"{at}.mlp.c_fc", 4 * width, width) | linear(f"{at}.mlp.c_proj", width, 4 * width)
    return {f"Transformer.{name}": shape for name, shape in shapes.items()}


def decoder_shapes(side, width=256, depth=2, dim=256):
    shapes = {"cls_token": (1, 1, width), "mask_token": (1, 1, dim)}
    shapes |= {"pos_embed": (1, side**2, width), "decoder_pos_embed": (1, side**2, dim)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    shapes |= norm("norm", width) | norm("decoder_norm", dim)
    shapes |= linear("decoder_embed", dim, width) | linear("decoder_pred", 192, dim)
    for i in range(depth):
        shapes |= block(f"blocks.{i}", width) | block(f"decoder_blocks.{i}", dim)
    return {f"Decoder.{name}": shape for name, shape in shapes.items()}


def drawn(shapes):
    """Weights of a state dict, by the rule of the parity cases."""
    return {name: torch.from_numpy(np.asarray(parameter(name, shape))) for name, shape in shapes.items()}


@cache
def shapes_of(size):
    """Names and shapes of a whole published model: ``"tiny"``, or ``(K, S)`` of a real one."""
    if size == "tiny":
        shapes = backbone_shapes(**TINY) | extractor_shapes(4, 8, 64, 2, 64) | decoder_shapes(8, 32, 1, 64)
        return shapes | {"compress_layer.weight": (64, 64, 1, 1), "ArcMarginProduct.weight": (4, 64)}
    parts, side = size[0], size[1] // 14
    shapes = backbone_shapes(**BASE) | extractor_shapes(parts, side) | decoder_shapes(side)
    return shapes | {"compress_layer.weight": (256, 768, 1, 1), "ArcMarginProduct.weight": (parts, 256)}


def converted(size):
    """A published model with drawn weights, as one of the zoo."""
    tiny = {"architecture": "mpae-vitb14reg", "encoder": TINY_ENCODER} | TINY_CONFIG
    return partzoo.convert(drawn(shapes_of(size)), device="cpu", dtype="float32", **(tiny if size == "tiny" else {}))


def image(name, shape):
    """A drawn image as a published model takes it."""
    return Preprocess().normalize(255 * torch.from_numpy(synthetic_image(name, shape)))
