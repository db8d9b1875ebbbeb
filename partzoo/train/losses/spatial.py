"""The loss that trains Spatial Reasoning."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def relation_loss(predicted: Tensor, targets: Tensor, alpha: float = 2.0, focus: float = 0.0) -> dict[str, Tensor]:
    """Add the cross-entropy of the logit and ``alpha`` times the mean squared error of both coordinates.

    Args:
        predicted, targets: ``(P, 3)``, both coordinates of the shift, then the logit or the class.
        alpha: weight of the position error; 2 as in the paper, which sums two errors, or 1 as in the published code.
        focus: gamma of the focal loss: a pair's weight is ``0.5 * p ** focus``, where ``p`` is the probability given to
            the wrong class. 0 means plain cross-entropy.

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
