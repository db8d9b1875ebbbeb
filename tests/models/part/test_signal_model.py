import numpy as np
import pytest
import torch

import partzoo
from partzoo.errors import ShapeError, UsageError
from partzoo.models.part.signal_model import SignalPart, SignalPartConfig
from partzoo.weights.release_files import check_golden, golden
from partzoo.weights.tensors import write_weights

SMALL = {"dim": 24, "depth": 2, "heads": 2}


def count(module, *names):
    return sum(p.numel() for name, p in module.named_parameters() if not names or name.startswith(names))


def made(**config):
    torch.manual_seed(0)
    return SignalPart(SignalPartConfig(**SMALL, **config)).eval()


def test_the_backbone_has_the_paper_s_12_9_million_parameters():
    with torch.device("meta"):
        pretrained, finetuned = SignalPart(SignalPartConfig()), SignalPart(SignalPartConfig(classes=5))
    backbone = count(pretrained, "patch_embed.", "blocks.", "norm.")
    d = 512
    assert backbone == (600 * d + d) + 4 * (12 * d**2 + 13 * d) + 2 * d == 12_918_272
    assert round(count(finetuned) / 1e6, 1) == round(backbone / 1e6, 1) == 12.9
    assert pretrained.preprocess.shape == (6, 3000) and pretrained.config.patches == 40


def test_patches_are_a_set():
    model, patches = made(), torch.randn(2, 40, 6, 100)
    order = torch.randperm(40)
    torch.testing.assert_close(model.encode_patches(patches)[:, order], model.encode_patches(patches[:, order]))
    all_pairs = model.relate(patches)
    assert all_pairs.shape == (2, 1600, 1)
    pairs = torch.tensor([[3, 7], [9, 0]]).expand(2, -1, -1)
    torch.testing.assert_close(model.relate(patches, pairs), all_pairs[:, [3 * 40 + 7, 9 * 40]])


def test_tokens_and_intermediates_are_in_time():
    for model, prefix in ((made(), 0), (made(classes=5), 1)):
        x = torch.randn(2, 6, 3000)
        tokens = model.encode(x)
        assert tokens.grid == (1, 30) and tokens.patch.shape == (2, 30, 24) and tokens.prefix.shape == (2, prefix, 24)
        last = model.forward_intermediates(x, 1)[0]
        torch.testing.assert_close(last, tokens.maps())
        assert model(x).shape == (2, 30 + prefix, 24)


def test_positions_carry_time_and_masked_ones_do_not():
    model, x = made(classes=5), torch.randn(3, 6, 3000)
    turned = x.unflatten(2, (30, 100)).flip(2).flatten(2)
    assert not torch.allclose(model.classify(x), model.classify(turned), atol=1e-5)
    torch.testing.assert_close(model.classify(x, masked=0.999), model.classify(turned, masked=0.999))


def test_a_fifth_of_the_positions_is_masked_in_each_window_differently():
    model = made(classes=5)
    with torch.no_grad():
        model.positions.fill_(1e3)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.classify(torch.zeros(4, 6, 3000), masked=0.2, generator=torch.Generator().manual_seed(0))
    kept = seen[0][:, 1:].mean(-1) > 500
    assert (kept.sum(1) == 24).all() and len({tuple(row.tolist()) for row in kept}) == 4


def test_stages_are_the_likeliest_classes_in_any_number():
    model, windows = made(classes=5), np.random.default_rng(0).normal(size=(300, 6, 3000)).astype(np.float16)
    found = model.stages(windows)
    assert found.shape == (300,) and found.dtype == np.int64 and model.stages(windows[:0]).shape == (0,)
    x = torch.from_numpy(windows[256:].astype(np.float32))
    assert (model.classify(x).argmax(1).numpy() == found[256:]).all()


@pytest.mark.parametrize("classes", [0, 5])
def test_it_is_saved_and_loaded_like_the_others(tmp_path, classes):
    torch.manual_seed(0)
    model = partzoo.load("part-vit1d", pretrained=False, dtype="float32", device="cpu", **SMALL, classes=classes)
    file = tmp_path / "model.safetensors"
    write_weights(file, model.state_dict(), model.architecture, model.config)
    again = partzoo.load(file, dtype="float32", device="cpu")
    assert again.config == model.config and not again.training
    x = torch.randn(1, 6, 3000)
    assert torch.equal(again(x), model(x))
    check_golden(again, golden(model))
    assert partzoo.load(file, dtype="bfloat16", device="cpu")(x.bfloat16()).dtype == torch.bfloat16
    assert partzoo.load(file, dtype="int8", device="cpu")(x).isfinite().all()


def test_images_are_refused_in_one_sentence():
    model = made()
    image = np.zeros((64, 64, 3), np.uint8)
    for call in (
        lambda: partzoo.extract_features(image, model=model),
        lambda: partzoo.extract_features(image, model=model, size=64),
        lambda: partzoo.discover_parts(image, k=2, model=model, background=None),
    ):
        with pytest.raises(UsageError, match=r"takes signals, not images|must be \(B, 6"):
            call()
    with pytest.raises(ShapeError, match=r"must be \(B, 6, a multiple of 100\), not \(1, 3, 64, 64\)"):
        model.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ShapeError, match="not 2000"):
        made(classes=5).encode(torch.zeros(1, 6, 2000))


def test_a_model_does_what_it_was_trained_for():
    with pytest.raises(UsageError, match="has no classes"):
        made().classify(torch.zeros(1, 6, 3000))
    with pytest.raises(UsageError, match="use a pretrained model"):
        made(classes=5).relate(torch.zeros(1, 4, 6, 100))
    with pytest.raises(UsageError, match="must be a multiple of patch"):
        made(size=3050)
