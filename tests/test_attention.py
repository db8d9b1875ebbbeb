import numpy as np
import pytest
import torch
from PIL import Image

from partzoo import UsageError, draw_attention, part_attention
from partzoo.features import model_input
from partzoo.images.opening import OpenedImage
from partzoo.models.loading import build
from partzoo.models.registry import find

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 100, 3)).astype(np.uint8)
SMALL = {
    "partformer-resnet18": {"parts": 3, "size": 64, "reconstruction": 32},
    "mpae-patchresnet14": {
        "parts": 3, "size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2, "masked_width": 32, "masked_heads": 2,
        "decoder_heads": 2,
    },
}  # fmt: skip
GRIDS = {"partformer-resnet18": (3, 4), "mpae-patchresnet14": (6, 8)}


def small(name, **config):
    torch.manual_seed(0)
    entry = find(name)
    model = build(entry, entry.configure(SMALL[name] | config)).eval().requires_grad_(False)
    transformer = model.transformer if name.startswith("partformer") else model.extractor
    torch.nn.init.normal_(transformer.part_embed)
    return model, transformer


def by_hand(block, tokens):
    """Attention ``(heads, N, N)`` of a block for the tokens ``(1, N, C)`` that enter it."""
    heads = block.attn.num_heads
    q, k, _ = block.attn.qkv(block.norm1(tokens))[0].chunk(3, dim=1)
    q, k = (each.unflatten(1, (heads, -1)).transpose(0, 1) for each in (q, k))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_it_is_what_the_part_embeddings_look_at(name, fused):
    model, transformer = small(name)
    entered = []
    for block in transformer.blocks:
        block.attn.fused_attn = fused
        block.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    model.descriptors(model_input(OpenedImage(IMAGE), model))
    expected = [by_hand(*pair).mean(0)[:4, 4:] for pair in zip(transformer.blocks, entered, strict=True)]
    for layer in (0, -1):
        found = part_attention(IMAGE, model=model, layer=layer)
        assert found.shape == (4, *GRIDS[name]) and found.dtype == np.float32
        np.testing.assert_allclose(found.reshape(4, -1), expected[layer], atol=1e-5)
    found = part_attention(IMAGE, model=model)
    np.testing.assert_allclose(found.reshape(4, -1), torch.stack(expected).mean(0), atol=1e-5)
    assert (found > 0).all() and (found.sum((1, 2)) < 1).all()


def test_nothing_stays_hooked():
    model, transformer = small("partformer-resnet18")
    part_attention(IMAGE, model=model)
    assert not any(module._forward_hooks for module in transformer.modules())


def test_of_several_classes_one_is_named():
    model, _ = small("partformer-resnet18", classes=2)
    found = [part_attention(IMAGE, model=model, classes=number) for number in (0, 1)]
    assert found[0].shape == (4, 3, 4) and not np.allclose(*found)
    with pytest.raises(UsageError, match="parts for 2 classes"):
        part_attention(IMAGE, model=model)


def test_other_models_and_layers_are_refused():
    with pytest.raises(UsageError, match="toy-vit has no part embeddings"):
        part_attention(IMAGE, model="toy-vit")
    with pytest.raises(UsageError, match="layer=6"):
        part_attention(IMAGE, model=small("partformer-resnet18")[0], layer=6)


def test_the_drawing_has_one_image_for_each_map_bright_where_it_looks():
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1, 0, 0] = 0.2
    page = draw_attention(Image.new("RGB", (100, 50), "grey"), maps, side=40)
    assert page.size == (3 * 40 + 2 * 4, 20)
    tiles = [np.asarray(page)[:, start : start + 40].astype(int) for start in (0, 44, 88)]
    assert np.array_equal(tiles[0], tiles[2])
    changed = np.abs(tiles[1] - tiles[2]).sum(2)
    assert changed[0, 0] > 100 and changed[10:, 20:].max() == 0
