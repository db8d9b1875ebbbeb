import pytest
import torch
from torch import nn

from partzoo.models.part import CrossAttentionRelativeEncoder, Part, PartConfig
from partzoo.models.sampling import sample_pairs


def plain(encoder: CrossAttentionRelativeEncoder, tokens: torch.Tensor) -> torch.Tensor:
    """Section 4 written out: concatenate every pair, attend, read out."""
    _, count, dim = tokens.shape
    reference = tokens[:, :, None].expand(-1, -1, count, -1)
    target = tokens[:, None].expand(-1, count, -1, -1)
    query = encoder.pair(torch.cat([reference, target], -1).flatten(1, 2))
    if isinstance(encoder.query, nn.Identity):
        attention = (query @ tokens.mT / dim**0.5).softmax(-1)
        return encoder.head(attention @ tokens)
    module = nn.MultiheadAttention(dim, encoder.heads, batch_first=True)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([encoder.query.weight, encoder.key.weight, encoder.value.weight]))
        module.in_proj_bias.copy_(torch.cat([encoder.query.bias, encoder.key.bias, encoder.value.bias]))
        module.out_proj.weight.copy_(encoder.out.weight)
        module.out_proj.bias.copy_(encoder.out.bias)
    return encoder.head(module(query, tokens, tokens, need_weights=False)[0])


@pytest.mark.parametrize("projections", [True, False])
def test_the_fused_relative_encoder_is_the_formula(projections):
    torch.manual_seed(0)
    encoder = CrossAttentionRelativeEncoder(24, 3, projections)
    tokens = torch.randn(2, 7, 24)
    expected = plain(encoder, tokens)
    torch.testing.assert_close(encoder(tokens), expected, atol=1e-5, rtol=1e-4)
    pairs = sample_pairs(2, 7, 30)
    chosen = expected.reshape(2, 7, 7, 2)[torch.arange(2)[:, None], pairs[..., 0], pairs[..., 1]]
    torch.testing.assert_close(encoder(tokens, pairs), chosen, atol=1e-5, rtol=1e-4)


def test_the_order_of_patches_does_not_matter():
    torch.manual_seed(0)
    model = Part(PartConfig(dim=24, depth=2, heads=3)).eval()
    patches, order = torch.randn(1, 9, 3, 8, 8), torch.randperm(9)
    torch.testing.assert_close(model.encode_patches(patches)[:, order], model.encode_patches(patches[:, order]))
    matrix = model.relate(patches).reshape(1, 9, 9, 2)
    shuffled = model.relate(patches[:, order]).reshape(1, 9, 9, 2)
    torch.testing.assert_close(matrix[:, order][:, :, order], shuffled, atol=1e-5, rtol=1e-4)


def test_a_picture_is_its_grid_of_patches():
    torch.manual_seed(0)
    model = Part(PartConfig(dim=24, depth=2, heads=3)).eval()
    x = torch.randn(1, 3, 16, 24)
    patches = torch.stack([x[0, :, r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8, 16)])[None]
    torch.testing.assert_close(model.encode(x).patch, model.encode_patches(patches))


def test_sizes_of_the_vision_transformers():
    for config, millions in [(PartConfig(), 5.4), (PartConfig(dim=384, heads=6), 21.4)]:
        with torch.device("meta"):
            model = Part(config)
        encoder = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("relative_encoder"))
        assert encoder / 1e6 == pytest.approx(millions, abs=0.1)
