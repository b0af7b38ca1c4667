"""Segmentation losses on soft targets (paper A, section 5 and appendix)."""

import torch
from torch.nn import functional


def dice_loss(
    probability: torch.Tensor, target: torch.Tensor, constant: float = 1.0
) -> torch.Tensor:
    """Dice loss per image, 1 - (2 Σ p t + C) / (Σ p + Σ t + C).

    Args:
        probability: float (N, 1, H, W) or (N, H, W) in [0, 1].
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


def class_segmentation_loss(
    logits: torch.Tensor,
    planes: torch.Tensor,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    constant: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Dice loss plus softmax cross-entropy with soft targets, for classes that exclude each other.

    With one class besides the background this is ``segmentation_loss`` of the difference of the
    two logits.

    Args:
        logits: (N, K, H, W), the background's first.
        planes: (N, K - 1, H, W) in [0, 1], the share of each class but the background, which has
            the rest; or (N, K, H, W), of which the last is the share that is void.
        dice_weight: weight of the Dice loss, the mean over all classes but the background.
        cross_entropy_weight: weight of the cross-entropy.
        constant: C of the Dice loss.

    Returns:
        As ``segmentation_loss``. Both components are averaged over the images, and the
        cross-entropy over all of their pixels: void ones add nothing to it, and are neither
        predicted nor target for Dice. So a batch's loss does not depend on how it is divided.
    """
    foreground, void = split_void(planes.float(), logits.shape[1])
    background = (1 - foreground.sum(1, keepdim=True) - void).clamp(min=0)
    target = torch.cat([background, foreground], dim=1)
    cross_entropy = functional.cross_entropy(logits.float(), target)
    probability = logits.float().softmax(1)[:, 1:] * (1 - void)
    dice = dice_loss(probability.flatten(0, 1), foreground.flatten(0, 1), constant).mean()
    return {
        "loss": dice_weight * dice + cross_entropy_weight * cross_entropy,
        "dice_loss": dice,
        "cross_entropy": cross_entropy,
    }


def split_void(planes: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Divides the planes of a target into those of the classes, and what is void.

    Args:
        planes: (N, K - 1, H, W) or (N, K, H, W), see ``class_segmentation_loss``.
        classes: K.

    Returns:
        (N, K - 1, H, W) and (N, 1, H, W), which is 0 where the target has no plane for it.
    """
    foreground, void = planes[:, : classes - 1], planes[:, classes - 1 :]
    return foreground, void if void.shape[1] else torch.zeros_like(planes[:, :1])
