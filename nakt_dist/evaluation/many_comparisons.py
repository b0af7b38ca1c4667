"""P-values of several comparisons that are made at once."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for how many they are (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none becomes smaller than
    the one before, nor larger than 1. Whoever calls a difference shown where its corrected
    p-value is below 0.05 is wrong about any of them in at most 5 % of such families, however the
    comparisons depend on each other.

    Args:
        p_values: in [0, 1], in any order.

    Returns:
        Corrected ones, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected.tolist()
