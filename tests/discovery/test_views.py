import numpy as np
import pytest

import partzoo
from partzoo.discovery.views import view_image
from partzoo.images.opening import OpenedImage


@pytest.mark.parametrize("size", [(8, 8), (17, 300), (300, 17), (1, 1)])
def test_working_size_suits_model_and_cells(size):
    model = partzoo.load("toy-vit")
    view = view_image(OpenedImage(np.zeros((*size, 3), np.uint8)), model, 64)
    height, width = view.pixels.shape[1:]
    assert view.batch.shape == (1, 3, height, width) and height % model.patch == width % model.patch == 0
