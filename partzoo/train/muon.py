"""The Muon optimizer, for devices that do not multiply bfloat16 natively."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm.optim
import torch
from timm.optim import muon

from partzoo.models.precision import has_bf16

IN_BFLOAT16 = muon.zeropower_via_newtonschulz
IN_FLOAT32 = partial(IN_BFLOAT16, dtype=torch.float32)


class Muon(timm.optim.Muon):
    """timm's Muon, with steps made orthogonal in float32 if the device does not multiply bfloat16 natively.

    timm uses bfloat16 on every device, which takes such a CPU up to twenty times as long.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        if has_bf16(self.param_groups[0]["params"][0].device):
            return super().step(closure)
        # timm has no option for the precision: its optimizer looks this function up in its module.
        muon.zeropower_via_newtonschulz = IN_FLOAT32
        try:
            return super().step(closure)
        finally:
            muon.zeropower_via_newtonschulz = IN_BFLOAT16
