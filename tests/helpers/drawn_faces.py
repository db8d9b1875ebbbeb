"""A folder in the layout of faces68: drawn faces whose landmarks move with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 160


def write_faces(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write ``split.avif`` and ``split.npz`` for every split and its number of images."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        sheet = Image.new("RGB", (4 * SIDE, -(-count // 4) * SIDE))
        landmarks = np.zeros((count, 68, 2))
        for i in range(count):
            x, y = rng.integers(60, 100, 2).tolist()
            sheet.paste(_face(x, y), (i % 4 * SIDE, i // 4 * SIDE))
            landmarks[i] = np.array([x, y]) + _shape()
        sheet.save(folder / f"{split}.avif", quality=100, subsampling="4:4:4")
        np.savez(folder / f"{split}.npz", landmarks=landmarks, person=np.arange(count) // 2)
    return folder


def _face(x: int, y: int) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), (60, 120, 70))
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - 40, y - 48, x + 40, y + 48), fill=(230, 190, 160))
    for side in (-16, 16):
        draw.ellipse((x + side - 6, y - 18, x + side + 6, y - 6), fill=(30, 30, 90))
    draw.rectangle((x - 16, y + 22, x + 16, y + 30), fill=(190, 40, 60))
    return image


def _shape() -> np.ndarray:
    """68 landmarks about the face's centre: eyes, nose and mouth where they are drawn, the rest around them."""
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([-38 * np.cos(turn), 46 * np.sin(turn)], axis=1)
    brows = np.stack([np.linspace(-24, 24, 10), np.full(10, -26.0)], axis=1)
    nose = np.stack([np.zeros(9), np.linspace(-10, 10, 9)], axis=1)
    eyes = [(side, -12.0) for side in (-16.0, 16.0) for _ in range(6)]
    mouth = np.stack([np.linspace(-16, 16, 20), np.full(20, 26.0)], axis=1)
    mouth[[0, 6]] = (-16, 26), (16, 26)
    return np.concatenate([jaw, brows, nose, eyes, mouth])
