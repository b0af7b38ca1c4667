"""The metrics of masks and of findings: each a function of its own file, and a line of its list."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from nakt_dist.evaluation.auroc import average_precision
from nakt_dist.evaluation.calibration import expected_calibration_error
from nakt_dist.evaluation.dice import dice_per_image
from nakt_dist.evaluation.pixel_rates import precision_per_image, sensitivity_per_image
from nakt_dist.evaluation.roc import partial_auroc

MaskMetric = Callable[[Tensor, Tensor, float], Tensor]
"""Takes prediction and target, bool (N, 1, H, W), and the value where neither has a pixel; gives
float64 (N,) in [0, 1], larger is better, not a number where it is not defined."""

FindingMetric = Callable[[np.ndarray, np.ndarray], float]
"""Takes probabilities, float (N,) in [0, 1], and targets, float (N,): 1 positive, 0 negative, NaN
ignored; gives what the record is to hold, not a number where it is not defined."""

MASK_METRICS: dict[str, MaskMetric] = {
    "dice": dice_per_image,
    "sensitivity": sensitivity_per_image,
    "precision": precision_per_image,
}
"""By name: ``nakt evaluate`` writes each per image, and its mean, spread and interval."""


def in_percent(metric: FindingMetric) -> FindingMetric:
    """Returns a metric in [0, 1] as one in percent."""
    return lambda probabilities, targets: 100 * metric(probabilities, targets)


FINDING_METRICS: dict[str, FindingMetric] = {
    "average_precision": in_percent(average_precision),
    "partial_auroc": in_percent(partial_auroc),
    "calibration_error": expected_calibration_error,
}
"""By name, beside AUROC: ``nakt evaluate`` writes each per finding, and its mean."""
