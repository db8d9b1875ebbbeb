import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.published_mpae import TINY_ENCODER, converted, drawn, image, shapes_of
from parity.synthetic import normal, parameter
from torch.nn.functional import interpolate

from partzoo import discover_parts
from partzoo.conversion.mpae import from_published
from partzoo.errors import UsageError, WeightsError
from partzoo.models.loading import build, load
from partzoo.models.mpae.masked_autoencoder import visible_patches
from partzoo.models.part_transformer import resampled
from partzoo.models.precision import set_precision
from partzoo.models.registry import find
from partzoo.weights.tensors import write_weights

CASES = Path(__file__).parents[2] / "parity" / "mpae"


def case(name):
    return np.load(CASES / f"{name}.npz")


def mpae(name="mpae-patchresnet14", **config):
    torch.manual_seed(0)
    entry = find(name)
    return build(entry, entry.configure(config)).eval().requires_grad_(False)


def small(**config):
    shape = {"size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2, "masked_width": 32, "masked_heads": 2}
    return mpae(**({"parts": 3, "encoder": "patchresnet14", "decoder_heads": 2} | shape | config))


published = cache(converted)  # of "tiny", or (K, S)


def close(found, expected, tolerance=1e-5):
    """Within the tolerance of the parity cases: a share of the largest value expected."""
    found = np.asarray(found, dtype=np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def in_published_order(x):
    return x.roll(-1, dims=1).numpy()


def away_from_ties(expected):
    """Where the best two of the published maps differ by a hundredth or more."""
    return np.unpackbits(expected["close"], count=expected["argmax"].size).reshape(expected["argmax"].shape) == 0


def same_winners(maps, expected):
    """Arg-max in the published order, equal wherever the best two differ clearly."""
    clear, found = away_from_ties(expected), in_published_order(maps).argmax(1)
    assert clear.mean() > 0.5 and (found == expected["argmax"])[clear].all()


@pytest.mark.parametrize(("parts", "size"), [(8, 224), (16, 448)])
def test_descriptors_are_the_published_ones(parts, size):
    names = {name: shape for name, shape in shapes_of((parts, size)).items() if name.startswith("Transformer.")}
    state = drawn(names | {"compress_layer.weight": (256, 768, 1, 1)})
    _, config, state = from_published(state)
    model = mpae("mpae-patchresnet14", encoder=TINY_ENCODER, heads=8, masked_heads=1, decoder_heads=1, **config)
    state = {name.removeprefix("extractor."): value for name, value in state.items() if name.startswith("extractor.")}
    model.extractor.load_state_dict(state)
    found = model.descriptors(image(f"mpae/descriptor/{size}", (2, 3, size, size)))
    close(in_published_order(found), case("descriptor")[f"descriptors_{size}"])


def test_tables_start_as_the_published_ones():
    tables = case("tables")
    common = {"dim": 256, "width": 256, "masked_width": 256, "depth": 1, "masked_depth": 1, "decoder_depth": 1}
    common |= {"encoder": TINY_ENCODER, "heads": 8, "masked_heads": 4, "decoder_heads": 4}
    positions = mpae(parts=8, size=224, **common).extractor.positions
    assert not positions[:9].any()
    assert np.abs(positions[::4].numpy() - tables["transformer_pos_embed"]).max() < 1e-6
    autoencoder = mpae(parts=16, size=448, **common).autoencoder
    for name, table in (("positions", "decoder_pos_embed_448"), ("decoder_positions", "decoder_decoder_pos_embed_448")):
        assert np.abs(getattr(autoencoder, name)[::16].numpy() - tables[table]).max() < 1e-6


def test_a_whole_small_model_gives_the_published_maps():
    expected, model, x = case("infer_tiny"), published("tiny"), image("mpae/infer_tiny/image", (2, 3, 112, 112))
    features, parts = model.features(x), model.descriptors(x)
    close(model.encoder.encode(x).patch, expected["tokens"])
    close(features, expected["feature"])
    close(in_published_order(parts), expected["descriptors"])
    fine = interpolate(torch.einsum("bnc,bchw->bnhw", parts, features), (32, 32), mode="bilinear", align_corners=False)
    close(in_published_order(fine), expected["logits"])
    maps = model.part_maps(x, size=(32, 32))
    assert np.abs(in_published_order(maps) - expected["maps"]).max() < 1e-4
    same_winners(maps, expected)
    assert model(x).shape == (2, 5, 8, 8)


def test_the_encoders_scaled_layers_are_the_published_ones():
    model = published("tiny").encoder
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    gammas = {name: 1 + 5 * parameter(f"backbone1.{name[6:]}", (64,)) for name in kept if name.endswith("gamma")}
    model.load_state_dict({name: torch.from_numpy(np.float32(value)) for name, value in gammas.items()}, strict=False)
    found = model.encode(image("mpae/infer_tiny/image", (2, 3, 112, 112))).patch
    model.load_state_dict(kept)
    close(found, case("infer_tiny")["tokens_strong_gamma"])


@pytest.mark.parametrize(("parts", "size", "step"), [(8, 224, 8), (16, 448, 16)])
def test_the_whole_model_gives_the_published_maps(parts, size, step):
    expected, x = case(f"infer_vitb_{size}"), image(f"mpae/infer_vitb_{size}/image", (1, 3, size, size))
    model = published((parts, size))
    assert model.architecture == "mpae-vitb14reg" and model.config.parts == parts and model.config.size == size
    tokens = model.encoder.encode(x)
    features, found = model.compress(tokens.maps()), model.descriptors(x)
    close(tokens.patch[:, ::8, ::step], expected["tokens"])
    close(features[:, ::step], expected["feature"])
    close(in_published_order(found), expected["descriptors"])
    fine = interpolate(torch.einsum("bnc,bchw->bnhw", found, features), (128, 128), mode="bilinear")
    close(in_published_order(fine)[:, :, ::8, ::8], expected["logits"])
    maps = model.match(found, features, (128, 128))
    assert np.abs(in_published_order(maps)[:, :, ::8, ::8] - expected["maps"]).max() < 1e-4
    same_winners(maps, expected)
    published.cache_clear()


@pytest.mark.parametrize("size", [224, 448])
def test_restored_images_are_the_published_ones(size):
    expected, side = case("restore"), size // 14
    names = {name: shape for name, shape in shapes_of((8, size)).items() if name.startswith("Decoder.")}
    names |= {"compress_layer.weight": (256, 768, 1, 1), "Transformer.conv1.weight": (256, 3, 14, 14)}
    names |= {"Transformer.class_embedding": (1, 9, 256), "Transformer.pos_embed": (1, 9 + side**2, 256)}
    _, config, state = from_published(drawn(names))
    model = mpae("mpae-vitb14reg", encoder=TINY_ENCODER, **config).autoencoder
    prefix = "autoencoder."
    model.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    x, noise = image(f"mpae/restore/{size}", (2, 3, size, size)), normal(f"mpae/restore/noise/{size}", (2, side**2))
    kept = visible_patches(torch.from_numpy(noise), 0.9)
    assert np.array_equal(kept.numpy(), expected[f"kept_{size}"])
    hidden = np.ones_like(expected[f"mask_{size}"])
    np.put_along_axis(hidden, kept.numpy(), 0, axis=1)
    assert np.array_equal(hidden, expected[f"mask_{size}"])
    close(model.encode(x, kept)[..., ::4], expected[f"latent_{size}"])
    filler = torch.from_numpy(normal(f"mpae/restore/filled/{size}", (2, side**2, 256)))
    restored = model(x, filler.mT.unflatten(2, (side, side)), kept)
    assert restored.shape == (2, 3, 8 * side, 8 * side)
    step = 3 if size == 224 else 5
    close(restored[..., ::step, ::step], expected[f"restored_{size}"])
    close(torch.stack([restored.mean(), restored.std()]), expected[f"restored_mean_std_{size}"])


def test_positions_are_the_trained_ones_at_their_size_and_resampled_elsewhere():
    table = torch.randn(64, 32)
    assert torch.equal(resampled(table, 8, (8, 8)), table)
    rows = torch.arange(8.0)[:, None].expand(-1, 8).reshape(64, 1)
    found = resampled(torch.cat([rows, 0 * rows + 5], dim=1), 8, (4, 12))
    assert found.shape == (48, 2)
    torch.testing.assert_close(found[:, 1], torch.full((48,), 5.0))
    downwards = found[:, 0].view(4, 12)
    torch.testing.assert_close(downwards, downwards[:, :1].expand(-1, 12))
    torch.testing.assert_close(downwards[1:3, 0], torch.tensor([2.5, 4.5]), atol=0.05, rtol=0)


def test_at_the_trained_size_no_table_is_resampled(monkeypatch):
    model, wide = small(encoder="timm/test_vit", size=160), torch.randn(1, 3, 160, 320)
    model.reconstruct(wide)
    monkeypatch.setattr("partzoo.models.part_transformer.interpolate", lambda *_, **__: pytest.fail("resampled"))
    model.reconstruct(wide[..., :160])
    with pytest.raises(pytest.fail.Exception):
        model.reconstruct(wide)


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (61, 75)])
def test_maps_are_probabilities_for_images_of_any_size(size):
    model, x = small(), torch.randn(2, 3, *size)
    maps, whole = model(x), model.part_maps(x, size=size)
    assert maps.shape == (2, 4, -(-size[0] // 8), -(-size[1] // 8)) and whole.shape == (2, 4, *size)
    for each in (maps, whole):
        torch.testing.assert_close(each.sum(1), torch.ones_like(each[:, 0]))
    assert model.descriptors(x).shape == (2, 4, 32)
    padded = tuple(8 * side for side in maps.shape[2:])
    assert model.reconstruct(x).shape == (2, 3, *padded)


def test_upsampling_similarities_equals_upsampling_features():
    model, size = small(), (50, 31)
    parts, features = torch.randn(2, 4, 32), torch.randn(2, 32, 8, 8)
    fine = interpolate(features, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.match(parts, features, size), model.match(parts, fine))


def test_maps_by_hand():
    model = small(parts=1, dim=32)
    parts, features = torch.zeros(1, 2, 32), torch.zeros(1, 32, 1, 2)
    parts[0, 0, 0], parts[0, 1, 1] = 2, 4
    features[0, 0, 0, 0], features[0, 1, 0, 1] = 3, 1
    expected = torch.tensor([[6.0, 0.0], [0.0, 4.0]]).softmax(0)
    torch.testing.assert_close(model.match(parts, features)[0, :, 0], expected)


def test_a_random_part_of_the_patches_is_hidden():
    noise = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.0, 0.9, 0.8, 0.7]])
    assert visible_patches(noise, 0.5).tolist() == [[1, 3], [0, 3]]
    assert visible_patches(noise, 1.0).shape == (2, 0) and visible_patches(noise, 0.9).shape == (2, 0)


def test_visible_patches_show_through_and_hidden_ones_do_not():
    model = small().autoencoder
    a, filler = torch.randn(1, 3, 64, 64), torch.randn(1, 32, 8, 8)
    kept = torch.tensor([[0, 9]])
    b = a.clone()
    b[..., 8:16, 24:32] += 1  # row 1, column 3: hidden
    assert torch.equal(model(a, filler, kept), model(b, filler, kept))
    b[..., 8:16, 8:16] += 1  # row 1, column 1: visible
    assert not torch.allclose(model(a, filler, kept), model(b, filler, kept))
    filler_b = filler.clone()
    filler_b[..., 1, 1] += 1  # what a visible patch would be filled with
    assert torch.equal(model(a, filler, kept), model(a, filler_b, kept))


def test_with_all_patches_hidden_the_descriptors_alone_are_restored():
    model, (a, b) = small().autoencoder, torch.randn(2, 1, 3, 64, 64)
    nothing = torch.empty(1, 0, dtype=torch.int64)
    filler = torch.randn(1, 32, 8, 8)
    assert torch.equal(model(a, filler, nothing), model(b, filler, nothing))


def test_looks_of_another_image_can_be_filled_in():
    model, (a, b) = small(), torch.randn(2, 1, 3, 64, 64)
    own, lent = (model.reconstruct(a, 0.9, parts, torch.Generator().manual_seed(0))
                 for parts in (None, model.descriptors(b)))  # fmt: skip
    assert not torch.allclose(own, lent)
    again = model.reconstruct(a, 0.9, model.descriptors(a), torch.Generator().manual_seed(0))
    torch.testing.assert_close(own, again)


@pytest.mark.parametrize("name", ["toy-vit", "timm/resnet18", "part-vitt8"])
def test_any_encoder_serves(name):
    model, x = small(encoder=name), torch.randn(1, 3, 64, 64)
    rows = 64 // model.patch
    assert model(x).shape == (1, 4, rows, rows) and model.reconstruct(x).shape == (1, 3, 8 * rows, 8 * rows)
    assert not any(p.requires_grad for p in model.train().encoder.parameters()) and not model.encoder.training


@pytest.mark.parametrize(("name", "levels", "rows"), [("patchresnet14", (0, 1), 16), ("toy-vit", (0, 1), 8)])
def test_several_levels_of_an_encoder_serve(name, levels, rows):
    model, x = small(encoder=name, levels=levels), torch.randn(1, 3, 64, 96)
    assert model(x).shape == (1, 4, rows, rows * 3 // 2)
    assert model.features(x).shape[2:] == model(x).shape[2:]
    assert model.reconstruct(x).shape[2:] == (8 * rows, 12 * rows)


def test_classes_have_parts_of_their_own_and_share_the_background():
    model, x = small(parts=2, classes=3), torch.randn(1, 3, 64, 64).expand(2, -1, -1, -1)
    assert model.extractor.part_embed.shape == (7, 32)
    found = model.descriptors(x, classes=torch.tensor([0, 2]))
    alone = small(parts=2)
    for i, rows in enumerate(([0, 1, 2], [0, 5, 6])):
        alone.load_state_dict(model.state_dict() | {"extractor.part_embed": model.extractor.part_embed[rows]})
        torch.testing.assert_close(found[i], alone.descriptors(x)[i])
    maps = model.part_maps(x, classes=torch.tensor([0, 2]))
    assert maps.shape == (2, 3, 8, 8) and not torch.allclose(maps[0], maps[1])
    with pytest.raises(UsageError, match="choose one for each image with classes="):
        model(x)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(UsageError, match="multiple of 8, the patch"):
        small(size=60)


@pytest.mark.parametrize(("size", "name", "shape"), [
    ("tiny", "infer_tiny", (2, 3, 112, 112)), ((8, 224), "infer_vitb_224", (1, 3, 224, 224))
])  # fmt: skip
def test_lower_precision_finds_the_published_parts(size, name, shape):
    expected, x = case(name), image(f"mpae/{name}/image", shape)
    winners, clear = torch.from_numpy(expected["argmax"]).long(), torch.from_numpy(away_from_ties(expected))
    model = published(size)
    published.cache_clear()
    for dtype in (torch.bfloat16, "int8"):
        found = set_precision(deepcopy(model), dtype, torch.device("cpu")).part_maps(x, size=winners.shape[1:])
        assert found.dtype == torch.float32
        assert (found.roll(-1, dims=1).argmax(1) == winners)[clear].float().mean() > 0.99


@pytest.mark.parametrize("dtype", [torch.bfloat16, "int8"])
def test_an_encoder_whose_weights_are_read_directly_takes_lower_precision(dtype):
    model, x = small(encoder="part-vitt8"), torch.randn(1, 3, 64, 64)
    expected = model(x)
    assert model.keep_float == ("extractor", "encoder.relative_encoder")
    found = set_precision(model, dtype, torch.device("cpu"))
    assert (found(x) - expected).abs().mean() < 0.05
    assert isinstance(found.encoder.relative_encoder.pair, torch.nn.Linear)


@pytest.mark.parametrize("config", [{}, {"levels": (0, 1), "classes": 2}])
def test_saved_and_loaded_it_is_the_same(tmp_path, config):
    model, x = small(**config), torch.randn(1, 3, 64, 64)
    classes = torch.tensor([1]) if config else None
    write_weights(
        tmp_path / "m.safetensors", model.state_dict(), model.architecture, json.loads(json.dumps(vars(model.config)))
    )
    loaded = load(tmp_path / "m.safetensors", dtype="float32")
    assert loaded.config == model.config and torch.equal(loaded(x, classes), model(x, classes))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_shapes_of_a_published_state_say_what_it_is():
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes_of((16, 448)).items()}
    architecture, config, found = from_published(state)
    assert architecture == "mpae-vitb14reg"
    assert config == {"parts": 16, "size": 448, "dim": 256, "width": 256, "depth": 6, "masked_width": 256,
                      "masked_depth": 2, "decoder_depth": 2, "restored": 8}  # fmt: skip
    entry = find(architecture)
    with torch.device("meta"):
        model = entry.build(entry.configure(config))
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in model.state_dict().items()}
    bare = {name: value for name, value in state.items() if not name.startswith("backbone1.")}
    assert from_published(bare)[:2] == (architecture, config)


def test_a_state_that_is_no_mpae_is_refused():
    with pytest.raises(WeightsError, match=r"not an MPAE, as it lacks Transformer\.class_embedding"):
        from_published({"compress_layer.weight": torch.zeros(1), "Transformer.pos_embed": torch.zeros(1)})
    with pytest.raises(WeightsError, match="a ViT 64 wide, with patches of 14 pixels and 4 registers"):
        from_published(drawn(shapes_of("tiny")))


def test_it_finds_its_own_parts_in_images():
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    several = discover_parts([pixels, pixels[:, ::-1]], k=None, model=small())
    assert all(parts.k == 3 and parts.labels.shape == (90, 120) for parts in several)
    assert discover_parts(pixels, k=2, model=small()).k == 2
    with pytest.raises(UsageError, match="this model has 3 parts"):
        discover_parts(pixels, k=4, model=small())
