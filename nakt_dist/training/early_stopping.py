"""When a training has stopped getting better."""

import math
from collections.abc import Sequence

from nakt_dist.config import EarlyStoppingConfig


def has_stopped_gaining(scores: Sequence[float], config: EarlyStoppingConfig | None) -> bool:
    """Says whether training ends after these validations; a function of them alone.

    Args:
        scores: the metric of each validation so far, in their order, larger is better.
        config: None never ends it.
    """
    if config is None:
        return False
    best, without_gain = -math.inf, 0
    for score in scores:
        gains = score > best + config.smallest_gain
        best, without_gain = (score, 0) if gains else (best, without_gain + 1)
    return without_gain >= config.patience
