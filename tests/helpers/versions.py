"""Marks for tests of what depends on the versions of other software."""

import PIL
import pytest
import torch

PILLOW = int(PIL.__version__.partition(".")[0])
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
as_pillow_13 = pytest.mark.skipif(PILLOW < 13, reason="Pillow resized to some sizes in another order before version 13")
lean_einops = pytest.mark.skipif(TORCH < (2, 9), reason="einops imports the compiler of older versions of torch")
