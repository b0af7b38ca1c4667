"""Sensitivity and precision of a mask's pixels, per image."""

import torch
from torch import Tensor


def sensitivity_per_image(prediction: Tensor, target: Tensor, both_empty: float = 1.0) -> Tensor:
    """Share of the annotated pixels that are found, |P ∩ T| / |T|, also called recall.

    Args:
        prediction: bool (N, 1, H, W).
        target: bool of the same shape.
        both_empty: value where neither has a pixel.

    Returns:
        float64 (N,), in [0, 1]; not a number where the annotation alone is empty.
    """
    return _share(prediction, target, target, both_empty)


def precision_per_image(prediction: Tensor, target: Tensor, both_empty: float = 1.0) -> Tensor:
    """Share of the predicted pixels that are right, |P ∩ T| / |P|.

    Args:
        prediction: bool (N, 1, H, W).
        target: bool of the same shape.
        both_empty: value where neither has a pixel.

    Returns:
        float64 (N,), in [0, 1]; not a number where the prediction alone is empty.
    """
    return _share(prediction, target, prediction, both_empty)


def _share(prediction: Tensor, target: Tensor, whole: Tensor, both_empty: float) -> Tensor:
    overlap = (prediction & target).flatten(1).sum(1).double()
    share = overlap / whole.flatten(1).sum(1)  # 0 / 0 is not a number
    return torch.where((prediction | target).flatten(1).any(1), share, both_empty)
