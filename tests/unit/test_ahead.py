import contextlib
import threading
from collections.abc import Iterator

import pytest

from nakt_dist.runtime.ahead import ahead


def counting(made: list[int], fails_at: int = -1) -> Iterator[int]:
    try:
        for number in range(100):
            if number == fails_at:
                raise ValueError("no 3")
            made.append(number)
            yield number
    finally:
        made.append(-1)


def test_items_come_in_order_and_the_thread_ends() -> None:
    before = threading.active_count()
    assert list(ahead(iter(range(50)), 2)) == list(range(50))
    assert threading.active_count() == before


def test_an_error_comes_after_what_was_made_before() -> None:
    items = ahead(counting([], fails_at=3), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(items)


@pytest.mark.parametrize("depth", [1, 3])
def test_who_closes_it_ends_the_thread_and_no_more_is_made_ahead_than_allowed(depth: int) -> None:
    made: list[int] = []
    before = threading.active_count()
    with contextlib.closing(ahead(counting(made), depth)) as items:
        assert [next(items), next(items)] == [0, 1]
    assert threading.active_count() == before
    assert made[-1] == -1  # the generator was closed, in its own thread
    assert len(made) - 1 <= 2 + depth + 1
