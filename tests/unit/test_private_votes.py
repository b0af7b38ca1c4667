"""Private votes: the mechanism, its noise, and what the accountant says it costs."""

import math
import sys

import numpy as np
import pytest

from nakt_dist.errors import ConfigurationError
from nakt_dist.transfer.private_votes import Spending, VotingRule, epsilon_of, secret_noise

KEY = bytes(range(32))


def test_answers_by_hand() -> None:
    rule = VotingRule(noise=2.0, threshold=8.0, threshold_noise=1.0)
    votes = np.array([9.0, 1.0, 5.0, 5.0, 9.0])
    # Of ten teachers: the comparison's noise, and the answer's.
    noise = np.array([[0.0, 0.0, 0.0, 3.5, -1.5], [0.0, 0.0, 0.0, -0.1, 0.0]])
    np.testing.assert_array_equal(rule.answer(votes, 10, noise), [1, 0, np.nan, 0, np.nan])
    # Without a threshold all are answered, and noise may turn an answer over.
    noise = np.array([[0.0] * 5, [-2.5, 2.5, 0.1, -0.1, 0.0]])
    np.testing.assert_array_equal(VotingRule(2.0).answer(votes, 10, noise), [0, 1, 1, 0, 1])


def test_noise_is_drawn_once_for_a_query() -> None:
    keys = [f"image_{number}" for number in range(500)]
    query = {"teachers": ["a", "b"]}
    first = secret_noise(KEY, query, keys, 3)
    np.testing.assert_array_equal(secret_noise(KEY, query, keys[7:9], 3), first[:, 7:9])
    for other in (
        secret_noise(KEY, {"teachers": ["a", "c"]}, keys, 3),
        secret_noise(bytes(32), query, keys, 3),
    ):
        assert not np.isclose(first, other).any()
    assert first.shape == (2, 500, 3)
    assert len(np.unique(first)) == first.size
    assert abs(first.mean()) < 0.1
    assert first.std() == pytest.approx(1, abs=0.05)


def epsilon_by_hand(sigma: float, count: int, delta: float) -> float:
    """The least of the conversion (Canonne and others 2020, proposition 12) over a fine grid."""
    orders = np.concatenate([1 + np.geomspace(0.01, 1, 400), np.linspace(2, 500, 100_000)])
    divergence = count * orders / (2 * sigma**2)
    rest = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float((divergence + rest).min())


@pytest.mark.parametrize(("sigma", "count"), [(40.0, 286), (100.0, 1000), (20.0, 50)])
def test_epsilon_is_that_of_gaussian_mechanisms(sigma: float, count: int) -> None:
    delta = 1e-5
    found = epsilon_of([Spending(VotingRule(sigma), count, count)], delta)
    assert found == pytest.approx(epsilon_by_hand(sigma, count, delta), rel=0.01)
    # Published: at most what zero-concentrated privacy gives (Bun and Steinke 2016, prop. 1.3).
    concentrated = count / (2 * sigma**2)
    assert found <= concentrated + 2 * math.sqrt(concentrated * math.log(1 / delta))


def test_the_comparison_costs_what_is_not_answered_too() -> None:
    rule = VotingRule(40.0, threshold=8.0, threshold_noise=100.0)
    some = epsilon_of([Spending(rule, 1000, 200)], 1e-5)
    # Squares of 1/σ add up: 1000/100² + 200/40² = 360/40².
    assert some == pytest.approx(epsilon_of([Spending(VotingRule(40.0), 360, 360)], 1e-5), rel=1e-6)
    both = epsilon_of([Spending(VotingRule(40.0), 180, 180)] * 2, 1e-5)
    assert both == pytest.approx(some, rel=1e-6)


def test_without_the_accountant_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigurationError, match=r"pip install .nakt_dist\[private\]"):
        epsilon_of([Spending(VotingRule(40.0), 1, 1)], 1e-5)
