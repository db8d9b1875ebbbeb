import numpy as np
import pytest
import torch

import partzoo
from partzoo.errors import UsageError


@pytest.fixture(scope="module")
def encoder():
    return partzoo.load("toy-vit")


def pixels(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_shapes_and_geometry(encoder):
    found = partzoo.extract_features(pixels(60, 120), model=encoder, size=64)
    assert found.working == (32, 64) and found.grid == (4, 8) and found.size == (60, 120)
    assert found.dense.shape == (4, 8, encoder.dim) and found.dense.dtype == np.float32
    assert np.allclose(found.pooled, found.dense.mean((0, 1)))
    centres = found.centres()
    assert centres.shape == (4, 8, 2)
    assert np.allclose(centres[0, 0], (7, 7)) and np.allclose(centres[-1, -1], (112, 52))


def test_dense_features_are_the_encoders_own(encoder):
    from partzoo.images.opening import open_image
    from partzoo.images.preprocess import to_tensor

    image = open_image(pixels(32, 32))
    x = to_tensor(image, (32, 32), encoder.preprocess)[None]
    with torch.no_grad():
        expected = encoder.encode(x).maps()[0].permute(1, 2, 0)
        inner = encoder.forward_intermediates(x, [0])[0][0].permute(1, 2, 0)
    assert np.allclose(partzoo.extract_features(image, model=encoder).dense, expected, atol=1e-6)
    assert np.allclose(partzoo.extract_features(image, model=encoder, layer=0).dense, inner, atol=1e-6)


def test_many_images_give_a_list_in_order(encoder):
    images = [pixels(32, 32), pixels(64, 32)]
    found = partzoo.extract_features(images, model="toy-vit")
    assert [each.size for each in found] == [(32, 32), (64, 32)]
    assert np.array_equal(found[1].dense, partzoo.extract_features(images[1], model=encoder).dense)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 300), (300, 17)])
def test_any_size_and_aspect(encoder, size):
    assert np.isfinite(partzoo.extract_features(pixels(*size), model=encoder).dense).all()


def test_unknown_layer_is_an_error(encoder):
    with pytest.raises(UsageError, match=r"layer=99 must be -\d+\.\.\d+, among the model's layers"):
        partzoo.extract_features(pixels(32, 32), model=encoder, layer=99)
