"""Weights of an ensemble: the least squared error over all that are admissible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.transfer.ensemble_weights import best_weights, squared_error


def sums(outputs: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    count = len(target)
    return outputs @ outputs.T / count, outputs @ target / count, float(target @ target) / count


def test_two_teachers_by_hand() -> None:
    # y = 1 and 0; the one says 1 and 0.5, the other 0.5 and 0: half of each is best.
    outputs, target = np.array([[1.0, 0.5], [0.5, 0.0]]), np.array([1.0, 0.0])
    gram, products, square = sums(outputs, target)
    assert best_weights(gram, products) == pytest.approx([0.5, 0.5])
    assert squared_error(gram, products, square, np.array([0.5, 0.5])) == pytest.approx(0.0625)


def test_alike_teachers_share_their_weight() -> None:
    outputs = np.array([[0.9, 0.2, 0.7], [0.9, 0.2, 0.7], [0.1, 0.8, 0.2]])
    found = best_weights(*sums(outputs, np.array([1.0, 0.0, 1.0]))[:2])
    assert found == pytest.approx([0.5, 0.5, 0.0])


@given(seed=st.integers(0, 10_000), teachers=st.integers(2, 4))
def test_no_admissible_weights_are_better(seed: int, teachers: int) -> None:
    random = np.random.default_rng(seed)
    target = (random.random(40) < 0.4).astype(float)
    outputs = random.random((teachers, 40)) * 0.7 + 0.3 * target
    gram, products, square = sums(outputs, target)

    found = best_weights(gram, products)

    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    error = squared_error(gram, products, square, found)
    assert error == pytest.approx(np.square(found @ outputs - target).mean(), abs=1e-9)
    for others in random.dirichlet(np.ones(teachers) * 0.5, 200):
        assert error <= squared_error(gram, products, square, others) + 1e-9
