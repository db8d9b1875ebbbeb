"""The backward pass and optimizer update that end every timed training step."""

from __future__ import annotations

import torch
from torch import Tensor


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take one step of the optimizer and return the loss as a number, so that no computation is left pending."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
