"""The metrics of a predicted mask: each a function of its own file, and a line of the list."""

from collections.abc import Callable

from torch import Tensor

from nakt_dist.evaluation.dice import dice_per_image

MaskMetric = Callable[[Tensor, Tensor, float], Tensor]
"""Takes prediction and target, bool (N, 1, H, W), and the value where neither has a pixel; gives
float64 (N,) in [0, 1], larger is better, not a number where it is not defined."""

MASK_METRICS: dict[str, MaskMetric] = {
    "dice": dice_per_image,
}
"""By name: ``nakt evaluate`` writes each per image, and its mean, spread and interval."""
