"""Random numbers as torch's generator on the CPU draws them, without torch."""

from __future__ import annotations

import numpy as np


def _words(seed: int, count: int) -> np.ndarray:
    """Return the first words of 32 bits, uint32, of a Mersenne Twister that is seeded as torch seeds it."""
    return np.random.RandomState(seed % 2**32).randint(0, 2**32, count, np.uint32)


def uniform(seed: int, *shape: int) -> np.ndarray:
    """Return ``torch.rand(shape)`` of a generator with this seed, float32."""
    words = _words(seed, int(np.prod(shape)))
    return (words & 0xFFFFFF).astype(np.float32).reshape(shape) * np.float32(2**-24)


def permutation(seed: int, count: int) -> np.ndarray:
    """Return ``torch.randperm(count)`` of a generator with this seed, int64."""
    found = np.arange(count)
    for place, word in enumerate(_words(seed, max(count - 1, 0)).tolist()):
        other = place + word % (count - place)
        found[place], found[other] = found[other], found[place]
    return found
