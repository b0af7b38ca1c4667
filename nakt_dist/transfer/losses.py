"""Segmentation losses on soft targets (paper A, section 5 and appendix)."""

from typing import Literal

import torch
from torch.nn import functional

from nakt_dist.transfer.binary_loss import CROSS_ENTROPY, BinaryLoss

CertaintyWeighting = Literal["none", "pixel", "image"]


def certainty(target: torch.Tensor, by: CertaintyWeighting) -> torch.Tensor:
    """Weighs a target by how sure its teachers are: |2 t - 1|, 1 of an annotation.

    Args:
        target: float (N, ...) in [0, 1]; NaN where nothing is said, which stays.
        by: each ``pixel`` (or finding) by itself, or each ``image`` by its mean.

    Returns:
        float of the same shape, or (N, 1, ...), in [0, 1].
    """
    sure = (2 * target - 1).abs()
    if by == "pixel":
        return sure
    return sure.nanmean(dim=tuple(range(1, sure.ndim)), keepdim=True)


def dice_loss(
    probability: torch.Tensor,
    target: torch.Tensor,
    constant: float = 1.0,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Dice loss per image, 1 - (2 Σ w p t + C) / (Σ w p + Σ w t + C).

    Args:
        probability: float (N, 1, H, W) or (N, H, W) in [0, 1].
        target: float of the same shape in [0, 1]; soft targets are meant.
        constant: C, which makes two empty masks agree; the paper takes 1.
        weight: w of each pixel, of the same shape; None for 1, as in the paper.

    Returns:
        float (N,), in [0, 1).
    """
    probability, target = probability.float().flatten(1), target.float().flatten(1)
    if weight is None:
        overlap, sums = (probability * target).sum(1), probability.sum(1) + target.sum(1)
    else:
        weight = weight.flatten(1)
        overlap = (weight * probability * target).sum(1)
        sums = (weight * (probability + target)).sum(1)
    return 1 - (2 * overlap + constant) / (sums + constant)


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    constant: float = 1.0,
    weighting: CertaintyWeighting = "none",
    loss: BinaryLoss = CROSS_ENTROPY,
) -> dict[str, torch.Tensor]:
    """Dice loss plus binary cross-entropy, in float32 whatever the autocast.

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W) in [0, 1].
        dice_weight: weight of the Dice loss; the paper weighs both equally.
        cross_entropy_weight: weight of the loss of pixels.
        constant: C of the Dice loss.
        weighting: by the teachers' ``certainty``; ours. What they are not sure of adds less to
            the loss, whose divisor stays the number of pixels.
        loss: of a pixel; the paper's is cross-entropy.

    Returns:
        ``loss`` (the weighted sum) and its components ``dice_loss`` and that of pixels, such as
        ``cross_entropy``, each a scalar averaged over the images of the batch.
    """
    logits, target = logits.float(), target.float()
    weight = None if weighting == "none" else certainty(target, weighting).expand_as(target)
    of_pixels = loss.mean(logits, target, weight)
    dice = _weighted_dice(logits.sigmoid(), target, constant, weight, weighting)
    return _summed(dice, of_pixels, dice_weight, cross_entropy_weight, loss.name)


def class_segmentation_loss(
    logits: torch.Tensor,
    planes: torch.Tensor,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    constant: float = 1.0,
    weighting: CertaintyWeighting = "none",
) -> dict[str, torch.Tensor]:
    """Dice loss plus softmax cross-entropy with soft targets, for classes that exclude each other.

    With one class besides the background this is ``segmentation_loss`` of the difference of the
    two logits.

    Args:
        logits: (N, K, H, W), the background's first.
        planes: (N, K - 1, H, W) in [0, 1], the share of each class but the background, which has
            the rest; or (N, K, H, W), of which the last is the share that is void.
        dice_weight: weight of the Dice loss, the mean over all classes but the background.
        constant: C of the Dice loss.
        weighting: as for ``segmentation_loss``, by how far the most probable class is above
            chance: (K max t - 1) / (K - 1).

    Returns:
        As ``segmentation_loss``. Both components are averaged over the images, and the
        cross-entropy over all of their pixels: void ones add nothing to it, and are neither
        predicted nor target for Dice. So a batch's loss does not depend on how it is divided.
    """
    classes = logits.shape[1]
    foreground, void = split_void(planes.float(), classes)
    background = (1 - foreground.sum(1, keepdim=True) - void).clamp(min=0)
    target = torch.cat([background, foreground], dim=1)
    weight = None
    if weighting != "none":
        above_chance = (classes * target.amax(1, keepdim=True) - 1) / (classes - 1)
        # Nobody says anything of what is void: it makes no image less sure.
        sure = ((above_chance.clamp(min=0) + 1) / 2).masked_fill(void > 0.5, torch.nan)
        weight = certainty(sure, weighting).nan_to_num(0.0).expand_as(background)
    if weight is None:
        cross_entropy = functional.cross_entropy(logits.float(), target)
    else:
        each = functional.cross_entropy(logits.float(), target, reduction="none")
        cross_entropy = (each * weight[:, 0]).mean()
    probability = logits.float().softmax(1)[:, 1:] * (1 - void)
    if weight is not None:
        weight = weight.expand_as(foreground).flatten(0, 1)
    both = probability.flatten(0, 1), foreground.flatten(0, 1)
    dice = _weighted_dice(*both, constant, weight, weighting)
    return _summed(dice, cross_entropy, dice_weight, cross_entropy_weight)


def _weighted_dice(
    probability: torch.Tensor,
    target: torch.Tensor,
    constant: float,
    weight: torch.Tensor | None,
    weighting: CertaintyWeighting,
) -> torch.Tensor:
    """Returns the mean Dice loss of masks, their pixels weighed, or each as a whole."""
    if weighting != "image" or weight is None:
        return dice_loss(probability, target, constant, weight).mean()
    return (dice_loss(probability, target, constant) * weight.flatten(1)[:, 0]).mean()


def _summed(
    dice: torch.Tensor,
    of_pixels: torch.Tensor,
    dice_weight: float,
    weight_of_pixels: float,
    name: str = "cross_entropy",
) -> dict[str, torch.Tensor]:
    return {
        "loss": dice_weight * dice + weight_of_pixels * of_pixels,
        "dice_loss": dice,
        name: of_pixels,
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
