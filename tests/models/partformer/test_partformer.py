import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.published_mpae import drawn
from parity.published_partformer import transformer_shapes
from parity.synthetic import image, parameter

from partzoo.conversion.partformer import renamed
from partzoo.errors import UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.layers import ChannelNorm
from partzoo.models.loading import build, load
from partzoo.models.part_transformer import part_tokens, resampled, sine_positions
from partzoo.models.partformer.model import PartFormer, PartFormerConfig
from partzoo.models.registry import find
from partzoo.weights.tensors import write_weights

CASES = Path(__file__).parents[2] / "parity" / "partformer"


def partformer(architecture="partformer-resnet18", **config):
    torch.manual_seed(0)
    entry = find(architecture)
    return build(entry, entry.configure(config)).eval()


def published_transformer(parts, classes=0):
    return drawn(transformer_shapes(parts, classes))


def half(name, count):
    pixels = torch.from_numpy(image(name, (count, 3, 256, 256)))
    return Preprocess().normalize(255 * pixels)[..., ::2, ::2]


def in_published_order(x):
    return x.detach().roll(-1, dims=1).numpy()


@pytest.mark.parametrize("parts", [4, 8])
@pytest.mark.parametrize("table", ["rule", "sincos"])
def test_part_representations_are_the_published_ones(parts, table):
    state = published_transformer(parts)
    if table == "sincos":
        state["Transformer.pos_embed"] = torch.nn.functional.pad(sine_positions(8, 256), (0, 0, parts + 1, 0))[None]
    model = partformer(parts=parts)
    model.load_state_dict(renamed(state), strict=False)
    found = model.descriptors(half("partformer/g/image", 2))
    assert np.abs(in_published_order(found) - np.load(CASES / "partformer.npz")[f"G_{table}_k{parts}"]).max() < 2e-5


@pytest.mark.parametrize("table", ["rule", "sincos"])
def test_part_representations_of_several_classes_are_the_published_ones(table):
    state = published_transformer(4, classes=110) | {"logit_scale": torch.tensor(12.0)}
    if table == "sincos":
        state["Transformer.pos_embed"] = sine_positions(8, 256)[None]
    model = partformer(parts=4, classes=110, cosine=True)
    model.load_state_dict(renamed(state), strict=False)
    found = model.descriptors(half("partformer/g/image", 2), classes=torch.tensor([3, 107]))
    assert np.abs(in_published_order(found) - np.load(CASES / "partformer.npz")[f"G_{table}_partimage"]).max() < 2e-5
    assert model.scale == 12


def test_every_published_name_has_a_place():
    model = partformer(parts=4)
    names = set(renamed(published_transformer(4)))
    assert names == {name for name in model.state_dict() if name.startswith("transformer.")}


def test_the_stem_is_the_published_one():
    case, model = np.load(CASES / "stem_resnet18.npz"), partformer()
    shapes = {name: tuple(value.shape) for name, value in model.encoder.state_dict().items()}
    state = {f"stem.{name}": parameter(f"stem.{name}", shape) for name, shape in shapes.items()}
    names = {name.replace("stem.", "encoder."): torch.from_numpy(np.asarray(v)) for name, v in state.items()}
    model.load_state_dict(names, strict=False)
    x = half("partformer/stem/image", 1)
    assert np.abs(model.features(x).detach()[..., ::4, ::4].numpy() - case["feature_eval"]).max() < 5e-5
    found = model.train().features(x).detach()
    assert np.abs(found[..., ::4, ::4].numpy() - case["feature_train_bn"]).max() < 5e-5


def test_positions_are_the_published_table_at_its_size_and_resampled_elsewhere():
    table = np.load(CASES / "partformer.npz")["sincos_pos_embed_every_4th_dim"]
    transformer = partformer(parts=4).transformer
    assert np.abs(transformer.positions[:, ::4].detach().numpy() - table[5:]).max() < 1e-6
    assert not transformer.positions.requires_grad
    assert torch.equal(resampled(transformer.positions, transformer.side, (8, 8)), transformer.positions)
    assert resampled(transformer.positions, transformer.side, (4, 12)).shape == (4 * 12, 256)


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (75, 140)])
def test_maps_are_probabilities_for_images_of_any_size(size):
    model, x = partformer(parts=3), torch.randn(2, 3, *size)
    with torch.no_grad():
        maps, whole = model(x), model.part_maps(x, size=size)
    assert maps.shape == (2, 4, -(-size[0] // 4), -(-size[1] // 4)) and whole.shape == (2, 4, *size)
    torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))
    torch.testing.assert_close(whole.sum(1), torch.ones_like(whole[:, 0]))
    assert model.descriptors(x).shape == (2, 4, 64)


def test_one_pass_gives_descriptors_and_maps_of_several_sizes():
    model, x, passes = partformer(parts=3), torch.randn(2, 3, 75, 140), []
    for part in (model.transformer, model.encoder):
        part.register_forward_hook(lambda module, *_: passes.append(module))
    with torch.no_grad():
        expected = model.descriptors(x), model(x), model.part_maps(x, size=(75, 140))
        passes.clear()
        descriptors, maps = model.descriptors_and_maps(x)
        found = descriptors, maps(None), maps((75, 140))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert passes == [model.transformer, model.encoder]


def test_upsampling_similarities_equals_upsampling_features_of_dot_products_only():
    torch.manual_seed(0)
    parts, features = torch.randn(2, 4, 64), torch.randn(2, 64, 8, 8)
    fine = torch.nn.functional.interpolate(features, (32, 32), mode="bilinear", align_corners=False)
    for cosine in (False, True):
        model = partformer(parts=3, cosine=cosine)
        torch.testing.assert_close(model.match(parts, features, (32, 32)), model.match(parts, fine))
    normalize = torch.nn.functional.normalize
    similarity = torch.einsum("bnc,bchw->bnhw", normalize(parts, dim=2), normalize(features, dim=1))
    coarse = torch.nn.functional.interpolate(similarity, (32, 32), mode="bilinear", align_corners=False)
    assert (model.match(parts, features, (32, 32)) - (model.scale * coarse).softmax(1)).abs().max() > 0.05


def test_maps_by_hand():
    model = partformer(parts=1, dim=64, tau=0.5)
    parts, features = torch.zeros(1, 2, 64), torch.zeros(1, 64, 1, 2)
    parts[0, 0, 0], parts[0, 1, 1] = 2, 4
    features[0, 0, 0, 0], features[0, 1, 0, 1] = 3, 1
    expected = torch.tensor([[3.0, 0.0], [0.0, 2.0]]).softmax(0)
    torch.testing.assert_close(model.match(parts, features)[0, :, 0], expected)


def test_exchanged_representations_change_looks_and_not_shapes():
    model = partformer(parts=3, reconstruction=64)
    a, b = torch.randn(2, 1, 3, 128, 128)
    with torch.no_grad():
        own, mixed = model.reconstruct(a), model.reconstruct(a, model.descriptors(b))
        torch.testing.assert_close(model.reconstruct(a, model.descriptors(a)), own)
    assert own.shape == (1, 3, 64, 64) and not torch.allclose(own, mixed)


def test_a_frozen_encoder_is_compressed_and_keeps_still():
    model = partformer(encoder="toy-vit", compress="relu-norm", size=64, stride=2, reconstruction=64).train()
    x = torch.randn(2, 3, 64, 64)
    assert model(x).shape == (2, 9, 8, 8) and model.reconstruct(x).shape == (2, 3, 64, 64)
    assert not model.encoder.training and model.compress.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    with pytest.raises(UsageError, match="compress='linear'"):
        partformer(encoder="toy-vit")


def layers(sequence):
    kinds = {torch.nn.Conv2d: "conv", torch.nn.ReLU: "relu", torch.nn.Upsample: "up"}
    kinds |= dict.fromkeys((torch.nn.BatchNorm2d, ChannelNorm), "norm")
    chosen = [each for each in sequence.modules() if type(each) in kinds]
    return [f"conv{each.kernel_size[0]}" if hasattr(each, "kernel_size") else kinds[type(each)] for each in chosen]


def test_the_paper_s_compression_and_decoder_stand_beside_the_published_code_s():
    config = {"encoder": "toy-vit", "size": 64, "stride": 2, "reconstruction": 64, "parts": 3}
    published = partformer(**config, compress="relu-norm")
    paper = partformer(**config, compress="blocks", decoder="relu-norm")
    assert layers(published.compress) == [*["conv1", "relu", "norm"] * 2, "conv1"]
    assert layers(paper.compress) == ["conv3", "relu", "norm"] * 3
    block = ["conv3", "norm", "relu"]
    assert layers(published.decoder) == [*[*block, *block, "up"] * 3, *block, "conv1"]
    block = ["conv3", "relu", "norm"]
    assert layers(paper.decoder) == [*[*block, *block, "up"] * 3, *block, "conv3"]
    x = torch.randn(2, 3, 64, 64)
    assert paper.features(x).shape == (2, 64, 8, 8) and paper.reconstruct(x).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("option", [{"compress": "convolution"}, {"decoder": "relu"}])
def test_an_unknown_order_of_layers_is_one_clear_error(option):
    (name,) = option
    with pytest.raises(UsageError, match=f"^{name}="):
        PartFormer(replace(PartFormerConfig(encoder="toy-vit", compress="linear", size=64), **option))


@pytest.mark.parametrize(
    ("encoder", "levels", "patch"),
    [
        ("timm/test_resnet", (1, 2), 4),
        ("timm/test_vit", (0, -1), 16),
        ("patchresnet14.tin", (), 8),
        ("part-vitt8", (), 8),
    ],
)
def test_any_encoder_serves(encoder, levels, patch):
    model = partformer(encoder=encoder, levels=levels, compress="linear", size=64, reconstruction=32, parts=3)
    x = torch.randn(1, 3, 50, 90)
    with torch.no_grad():
        assert model.part_maps(x).shape == (1, 4, -(-50 // patch), -(-90 // patch))
        assert model.part_maps(x, size=(50, 90)).shape == (1, 4, 50, 90)
        assert model.descriptors(x).shape == (1, 4, 64)
    assert model.frozen and not any(p.requires_grad for p in model.encoder.parameters())
    assert model.preprocess.mean == model.encoder.preprocess.mean
    assert model.preprocess.multiple % model.encoder.preprocess.multiple == 0


def test_over_the_small_network_features_of_both_its_levels_count():
    model = partformer("partformer-patchresnet14", size=64, reconstruction=32).train()
    x, seen = torch.randn(2, 3, 64, 64), []
    model.compress.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert model(x).shape == (2, 9, 16, 16) and model.patch == 4
    fine, coarse = model.encoder.forward_intermediates(x)
    coarse = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(seen[0], torch.cat([fine, coarse], dim=1)) and not seen[0].requires_grad
    with pytest.raises(UsageError, match="the stem has only one"):
        partformer(levels=(0, 1))


def test_an_encoder_from_scratch_is_trained_with_the_rest():
    model = partformer(encoder="timm/test_vit", frozen=False, compress="linear", size=64, reconstruction=32).train()
    assert model.encoder.training and not model.frozen
    model(torch.randn(1, 3, 64, 64))[:, 1].sum().backward()
    assert model.encoder.model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_without_interpolation_every_place_has_its_cell_s_probabilities():
    model, x = partformer(parts=3, size=64, reconstruction=32, interpolate=False), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        coarse, whole = model.part_maps(x), model.part_maps(x, size=(64, 96))
        assert torch.equal(whole, coarse.repeat_interleave(4, 2).repeat_interleave(4, 3))
        smooth = partformer(parts=3, size=64, reconstruction=32).part_maps(x, size=(64, 96))
    assert not torch.allclose(smooth, whole)


def test_classes_have_parts_of_their_own_and_share_the_background():
    model, x = partformer(parts=2, classes=3), torch.randn(1, 3, 128, 128).expand(2, -1, -1, -1)
    rows = part_tokens(model.transformer.part_embed, 2, 2, torch.tensor([0, 2]))
    assert torch.equal(rows[0], model.transformer.part_embed[[0, 1, 2]])
    assert torch.equal(rows[1], model.transformer.part_embed[[0, 5, 6]])
    assert model.part_maps(x, classes=torch.tensor([0, 2])).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("method", ["part_maps", "descriptors", "reconstruct"])
def test_classes_that_are_missing_or_do_not_fit_are_one_clear_error(method):
    x = torch.randn(2, 3, 64, 64)
    several, one = (getattr(partformer(parts=2, size=64, reconstruction=32, classes=n), method) for n in (3, 0))
    with pytest.raises(UsageError, match="parts for 3 classes: choose one for each image with classes="):
        several(x)
    for wrong in ([0, 3], [-1, 0], [1], [0.0, 1.0], [[0], [1]]):
        with pytest.raises(UsageError, match=r"2 whole numbers in 0\.\.2, one for each image"):
            several(x, classes=torch.tensor(wrong))
    with pytest.raises(UsageError, match="this model is not one"):
        one(x, classes=torch.tensor([0, 0]))


def test_classes_never_compete():
    model, x = partformer(parts=2, size=64, classes=3), torch.randn(2, 3, 64, 64)
    model.part_maps(x, classes=torch.tensor([0, 2]))[:, 1].sum().backward()
    used = model.transformer.part_embed.grad.abs().sum(1) > 0
    assert used.tolist() == [True, True, True, False, False, True, True]
    with torch.no_grad():
        both = model.part_maps(x, classes=torch.tensor([0, 2]))
        model.transformer.part_embed[3:5] = 100
        assert torch.equal(model.part_maps(x, classes=torch.tensor([0, 2])), both)
        alone = model.part_maps(x[1:], classes=torch.tensor([2]))
    torch.testing.assert_close(alone[0], both[1])


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, x = partformer(parts=3, reconstruction=64), torch.randn(1, 3, 128, 128)
    config = json.loads(json.dumps(vars(model.config)))
    write_weights(tmp_path / "model.safetensors", model.state_dict(), model.architecture, config)
    loaded = load(tmp_path / "model.safetensors", dtype="float32")
    assert loaded.config == replace(PartFormerConfig(), parts=3, reconstruction=64)
    assert torch.equal(loaded(x), model(x))
