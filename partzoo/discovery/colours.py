"""Convert colours to CIELAB, in which distances approximate perceived differences."""

from __future__ import annotations

import torch
from torch import Tensor


def cielab(rgb: Tensor) -> Tensor:
    """Convert sRGB ``(3, ...)`` in 0..1 to CIELAB (D65), L in 0..100."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = torch.tensordot(_XYZ, linear, dims=1).unbind()
    x, y, z = (torch.where(t > 216 / 24389, t ** (1 / 3), t * (24389 / 27 / 116) + 16 / 116) for t in (x, y, z))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / torch.tensor([0.95047, 1, 1.08883])[:, None]  # fmt: skip
