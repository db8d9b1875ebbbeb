"""The loss that trains Spatial Reasoning."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def relation_loss(predicted: Tensor, targets: Tensor, alpha: float = 2.0, focus: float = 0.0) -> dict[str, Tensor]:
    """Compute the logit's cross-entropy, and add ``alpha`` times the mean squared error of both positions.

    Args:
        predicted, targets: ``(P, 3)``, positions and then the logit or class.
        alpha: weight of the position error; 2 as in the paper, which sums two errors, or 1 as in the published code.
        focus: gamma of the focal loss: a pair's weight is half of the wrong class's probability to this power. 0 means
            plain cross-entropy.

    Returns:
        Scalars ``"loss"``, ``"same"`` and ``"position"``, before ``alpha``.

    Source: equation 3; for the focal loss Patacchiola and Storkey, "Self-supervised relational reasoning for
    representation learning" (2020), whose gamma is 2.
    """
    predicted = predicted.float()
    logit, target = predicted[:, 2], targets[:, 2]
    same = binary_cross_entropy_with_logits(logit, target, reduction="none")
    if focus:
        same = 0.5 * (1 - (-same).exp()) ** focus * same
    same = same.mean()
    position = mse_loss(predicted[:, :2], targets[:, :2])
    return {"loss": same + alpha * position, "same": same, "position": position}
