"""A sketch of pictures knows what two sets share."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.shards.pictures import MOST_KEPT, shared_pictures, sketch_pictures

SETS = st.sets(st.integers(0, 2**63 - 1), max_size=50)


def in_order(numbers) -> np.ndarray:
    return np.array(sorted(numbers), dtype=np.int64)


@given(SETS, SETS)
def test_small_sets_are_known_whole(first: set[int], second: set[int]) -> None:
    sketch = sketch_pictures(in_order(first))
    assert sketch["count"] == len(first)
    assert shared_pictures(sketch, in_order(second)) == len(first & second)


def test_of_a_large_set_a_test_set_within_it_is_noticed() -> None:
    random = np.random.default_rng(0)
    learnt = np.unique(random.integers(0, 2**63 - 1, 100_000))
    sketch = sketch_pictures(learnt)
    tested = np.sort(random.choice(learnt, 1000, replace=False))
    found = shared_pictures(sketch, tested)
    assert 5 < found < 50  # 20 expected
    strange = np.unique(random.integers(0, 2**63 - 1, 1000))
    assert shared_pictures(sketch, strange) == 0
    assert len(sketch["smallest"]) < 8 * MOST_KEPT * 4 / 3 + 4
