import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

from partzoo import Reconstruction, UsageError, reconstruct
from partzoo.features import model_input
from partzoo.images.opening import OpenedImage
from partzoo.models.loading import build
from partzoo.models.mpae.masked_autoencoder import visible_patches
from partzoo.models.registry import find
from partzoo.weights.tensors import write_weights

IMAGE = np.random.default_rng(0).integers(0, 256, (66, 88, 3)).astype(np.uint8)
SMALL = {
    "partformer-resnet18": {"parts": 3, "size": 64, "reconstruction": 32},
    "mpae-patchresnet14": {
        "parts": 3, "size": 64, "dim": 32, "width": 32, "depth": 2, "heads": 2, "masked_width": 32, "masked_heads": 2,
        "decoder_heads": 2,
    },
}  # fmt: skip


def small(name, **config):
    torch.manual_seed(0)
    entry = find(name)
    return build(entry, entry.configure(SMALL[name] | config)).eval().requires_grad_(False)


def pixels(model, x):
    return model.preprocess.denormalize(x)[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("hidden", "count"), [(None, 4), (0.5, 24), (0.0, 48), (1.0, 0)])
def test_an_mpae_restores_what_it_does_not_see(hidden, count):
    model = small("mpae-patchresnet14")
    x = model_input(OpenedImage(IMAGE), model)
    assert x.shape == (1, 3, 48, 64)
    found = reconstruct(IMAGE, model=model, hidden=hidden, seed=3)
    noise = torch.rand(1, 48, generator=torch.Generator().manual_seed(3))
    kept = visible_patches(noise, 0.9 if hidden is None else hidden)
    assert found.visible.shape == (6, 8) and found.visible.sum() == count
    assert set(np.flatnonzero(found.visible)) == set(kept[0].tolist())
    parts, features = model.descriptors(x), model.features(x)
    expected = model.restore(x, model.match(parts, features), parts, kept)
    assert np.array_equal(found.image, pixels(model, expected))
    assert np.array_equal(found.seen, pixels(model, x))
    assert (reconstruct(IMAGE, model=model, hidden=hidden, seed=4).visible == found.visible).all() == (count in (0, 48))


def test_a_partformer_draws_the_whole_image():
    model = small("partformer-resnet18")
    found = reconstruct(IMAGE, model=model)
    assert found.visible.all() and found.visible.shape == (12, 16)
    assert np.array_equal(found.image, pixels(model, model.reconstruct(model_input(OpenedImage(IMAGE), model))))
    with pytest.raises(UsageError, match=r"hidden=0\.5: a PartFormer hides no patches"):
        reconstruct(IMAGE, model=model, hidden=0.5)


@pytest.mark.parametrize("name", SMALL)
def test_of_several_classes_one_is_named(name):
    model = small(name, classes=2)
    first, second = (reconstruct(IMAGE, model=model, classes=number) for number in (0, 1))
    assert (first.image != second.image).any()
    with pytest.raises(UsageError, match="parts for 2 classes"):
        reconstruct(IMAGE, model=model)


def test_other_models_and_shares_are_refused():
    with pytest.raises(UsageError, match="toy-vit cannot reconstruct images"):
        reconstruct(IMAGE, model="toy-vit")
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match=rf"hidden={wrong} must be between 0 and 1"):
            reconstruct(IMAGE, model=small("mpae-patchresnet14"), hidden=wrong)


def test_the_drawing_shows_hidden_patches_in_grey():
    seen, image = np.full((16, 24, 3), 200, np.uint8), np.full((8, 12, 3), 90, np.uint8)
    visible = np.array([[True, False, True], [False, True, True]])
    page = np.asarray(Reconstruction(seen, visible, image).draw(side=24))
    assert page.shape == (16, 3 * 24 + 2 * 4, 3)
    assert (page[:, :24] == 200).all() and (page[:, 56:] == 90).all() and (page[:, 24:28] == 255).all()
    middle = page[4::8, 32:52:8, 0]
    assert middle.tolist() == [[200, 128, 200], [128, 200, 200]]
    assert np.asarray(Reconstruction(seen, visible | True, image).draw(side=24)).shape == (16, 2 * 24 + 4, 3)


@pytest.mark.parametrize("name", SMALL)
def test_commands_draw_the_reconstruction_and_the_attention(name, tmp_path):
    model = small(name)
    write_weights(tmp_path / "small.safetensors", model.state_dict(), name, SMALL[name])
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    place = [tmp_path / "a.png", "--model", tmp_path / "small.safetensors", "--side", 64]
    mpae = name.startswith("mpae")
    ran = partzoo("reconstruct", *place, *(["--hidden", 0.5, "--seed", 3] if mpae else []), "-o", tmp_path / "r.png")
    assert ran.code == 0 and "48 x" in ran.out, ran.err
    expected = reconstruct(IMAGE, model=model, **({"hidden": 0.5, "seed": 3} if mpae else {})).draw(side=64)
    assert np.array_equal(Image.open(tmp_path / "r.png"), expected)
    ran = partzoo("attention", *place, "--layer", -1, "-o", tmp_path / "a-1.png")
    assert ran.code == 0 and Image.open(tmp_path / "a-1.png").width == 4 * 64 + 3 * 4, ran.err
    ran = partzoo("attention", *place, "-o", tmp_path / "attention.jpg")
    assert ran.code == 2 and "must end in .png" in ran.err
