"""Print how often the most similar part of another image has the same label, as docs/downstream.md states.

    python experiments/part_retrieval.py DATA/celebamask.tar --limit 100
    python experiments/part_retrieval.py DATA/cars.tar --limit 60

The parts are the true label maps of a set's dev split. The floor compares their mean colour and their place instead.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import partzoo
from partzoo.data.masks import MaskedSet
from partzoo.discovery.colours import cielab

SMALLEST = 0.003  # share of the image's pixels below which a part is left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="tar or folder with images/ and masks/ of label numbers")
    parser.add_argument("--limit", type=int, default=100, help="number of images")
    chosen = parser.parse_args()
    embedded, plain, label, owner = [], [], [], []
    images = MaskedSet(chosen.data, "dev")
    for number, image in enumerate(images[: chosen.limit]):
        parts = partzoo.Parts(image.mask.astype(int), image=image.pixels)
        vectors = partzoo.embed_parts(parts)
        lab = cielab(torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float() / 255).numpy()
        for part in parts.present:
            if parts.areas[part - 1] > SMALLEST * image.mask.size:
                place = parts.centroids[part - 1] / image.mask.shape[::-1] - 0.5
                embedded.append(vectors[part - 1])
                plain.append(np.append(lab[:, parts.mask(part)].mean(1) / 50, 4 * place))
                label.append(part)
                owner.append(number)
    labels, owners, points = np.array(label), np.array(owner), np.array(plain)
    cosines = np.array(embedded) @ np.array(embedded).T
    distances = np.square(points[:, None] - points).sum(-1)
    print(f"{len(labels)} parts, {len(set(label))} labels, most frequent {np.bincount(labels).max() / len(labels):.1%}")
    for name, similar in (("embeddings", cosines), ("colour and place", -distances)):
        similar[owners[:, None] == owners] = -np.inf
        print(f"{name}: {(labels[similar.argmax(1)] == labels).mean():.1%}")


if __name__ == "__main__":
    main()
