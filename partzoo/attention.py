"""Show how much each part embedding of a model attends to each patch of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from partzoo.errors import UsageError, counted
from partzoo.features import loaded, model_input, name_of
from partzoo.images.opening import open_image
from partzoo.parts.drawing import palette

if TYPE_CHECKING:
    from torch import Tensor, nn

    from partzoo.models.base import Model
    from partzoo.models.layers import Block
    from partzoo.models.part_transformer import PartTransformer
    from partzoo.system.device import Device

GAP = 4  # pixels between two copies of the image in draw_attention


def part_attention(
    image: Any,
    *,
    model: str | nn.Module,
    layer: int | None = None,
    classes: int | None = None,
    device: Device = None,
) -> np.ndarray:
    """Compute how much each part embedding attends to each patch of an image, averaged over the heads.

    Args:
        image: one image, in any form that :func:`partzoo.images.opening.open_image` accepts.
        model: name of a PartFormer or MPAE model, or the module itself.
        layer: index of a layer of the part transformer, -1 for the last; None averages over all (paper, figure 1).
        classes: class of the image, for a model that has separate parts for each class.
        device: where the model runs, as for :func:`partzoo.load`; a module is moved there, None leaves it where it is.

    Returns:
        ``(K + 1, h, w)`` float32, background first, on the part transformer's grid of patches. The values of a part
        add up to less than one, because part embeddings also attend to each other.

    Raises:
        ImageError: the image cannot be read.
        UsageError: the model has no part embeddings, or the layer or the class does not exist.

    Source: PartFormer, figures 1 and 5.
    """
    import torch

    found = loaded(model, device)
    transformer = _part_transformer(found)
    count = len(transformer.blocks)
    if layer is not None and layer not in range(-count, count):
        raise UsageError(
            f"layer={layer}: the part transformer has {counted(count, 'layer')}, 0..{count - 1} or -{count}..-1."
        )
    blocks = list(transformer.blocks) if layer is None else [transformer.blocks[layer]]
    x = model_input(open_image(image), found)
    chosen = {} if classes is None else {"classes": torch.tensor([classes], device=x.device)}
    projected: list[Tensor] = []
    grid: list[int] = []
    hooks = [block.attn.qkv.register_forward_hook(lambda _, __, values: projected.append(values)) for block in blocks]
    hooks.append(transformer.patch_embed.register_forward_hook(lambda _, __, values: grid.extend(values.shape[-2:])))
    try:
        with torch.inference_mode():
            parts = found.descriptors(x, **chosen).shape[1]
            attention = torch.stack([_of_parts(*pair, parts) for pair in zip(blocks, projected, strict=True)]).mean(0)
    finally:
        for hook in hooks:
            hook.remove()
    return attention[:, parts:].unflatten(1, grid).cpu().numpy()


def draw_attention(image: Any, maps: np.ndarray, *, side: int = 128) -> Image.Image:
    """Draw the maps of :func:`part_attention` over the image, one copy of the image per map.

    Args:
        image: one image, in any form that :func:`partzoo.images.opening.open_image` accepts.
        maps: ``(K + 1, h, w)``; each is scaled by its largest value and drawn in the part's colour, the background in
            white.
        side: longer side of each copy, in pixels.

    Returns:
        RGB PIL image of the K + 1 copies side by side, background first.
    """
    pixels = open_image(image).pixels
    scale = side / max(pixels.shape[:2])
    height, width = (max(round(length * scale), 1) for length in pixels.shape[:2])
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((width, height)), np.float32)[..., None] * 0.6
    colours = palette(len(maps) - 1).astype(np.float32)
    colours[0] = 255
    page = Image.new("RGB", (len(maps) * (width + GAP) - GAP, height), "white")
    for number, (each, colour) in enumerate(zip(maps, colours, strict=True)):
        scaled = Image.fromarray(np.float32(each / max(each.max(), 1e-12)))
        strength = np.asarray(scaled.resize((width, height), Image.Resampling.BILINEAR))[..., None]
        tile = grey * (1 - strength) + colour * strength
        page.paste(Image.fromarray(tile.astype(np.uint8)), (number * (width + GAP), 0))
    return page


def _of_parts(block: Block, projected: Tensor, parts: int) -> Tensor:
    """Compute the part tokens' attention to all tokens, averaged over heads: ``(K + 1, N)`` from ``(1, N, 3 C)``."""
    queries, keys, _ = projected[0].float().unflatten(1, (3, block.attn.num_heads, -1)).permute(1, 2, 0, 3)
    return (block.attn.scale * queries[:, :parts] @ keys.mT).softmax(-1).mean(0)


def _part_transformer(model: Model) -> PartTransformer:
    from partzoo.models.mpae.model import Mpae
    from partzoo.models.partformer.model import PartFormer

    if isinstance(model, PartFormer):
        return model.transformer
    if isinstance(model, Mpae):
        return model.extractor
    raise UsageError(f"{name_of(model)} has no part embeddings: pass a PartFormer or an MPAE.")
