"""Normalisation of each image by its own values, as some networks of others were trained with.

It belongs to such a network and is its first step, so that whoever runs it need not know. Both
kinds give the same for pixels in [0, 1] as for the levels they were read from.
"""

from typing import Literal

import torch
from torch import Tensor

InputNormalisation = Literal["none", "min_max", "z_score", "z_score_nonzero"]


def normalise_images(images: Tensor, kind: InputNormalisation, by_channel: bool = False) -> Tensor:
    """Normalises each image by itself.

    Args:
        images: float (N, C, H, W).
        kind: ``min_max`` brings its values to [0, 1]; ``z_score`` takes off their mean and divides
            by their deviation; ``z_score_nonzero`` likewise, of the values that are not 0, which
            stay 0. What is alike throughout becomes 0.
        by_channel: each channel by itself.
    """
    if kind == "none":
        return images
    over = (2, 3) if by_channel else (1, 2, 3)
    if kind == "min_max":
        lowest, highest = images.amin(over, keepdim=True), images.amax(over, keepdim=True)
        return (images - lowest) / _or_one(highest - lowest)
    counted = (images != 0).to(images) if kind == "z_score_nonzero" else torch.ones_like(images)
    number = counted.sum(over, keepdim=True).clamp(min=1)
    mean = (images * counted).sum(over, keepdim=True) / number
    off = (images - mean) * counted
    deviation = (off.square().sum(over, keepdim=True) / number).sqrt()
    return off / _or_one(deviation)


def _or_one(divisor: Tensor) -> Tensor:
    return torch.where(divisor > 0, divisor, 1.0)
