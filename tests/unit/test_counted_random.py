"""One generator set to each counter gives what one for each counter gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.loading.counted_random import uniform_rows

WORDS = st.integers(0, 2**64 - 1)


@given(WORDS, WORDS, st.lists(st.integers(0, 2**63 - 1), max_size=5), st.integers(1, 12))
def test_every_number_is_that_of_numpys_generator(seed, epoch, numbers, count):
    found = uniform_rows(seed, epoch, np.asarray(numbers, np.int64), count)
    assert found.shape == (len(numbers), count)
    for row, number in zip(found, numbers, strict=True):
        key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, 1, number], np.uint64)
        bits = np.random.Philox(key=key, counter=counter)
        assert np.array_equal(row, np.random.Generator(bits).random(count))


def test_the_numbers_of_a_sample_are_pinned():
    """A version of numpy or of this module with other numbers would augment old runs otherwise."""
    assert uniform_rows(1, 2, np.array([3]), 4)[0].tolist() == [
        0.6844765152749288,
        0.0721188140161183,
        0.6946221574202349,
        0.7279479982424321,
    ]
