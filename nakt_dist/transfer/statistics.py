"""What is measured on each stored pseudo mask (paper A, section 2)."""

import math

import torch

GREY_LEVELS = 256
TARGET_LEVEL = 128
"""Smallest stored level that counts as target: round(255 y) >= 128 where y > 0.5, and where y is
0.5, as where teachers of binary masks are evenly divided."""


def quantise(probability: torch.Tensor) -> torch.Tensor:
    """Turns probabilities into the stored mask, round(255 clamp(y, 0, 1)).

    Args:
        probability: float, any shape.

    Returns:
        uint8 of the same shape. Rounding, not truncation: the two give other entropies.
    """
    return probability.float().clamp(0, 1).mul(255).round().to(torch.uint8)


def target_pixels(mask: torch.Tensor) -> torch.Tensor:
    """Counts target pixels (paper A: value above 0.5), see ``TARGET_LEVEL``.

    Args:
        mask: uint8 (N, H, W) or (N, 1, H, W), stored masks of one target.

    Returns:
        int64 (N,).
    """
    return (mask >= TARGET_LEVEL).flatten(1).sum(1)


def class_of_pixels(planes: torch.Tensor) -> torch.Tensor:
    """Finds the most probable class of each pixel; of one target, where it is above 0.5.

    The background is what the planes leave of 255. Of equally probable classes it is the first,
    the background before all.

    Args:
        planes: uint8 (N, P, H, W), stored masks with a plane for each class but the background.

    Returns:
        int64 (N, H, W): 0 for the background, 1 for the first plane's class, and so on.
    """
    levels = planes.int()
    background = (GREY_LEVELS - 1 - levels.sum(1, keepdim=True)).clamp(min=0)
    return torch.cat([background, levels], dim=1).argmax(1)


def class_pixels(planes: torch.Tensor) -> torch.Tensor:
    """Counts the pixels whose most probable class is each of those that have a plane.

    Args:
        planes: as for ``class_of_pixels``.

    Returns:
        int64 (N, P).
    """
    return _shown(planes).flatten(2).sum(2)


def _shown(planes: torch.Tensor) -> torch.Tensor:
    """Says where each class that has a plane is the most probable, bool (N, P, H, W)."""
    if planes.shape[1] == 1:
        return planes >= TARGET_LEVEL
    winners = class_of_pixels(planes)
    return torch.stack([winners == number for number in range(1, planes.shape[1] + 1)], dim=1)


def expected_dice(planes: torch.Tensor) -> torch.Tensor:
    """Dice that each mask has if a pixel is target with the probability that it holds.

    Of the pixels that count as target, half of whose number and of all probabilities is what Dice
    divides by: 2 Σ y [y > 0.5] / (Σ y + Σ [y > 0.5]). It is 1 for a binary mask, whatever its size,
    and small where a teacher has no clear target; where there is no target pixel it is 0. Ours.

    Args:
        planes: as for ``class_of_pixels``; of several classes it is the mean over those that are
            anywhere the most probable.

    Returns:
        float64 (N,), from 0 to 1; exact in whole numbers until the divisions.
    """
    shown = _shown(planes)
    hits = torch.where(shown, planes, 0).flatten(2).sum(2)
    counts, levels = shown.flatten(2).sum(2), planes.flatten(2).sum(2)
    dice = 2 * hits.double() / (levels + (GREY_LEVELS - 1) * counts).clamp(min=1)
    return dice.sum(1) / (counts > 0).sum(1).clamp(min=1)


def grey_level_entropy(mask: torch.Tensor) -> torch.Tensor:
    """Shannon entropy of the 256-bin histogram of each mask, in bits.

    One ``bincount`` over ``level + 256 · image`` does the whole batch. Of several classes each has
    a mask of its own, and the entropy of an image is the mean over them: paper A's for one target.

    Args:
        mask: uint8 (N, H, W), stored masks.

    Returns:
        float64 (N,), between 0 and 8.
    """
    count = mask.shape[0]
    offsets = GREY_LEVELS * torch.arange(count, device=mask.device)[:, None]
    bins = (mask.flatten(1).long() + offsets).flatten()
    histogram = torch.bincount(bins, minlength=GREY_LEVELS * count).view(count, GREY_LEVELS)
    share = histogram.double() / mask[0].numel()
    # 0 - x and not -x: a constant mask has entropy 0.0, not -0.0.
    return 0.0 - torch.special.xlogy(share, share).sum(1) / math.log(2)
