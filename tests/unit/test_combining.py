"""The median and STAPLE of several masks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.transfer.combining import median, staple


def staple_pixel_by_pixel(votes: np.ndarray) -> np.ndarray:
    """The equations of the paper over all pixels of one image, bool (T, P)."""
    prior = votes.mean()
    sensitivity = specificity = np.full(len(votes), 0.99)
    for _ in range(100):
        there = np.where(votes, sensitivity[:, None], 1 - sensitivity[:, None]).prod(0)
        absent = np.where(votes, 1 - specificity[:, None], specificity[:, None]).prod(0)
        target = prior * there / np.maximum(prior * there + (1 - prior) * absent, 1e-300)
        bounds = 1e-6, 1 - 1e-6
        sensitivity = ((votes * target).sum(1) / max(target.sum(), 1e-300)).clip(*bounds)
        rest = 1 - target
        specificity = ((~votes * rest).sum(1) / max(rest.sum(), 1e-300)).clip(*bounds)
    return target


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), voters=st.integers(3, 5))
def test_staple_equals_the_papers_equations(seed: int, voters: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((2, 6, 7)) < 0.4
    flipped = random.random((voters, 2, 6, 7)) < random.random((voters, 1, 1, 1)) * 0.4
    outputs = np.where(truth ^ flipped, 0.9, 0.2)

    found = staple(torch.from_numpy(outputs)).numpy()

    expected = [staple_pixel_by_pixel((outputs > 0.5)[:, n].reshape(voters, -1)) for n in (0, 1)]
    np.testing.assert_allclose(found, np.reshape(expected, truth.shape), atol=1e-6)


def test_bad_voters_are_overruled_where_a_majority_is_not_enough() -> None:
    random = np.random.default_rng(0)
    truth = random.random((1, 64, 64)) < 0.3
    shares = (0.05, 0.05, 0.4, 0.4, 0.4)
    votes = [truth ^ (random.random(truth.shape) < share) for share in shares]
    found = staple(torch.from_numpy(np.stack(votes).astype(float))).numpy() > 0.5
    majority = np.sum(votes, axis=0) >= 3
    assert (found != truth).mean() < 0.9 * (majority != truth).mean()


def test_nothing_and_everything_stay_what_they_are() -> None:
    nothing, everything = torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    assert staple(nothing).max() < 1e-3
    assert staple(everything).min() > 1 - 1e-3


def test_the_median_by_hand() -> None:
    nan = float("nan")
    outputs = torch.tensor([[0.1, 0.2, nan, nan], [0.9, 0.4, 0.5, nan], [0.3, nan, nan, nan]])
    assert median(outputs).tolist() == pytest.approx([0.3, 0.3, 0.5, nan], nan_ok=True)
