"""Models that are not encoders of images are refused in one sentence wherever an encoder is needed."""

import numpy as np
import pytest
from helpers.command_line import partzoo as command
from PIL import Image
from torch import nn

import partzoo
from partzoo.errors import UsageError
from partzoo.evaluate.run import evaluate
from partzoo.features import encoder_of

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
USERS = {
    "extract_features": lambda model: partzoo.extract_features(IMAGE, model=model),
    "discover_parts": lambda model: partzoo.discover_parts(IMAGE, model=model),
    "fit_parts": lambda model: partzoo.fit_parts([IMAGE, IMAGE], k=2, model=model),
    "relate": lambda model: partzoo.relate(IMAGE, model=model),
    "relate_images": lambda model: partzoo.relate_images(IMAGE, IMAGE, model=model),
    "part_attention": lambda model: partzoo.part_attention(IMAGE, model=model),
    "reconstruct": lambda model: partzoo.reconstruct(IMAGE, model=model),
    "swap_parts": lambda model: partzoo.swap_parts(model, IMAGE, IMAGE),
    "feature_pyramid": lambda model: partzoo.feature_pyramid(model),
}
MODELS = {
    "foreground": lambda: partzoo.load("foreground-lite0", pretrained=False),
    "signals": lambda: partzoo.load("part-vit1d", pretrained=False),
    "another module": lambda: nn.Linear(2, 2),
}
FOREGROUND = "foreground-lite0 is a foreground model, not an encoder: pass an encoder"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("user", USERS)
def test_a_model_that_is_not_an_encoder_is_one_sentence(user, model):
    with pytest.raises(UsageError) as error:
        USERS[user](MODELS[model]())
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("user", ["extract_features", "discover_parts", "fit_parts"])
def test_the_sentence_says_how_each_kind_is_used(user):
    for model, said in [
        ("foreground-lite0.masks", f"{FOREGROUND}, or pass background= with this model to discover parts."),
        (MODELS["signals"](), "This model takes signals, not images: see docs/signals.md."),
        (nn.Linear(2, 2), "Linear is not an encoder: pass a model that partzoo.list_models(family='encoder') lists."),
    ]:
        with pytest.raises(UsageError) as error:
            USERS[user](model)
        assert str(error.value) == said


def test_modules_that_only_have_the_methods_of_an_encoder_are_taken():
    class Own(nn.Module):
        def encode(self, x):
            return x

    own = Own()
    assert encoder_of(own) is own


def test_the_command_line_offers_the_option_only_where_it_exists(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    image, model = tmp_path / "a.png", ("--model", "foreground-lite0.masks")
    features = command("features", image, *model, "-o", tmp_path / "a.npz")
    discover = command("discover", image, *model, "-o", tmp_path / "a.npz")
    assert features.code == discover.code == 2
    assert features.err.strip().endswith(f"{FOREGROUND}.")
    assert discover.err.strip().endswith(f"{FOREGROUND}, or pass --background with this model to discover parts.")


def test_a_protocol_of_classes_needs_an_encoder(tmp_path):
    with pytest.raises(UsageError, match=FOREGROUND):
        evaluate("foreground-lite0.masks", "tiny-imagenet", tmp_path)
