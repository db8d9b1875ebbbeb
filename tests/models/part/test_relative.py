import pytest
import torch
from torch import nn

from partzoo.errors import ShapeError, UsageError
from partzoo.models.part.relative import (
    NAMES,
    CrossAttentionRelativeEncoder,
    FullRelativeEncoder,
    PairwiseRelativeEncoder,
    build_relative_encoder,
)
from partzoo.models.part.sampling import sample_pairs


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


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("projections", [True, False])
def test_the_fused_attention_is_the_formula(projections, outputs):
    torch.manual_seed(0)
    encoder = CrossAttentionRelativeEncoder(24, 3, projections, outputs)
    tokens = torch.randn(2, 7, 24)
    torch.testing.assert_close(encoder(tokens), plain(encoder, tokens), atol=1e-5, rtol=1e-4)


def test_the_pairwise_mlp_is_one_layer_on_both_tokens():
    torch.manual_seed(0)
    encoder, tokens = PairwiseRelativeEncoder(24), torch.randn(2, 5, 24)
    found = encoder(tokens).unflatten(1, (5, 5))
    torch.testing.assert_close(found[1, 3, 4], encoder.pair(torch.cat([tokens[1, 3], tokens[1, 4]])))


def test_the_mlp_is_one_layer_on_all_tokens():
    torch.manual_seed(0)
    encoder, tokens = FullRelativeEncoder(24, 5), torch.randn(2, 5, 24)
    expected = encoder.all.weight @ tokens[1].flatten()
    torch.testing.assert_close(encoder(tokens)[1], expected.reshape(25, 2))
    with pytest.raises(ShapeError, match="takes 5 patches, not 6"):
        encoder(torch.randn(2, 6, 24))


@pytest.mark.parametrize("name", NAMES)
def test_some_pairs_are_those_of_all(name):
    torch.manual_seed(0)
    encoder = build_relative_encoder(name, 24, heads=3, patches=7, outputs=4)
    tokens, pairs = torch.randn(2, 7, 24), sample_pairs(2, 7, 30)
    expected = encoder(tokens).unflatten(1, (7, 7))[torch.arange(2)[:, None], pairs[..., 0], pairs[..., 1]]
    assert torch.equal(encoder(tokens, pairs), expected)


@pytest.mark.parametrize(("dim", "patches"), [(192, 16), (384, 64)])
def test_parameters_are_counted_as_in_the_paper(dim, patches):
    with torch.device("meta"):
        counts = {
            name: sum(
                p.numel() for p in build_relative_encoder(name, dim, heads=dim // 64, patches=patches).parameters()
            )
            for name in NAMES
        }
    assert counts["mlp"] == patches * dim * patches**2 * 2
    assert counts["pairwise-mlp"] == 2 * dim * 2
    attention, pair, head = 4 * (dim * dim + dim), 2 * dim * dim + dim, 2 * dim + 2
    assert counts["cross-attention"] == attention + pair + head


def test_an_unknown_name_names_the_known():
    with pytest.raises(UsageError, match="'conv': choose one of cross-attention, pairwise-mlp, mlp"):
        build_relative_encoder("conv", 24, heads=3, patches=4)
