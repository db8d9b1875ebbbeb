import copy

import pytest
import torch
from timm.layers import LayerNorm2d
from timm.layers import QuickGELU as TimmQuickGELU
from timm.models.resnet import BasicBlock as TimmBasicBlock
from timm.models.vision_transformer import Block as TimmBlock
from torch import nn

from partzoo.models import layers
from partzoo.models.layers import BasicBlock, Block, ChannelNorm, QuickGELU, train_fast


def twins(make, make_timms):
    """Make a module and timm's from one seed; their random weights must have equal names and values."""
    torch.manual_seed(0)
    ours = make()
    torch.manual_seed(0)
    theirs = make_timms()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    return ours, theirs


def same(ours, theirs, x):
    found = []
    for module in (ours, theirs):
        torch.manual_seed(1)
        own = x.clone().requires_grad_()
        out = module(own)
        out.square().sum().backward()
        found.append((out, own.grad, *[each.grad for each in module.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "quick"])
def test_transformer_blocks_are_timms(training, fused, activation):
    acts = (nn.GELU, nn.GELU) if activation == "gelu" else (QuickGELU, TimmQuickGELU)
    ours, theirs = twins(
        lambda: Block(24, 3, activation=acts[0], drop_path=0.4),
        lambda: TimmBlock(24, 3, qkv_bias=True, drop_path=0.4, act_layer=acts[1]),
    )
    for block in (ours, theirs):
        block.train(training).attn.fused_attn = fused
    assert ours.norm1.eps == theirs.norm1.eps
    same(ours, theirs, torch.randn(6, 7, 24))


def test_an_attention_of_ones_own_takes_the_blocks_place():
    torch.manual_seed(0)
    block, x = Block(24, 3), torch.randn(2, 7, 24)
    assert torch.equal(block(x, block.attn), block(x))
    without = block(x, torch.zeros_like)
    torch.testing.assert_close(without, x + block.mlp(block.norm2(x)))


@pytest.mark.parametrize("fused", [False, True])
def test_a_bias_of_the_queries_is_added_to_the_logits(fused):
    torch.manual_seed(0)
    attention, x = Block(24, 3).attn, torch.randn(2, 7, 24)
    attention.fused_attn = fused
    queries = attention.qkv(x)[..., :24].unflatten(2, (3, 8)).transpose(1, 2)
    kept = torch.eye(7, dtype=torch.bool)

    def itself(found):
        torch.testing.assert_close(found, queries)
        return torch.zeros(7, 7).masked_fill(~kept, float("-inf")).expand(2, 3, 7, 7)

    values = attention.qkv(x)[..., 48:]
    torch.testing.assert_close(attention(x, itself), attention.proj(values))


@pytest.mark.parametrize(("device", "patches", "fused"), [("cpu", 64, False), ("cpu", 1024, True), ("cuda", 64, True)])
def test_attention_is_written_out_where_that_is_faster(device, patches, fused, monkeypatch):
    monkeypatch.setattr(layers, "default_device", lambda: torch.device(device))
    blocks = [Block(24, 3), Block(24, 3)]
    train_fast(blocks, patches)
    assert [block.attn.fused_attn for block in blocks] == [fused, fused]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_residual_blocks_are_timms(training, stride):
    def shortcut():
        return nn.Sequential(nn.Conv2d(8, 12, 1, stride, bias=False), nn.BatchNorm2d(12))

    ours, theirs = twins(
        lambda: BasicBlock(8, 12, stride, shortcut()), lambda: TimmBasicBlock(8, 12, stride, shortcut())
    )
    same(ours.train(training), theirs.train(training), torch.randn(3, 8, 9, 10))
    plain, timms = twins(lambda: BasicBlock(8, 8), lambda: TimmBasicBlock(8, 8))
    same(plain.train(training), timms.train(training), torch.randn(3, 8, 9, 10))


def test_norms_of_maps_are_timms():
    ours, theirs = twins(lambda: ChannelNorm(8, eps=1e-6), lambda: LayerNorm2d(8))
    same(ours, copy.deepcopy(theirs), torch.randn(2, 8, 5, 6))
