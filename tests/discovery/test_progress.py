import numpy as np

import partzoo


def test_progress_counts_the_images_fitted_on_and_those_labelled():
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8))
    fitted, labelled = [], []
    vocabulary = partzoo.fit_parts(images, 2, model="toy-vit", progress=lambda *counts: fitted.append(counts))
    partzoo.discover_parts(
        images, model="toy-vit", vocabulary=vocabulary, progress=lambda *counts: labelled.append(counts)
    )
    assert fitted == labelled == [(1, 3), (2, 3), (3, 3)]
