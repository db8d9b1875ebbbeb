import numpy as np

import partzoo


def test_progress_counts_the_pictures_fitted_on_and_those_labelled():
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8))
    fitted, labelled = [], []
    vocabulary = partzoo.fit_parts(pictures, 2, model="toy-vit", progress=lambda *counts: fitted.append(counts))
    partzoo.discover_parts(
        pictures, model="toy-vit", vocabulary=vocabulary, progress=lambda *counts: labelled.append(counts)
    )
    assert fitted == labelled == [(1, 3), (2, 3), (3, 3)]
