"""Dice per image (paper A, section 5)."""

import torch


def dice_per_image(
    prediction: torch.Tensor, target: torch.Tensor, both_empty: float = 1.0
) -> torch.Tensor:
    """Dice similarity 2 |P ∩ T| / (|P| + |T|) of binary masks.

    Args:
        prediction: bool (N, 1, H, W).
        target: bool of the same shape.
        both_empty: value where neither has a pixel; 1 counts agreement, nan leaves it out.

    Returns:
        float64 (N,), in [0, 1].
    """
    prediction, target = prediction.flatten(1), target.flatten(1)
    overlap = (prediction & target).sum(1).double()
    total = prediction.sum(1).double() + target.sum(1).double()
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), both_empty)
