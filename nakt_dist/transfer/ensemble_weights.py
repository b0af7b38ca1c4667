"""The weights of an ensemble, found on images with annotations, in closed form."""

import itertools

import numpy as np

MOST_TEACHERS = 12
"""Every subset of them is tried."""

_EQUAL = 1e-9


def squared_error(
    gram: np.ndarray, products: np.ndarray, square: float, weights: np.ndarray
) -> float:
    """Mean squared error of a weighted mean of teachers (the Brier score of its probabilities).

    Args:
        gram: float64 (T, T), mean of T_i T_j over all pixels or findings.
        products: float64 (T,), mean of T_i y.
        square: mean of y².
        weights: float64 (T,), their sum 1.
    """
    return float(weights @ gram @ weights - 2 * weights @ products + square)


def best_weights(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Finds the weights, none negative and their sum 1, of least squared error.

    The error is quadratic, so that for each subset of teachers with a positive weight its minimum
    solves a linear system; the best of those that are admissible is the minimum over all. Of
    subsets that are equally good the largest is taken, and among alike teachers equal weights.

    Args:
        gram: as for ``squared_error``.
        products: likewise.

    Returns:
        float64 (T,).
    """
    count = len(products)
    best, least = np.full(count, 1 / count), np.inf
    for size in range(count, 0, -1):
        for subset in map(list, itertools.combinations(range(count), size)):
            system = np.ones((size + 1, size + 1))
            system[:size, :size], system[size, size] = gram[np.ix_(subset, subset)], 0
            answer = np.linalg.lstsq(system, np.append(products[subset], 1.0), rcond=_EQUAL)[0]
            weights = np.zeros(count)
            weights[subset] = answer[:size]
            if weights.min() < -_EQUAL or abs(weights.sum() - 1) > _EQUAL:
                continue
            error = squared_error(gram, products, 0.0, weights)
            if error < least - _EQUAL:
                best, least = weights, error
    return best.clip(min=0) / best.clip(min=0).sum()
