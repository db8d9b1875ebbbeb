"""What every optimizer step that is timed ends with."""

from __future__ import annotations

import torch
from torch import Tensor


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Gradients of a loss and one step against them; the loss, so that nothing is left to be computed."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
