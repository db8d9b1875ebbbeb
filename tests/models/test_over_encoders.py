"""Part models that are named after any encoder."""

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo as command
from PIL import Image

import partzoo
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.models.registry import find
from partzoo.train.run import train

ENCODERS = ("toy-vit", "timm/test_vit", "timm/test_resnet", "efficientnet-lite0.in1k")


@pytest.mark.parametrize("family", ["partformer", "mpae"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_encoder_makes_a_part_model(family, encoder):
    entry = find(f"{family}-{encoder}")
    assert (entry.name, entry.family, entry.config.encoder) == (f"{family}-{encoder}", family, encoder)
    sizes = {"parts": 3, "size": 64} | ({"reconstruction": 64} if family == "partformer" else {"depth": 1})
    model = partzoo.load(f"{family}-{encoder}", pretrained=False, device="cpu", dtype="float32", **sizes)
    maps = model.part_maps(torch.randn(1, 3, 64, 64), size=(64, 64))
    assert maps.shape == (1, 4, 64, 64) and model.architecture == entry.name and model.config.parts == 3


@pytest.mark.parametrize(
    ("encoder", "size", "stride", "reconstruction"),
    [
        ("toy-vit", 256, 2, 128),
        ("dino-vits16", 256, 2, 128),
        ("dinov2-vits14", 224, 1, 128),
        ("timm/resnet18", 256, 2, 128),
    ],
)
def test_sizes_suit_the_encoder(encoder, size, stride, reconstruction):
    config = find(f"partformer-{encoder}").config
    assert (config.size, config.stride, config.reconstruction) == (size, stride, reconstruction)
    assert find(f"mpae-{encoder}").config.size == size


def test_registered_names_take_precedence():
    assert find("partformer-vits8").config.encoder == "dino-vits8"
    assert find("mpae-patchresnet14.faces-k8").name == "mpae-patchresnet14"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "partformer-vits88",
            UnknownModelError,
            r"Unknown model 'partformer-vits88'\. Did you mean 'partformer-vits8'",
        ),
        ("mpae-", UnknownModelError, "Unknown model 'mpae-'"),
        ("partformer-timm/vit_smal", UnknownModelError, r"timm has no model 'vit_smal'\. Did you mean"),
        ("partformer-partformer-resnet18", UsageError, "partformer-resnet18 is not an encoder"),
        ("mpae-foreground-lite0", UsageError, "foreground-lite0 is not an encoder"),
    ],
)
def test_what_is_no_encoder_is_one_clear_error(name, kind, message):
    with pytest.raises(kind, match=message):
        partzoo.load(name, pretrained=False)


def test_there_are_no_weights_until_they_are_trained():
    with pytest.raises(WeightsError, match="partformer-toy-vit has no trained weights yet: train them"):
        partzoo.load("partformer-toy-vit")


def test_info_describes_them():
    ran = command("info", "partformer-dinov2-vits14")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("partformer-dinov2-vits14: PartFormer on dinov2-vits14, for images of 224 pixels.")


@pytest.mark.parametrize("method", ["partformer", "mpae"])
def test_they_are_trained_with_the_method_s_own_recipe_and_loaded_again(method, tmp_path):
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    config = {"parts": 3, "size": 64} | ({} if method == "partformer" else {"depth": 1, "dim": 64, "decoder_heads": 1})
    options = {"data": tmp_path / "images", "steps": 1, "batch_size": 2, "progress": False, "config": config}
    model, _ = train(method, model=f"{method}-toy-vit", out=tmp_path / "run", task={"network": "toy-vit"}, **options)
    assert model.config.encoder == "toy-vit" and model.config.levels == ()
    found = partzoo.load(tmp_path / "run" / "model.safetensors", device="cpu", dtype="float32")
    assert (found.architecture, found.config) == (f"{method}-toy-vit", model.config)
    assert partzoo.discover_parts(tmp_path / "images" / "0.png", k=None, model=found).k == 3
