import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.sampler import GlobalBatches, Share

SEEDS = st.integers(0, 2**32)


@st.composite
def orders(draw):
    batch_size = draw(st.integers(1, 12))
    return GlobalBatches([draw(st.integers(batch_size, 70))], batch_size, draw(SEEDS))


@st.composite
def divisions(draw):
    """Two launches of the same run: global batch, and (processes, micro-batch) of each."""
    batch_size = draw(st.integers(1, 24))
    divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
    launches = []
    for _ in range(2):
        processes = draw(st.sampled_from(divisors))
        micro = draw(st.sampled_from([n for n in divisors if (batch_size // processes) % n == 0]))
        launches.append((processes, micro))
    return batch_size, launches


@given(orders(), st.integers(0, 3))
def test_an_epoch_holds_each_sample_at_most_once_and_all_but_the_remainder(order, epoch):
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    batches = [order.batch(step) for step in steps]
    numbers = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {order.batch_size}
    assert len(set(numbers.tolist())) == len(numbers)
    assert order.num_samples - len(numbers) == order.num_samples % order.batch_size
    assert set(numbers.tolist()) <= set(range(order.num_samples))
    assert {order.epoch_of(step) for step in steps} == {epoch}


def global_batches(order, batch_size, processes, micro, steps):
    """Puts the parts of all processes together again, step by step."""
    share = Share.of(batch_size, processes, micro)
    return [
        np.concatenate(
            [
                share.part(order.batch(step), micro_batch, rank)
                for micro_batch in range(share.accumulation)
                for rank in range(processes)
            ]
        ).tolist()
        for step in steps
    ]


@given(divisions(), st.integers(0, 40), SEEDS)
def test_every_launch_sees_the_same_sequence_of_global_batches(division, more, seed):
    batch_size, launches = division
    order = GlobalBatches([batch_size + more], batch_size, seed)
    expected = [order.batch(step).tolist() for step in range(5)]
    for processes, micro in launches:
        assert global_batches(order, batch_size, processes, micro, range(5)) == expected


@given(divisions())
def test_all_parts_have_the_same_size_and_none_overlaps(division):
    batch_size, launches = division
    for processes, micro in launches:
        share = Share.of(batch_size, processes, micro)
        parts = [
            share.part(np.arange(batch_size), micro_batch, rank).tolist()
            for micro_batch in range(share.accumulation)
            for rank in range(processes)
        ]
        assert {len(part) for part in parts} == {micro}
        assert sorted(number for part in parts for number in part) == list(range(batch_size))


@given(orders(), st.integers(0, 30))
def test_any_step_can_be_asked_for_first(order, step):
    walked = [order.batch(number).tolist() for number in range(step + 1)]
    fresh = GlobalBatches(order.sizes, order.batch_size, order.seed)
    assert fresh.batch(step).tolist() == walked[-1]
    assert order.batch(0).tolist() == walked[0]
    assert pickle.loads(pickle.dumps(order)).batch(step).tolist() == walked[-1]


def test_every_epoch_has_another_order_and_another_remainder():
    order = GlobalBatches([50], 8, seed=3)
    epochs = [
        np.concatenate([order.batch(epoch * 6 + step) for step in range(6)]) for epoch in range(20)
    ]
    assert len({tuple(numbers.tolist()) for numbers in epochs}) == 20
    seen = set(np.concatenate(epochs).tolist())
    assert seen == set(range(50))  # no sample is dropped for ever


def test_another_seed_gives_another_order():
    one, other = (GlobalBatches([50], 8, seed) for seed in (0, 1))
    assert one.batch(0).tolist() != other.batch(0).tolist()


def test_the_order_is_the_same_on_every_machine_and_day():
    assert GlobalBatches([10], 5, seed=0).batch(0).tolist() == [0, 7, 8, 6, 9]


def test_a_dataset_smaller_than_a_batch_is_refused_with_what_to_do():
    with pytest.raises(ConfigurationError, match="only 3 samples are left") as caught:
        GlobalBatches([3], 4, 0)
    assert "recipe.global_batch_size is 4" in str(caught.value)


@pytest.mark.parametrize(
    ("batch_size", "processes", "micro"), [(8, 3, None), (8, 2, 3), (2, 4, None), (4, 1, 8)]
)
def test_a_division_with_a_rest_is_refused(batch_size, processes, micro):
    with pytest.raises(ConfigurationError, match="is not a multiple of"):
        Share.of(batch_size, processes, micro)


def test_the_largest_micro_batch_is_taken_where_none_is_asked_for():
    share = Share.of(8, 2, None)
    assert (share.micro_batch_size, share.accumulation) == (4, 1)
    assert Share.of(8, 2, 2).accumulation == 2
