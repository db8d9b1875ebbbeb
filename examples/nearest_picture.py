"""Features for something else: which pictures resemble each other? python examples/nearest_picture.py"""

from pathlib import Path

import numpy as np

import partzoo

pictures = sorted((Path(__file__).parent / "images").glob("*.jpg"))

vectors = np.stack([each.pooled for each in partzoo.extract_features(pictures)])
vectors -= vectors.mean(0)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
cosines = vectors @ vectors.T
np.fill_diagonal(cosines, -1)
for picture, nearest, cosine in zip(pictures, cosines.argmax(1), cosines.max(1), strict=True):
    print(f"{picture.stem:>10} -> {pictures[nearest].stem} (cosine {cosine:.2f})")
