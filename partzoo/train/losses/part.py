"""The loss that trains PART."""

from __future__ import annotations

from torch import Tensor, nn


def relative_position_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute the mean squared error of translations, over pairs and coordinates.

    Args:
        predicted, target: ``(B, S, 2)``, in patches; ``(B, S, 4)`` with relative sizes.

    Returns:
        A scalar.

    Source: PART, section 4, "Objective" (the sum over pairs divided by 2 * #pairs), and section 5.1 (ii).
    """
    return nn.functional.mse_loss(predicted.float(), target.float())
