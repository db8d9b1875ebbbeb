"""Features for another task: which images resemble each other? python examples/nearest_image.py"""

from pathlib import Path

import numpy as np

import partzoo

images = sorted((Path(__file__).parent / "images").glob("*.jpg"))

vectors = np.stack([each.pooled for each in partzoo.extract_features(images)])
vectors -= vectors.mean(0)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
cosines = vectors @ vectors.T
np.fill_diagonal(cosines, -1)
for image, nearest, cosine in zip(images, cosines.argmax(1), cosines.max(1), strict=True):
    print(f"{image.stem:>10} -> {images[nearest].stem} (cosine {cosine:.2f})")
