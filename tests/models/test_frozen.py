import pytest
import torch
from torch.nn.functional import interpolate

from partzoo.errors import UnknownModelError, UsageError
from partzoo.models.frozen import frozen_encoder, frozen_features, frozen_shape
from partzoo.models.loading import load

NAMES = ("toy-vit", "patchresnet14.tin", "timm/resnet18", "timm/vit_tiny_patch16_224")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [(), (-1,), (1, 0)])
def test_features_have_the_stated_shape(name, levels):
    encoder = frozen_encoder(name)
    side = encoder.preprocess.multiple
    dim, patch = frozen_shape(encoder, levels)
    maps = frozen_features(encoder, torch.randn(2, 3, 2 * side, 3 * side), levels)
    assert maps.shape == (2, dim, 2 * side // patch, 3 * side // patch)
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    with torch.device("meta"):
        assert frozen_shape(frozen_encoder(name), levels) == (dim, patch)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_is_what_the_encoder_gives(name):
    encoder, x = frozen_encoder(name), torch.randn(1, 3, 64, 96)
    assert torch.equal(frozen_features(encoder, x, (-1,)), frozen_features(encoder, x))


def test_layers_stand_side_by_side_on_the_finest_grid():
    encoder, x = frozen_encoder("patchresnet14.tin"), torch.randn(1, 3, 32, 48)
    fine, coarse = encoder.forward_intermediates(x)
    coarse = interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
    assert torch.equal(frozen_features(encoder, x, (1, 0)), torch.cat([fine, coarse], dim=1))


def test_it_is_configured_as_its_weights_are():
    for name in ("patchresnet14.tin", "part-vitt", "part-vitt8.tin"):
        assert frozen_encoder(name).config == load(name, dtype="float32").config


def test_unknown_encoders_and_layers_are_refused():
    with pytest.raises(UnknownModelError, match="patchresnet14"):
        frozen_encoder("patchresnet15")
    with pytest.raises(UsageError, match="among 2 layers"):
        frozen_shape(frozen_encoder("patchresnet14"), (2,))
