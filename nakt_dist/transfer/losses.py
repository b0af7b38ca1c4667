"""Segmentation losses on soft targets (paper A, section 5 and appendix)."""

import torch
from torch.nn import functional


def dice_loss(
    probability: torch.Tensor, target: torch.Tensor, constant: float = 1.0
) -> torch.Tensor:
    """Dice loss per image, 1 - (2 Σ p t + C) / (Σ p + Σ t + C).

    Args:
        probability: float (N, 1, H, W) in [0, 1].
        target: float of the same shape in [0, 1]; soft targets are meant.
        constant: C, which makes two empty masks agree; the paper takes 1.

    Returns:
        float (N,), in [0, 1).
    """
    probability, target = probability.float().flatten(1), target.float().flatten(1)
    overlap = (probability * target).sum(1)
    return 1 - (2 * overlap + constant) / (probability.sum(1) + target.sum(1) + constant)


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    constant: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Dice loss plus binary cross-entropy, in float32 whatever the autocast.

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W) in [0, 1].
        dice_weight: weight of the Dice loss; the paper weighs both equally.
        cross_entropy_weight: weight of the cross-entropy.
        constant: C of the Dice loss.

    Returns:
        ``loss`` (the weighted sum) and its components ``dice_loss`` and ``cross_entropy``,
        each a scalar averaged over the images of the batch.
    """
    logits, target = logits.float(), target.float()
    dice = dice_loss(logits.sigmoid(), target, constant).mean()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target)
    return {
        "loss": dice_weight * dice + cross_entropy_weight * cross_entropy,
        "dice_loss": dice,
        "cross_entropy": cross_entropy,
    }
