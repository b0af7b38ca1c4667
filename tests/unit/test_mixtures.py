"""Several sources in one training: what each global batch holds, in whatever processes."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.counted_random import uniform_rows
from nakt_dist.loading.images import Images
from nakt_dist.loading.sampler import GlobalBatches, Share, batch_order
from nakt_dist.training.by_source import SourceBatches
from nakt_dist.training.tasks import ClassificationTask, SegmentationTask

SEEDS = st.integers(0, 2**32)
WEIGHTS = st.floats(0.01, 100)


@st.composite
def mixtures(draw):
    """Sizes and weights of up to four sources, and a batch size."""
    sources = draw(st.lists(st.tuples(st.integers(1, 40), WEIGHTS), min_size=2, max_size=4))
    sizes, weights = zip(*sources, strict=True)
    batch_size = draw(st.integers(1, min(16, sum(sizes))))
    return batch_order(sizes, weights, batch_size, draw(SEEDS)), weights


@given(mixtures())
def test_every_batch_and_every_epoch_has_its_share_of_each_source_to_within_an_image(mixture):
    order, weights = mixture
    shares = np.asarray(weights) / sum(weights)
    counts = [
        np.bincount(order.sources(order.batch(step)), minlength=len(order.sizes))
        for step in range(2 * order.steps_per_epoch)
    ]
    assert np.abs(counts - order.batch_size * shares).max() < 1 + 1e-6
    for epoch in (1, 2):
        draws = epoch * order.steps_per_epoch * order.batch_size
        whole = np.sum(counts[: epoch * order.steps_per_epoch], 0)
        assert np.abs(whole - draws * shares).max() < epoch * (1 + 1e-6)
    assert order.steps_per_epoch == sum(order.sizes) // order.batch_size


@given(mixtures())
def test_no_image_comes_again_before_all_of_its_source_came(mixture):
    order, _ = mixture
    draws = [
        draw
        for step in range(2 * order.steps_per_epoch)
        for draw in zip(order.batch(step).tolist(), order.visits(step).tolist(), strict=True)
    ]
    assert len(set(draws)) == len(draws)  # an image is augmented anew each time
    start = 0
    for size in order.sizes:
        own = [visit for number, visit in draws if start <= number < start + size]
        passes = Counter(own)
        assert all(passes[number] == size for number in range(max(passes, default=0)))
        start += size


@given(mixtures(), st.data())
def test_every_launch_sees_the_same_batches_and_visits_from_any_step_on(mixture, data):
    order, weights = mixture
    fresh = batch_order(order.sizes, weights, order.batch_size, order.seed)
    step = data.draw(st.integers(0, 3 * order.steps_per_epoch))
    divisors = [n for n in range(1, order.batch_size + 1) if order.batch_size % n == 0]
    world_size = data.draw(st.sampled_from(divisors))
    share = Share.of(order.batch_size, world_size, None)
    for of_step, expected in ((fresh.batch, order.batch(step)), (fresh.visits, order.visits(step))):
        parts = [share.part(of_step(step), 0, rank) for rank in range(world_size)]
        assert np.concatenate(parts).tolist() == expected.tolist()


@given(mixtures(), st.booleans(), st.integers(0, 60))
def test_what_was_drawn_of_each_source_is_known_without_drawing(mixture, weighted, steps):
    order, _ = mixture
    if not weighted:
        order = batch_order(order.sizes, None, order.batch_size, order.seed)
    counted = np.zeros(len(order.sizes), int)
    for step in range(steps):
        counted += np.bincount(order.sources(order.batch(step)), minlength=len(counted))
    assert order.drawn(steps).tolist() == counted.tolist()


def test_without_weights_every_image_comes_once_as_if_all_were_one_dataset():
    together, one = batch_order([5, 20, 15], None, 8, 3), GlobalBatches([40], 8, 3)
    for step in range(12):
        assert together.batch(step).tolist() == one.batch(step).tolist()
        assert together.visits(step).tolist() == one.visits(step).tolist()


def test_the_order_of_a_mixture_is_the_same_on_every_machine_and_day():
    order = batch_order([3, 30, 7], [1, 2, 1], 8, seed=0)
    assert order.batch(1).tolist() == [7, 29, 36, 2, 8, 1, 39, 11]
    assert order.visits(1).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_shares_that_are_whole_numbers_are_kept_exactly():
    order = batch_order([10, 37, 100], [0.7, 0.2, 0.1], 10, 3)
    counts = [np.bincount(order.sources(order.batch(step))).tolist() for step in range(40)]
    assert counts == [[7, 2, 1]] * 40


def test_a_mixture_smaller_than_a_batch_is_refused():
    with pytest.raises(ConfigurationError, match="only 3 samples are left"):
        batch_order([1, 2], [1, 1], 4, 0)


def test_random_numbers_of_several_visits_are_those_of_each_alone():
    numbers, visits = np.array([3, 9, 3]), np.array([0, 5, 2])
    together = uniform_rows(7, visits, numbers, 4)
    for row, number, visit in zip(together, numbers, visits, strict=True):
        assert row.tolist() == uniform_rows(7, int(visit), np.array([number]), 4)[0].tolist()
        alone = np.random.Philox(key=[7, visit], counter=[0, 0, 1, number])
        assert row.tolist() == np.random.Generator(alone).random(4).tolist()


class Labels(Images):
    """Three sources of random findings, some of them ignored; or of masks."""

    sizes, source_names, form, memory_bytes = (4, 9, 7), ("a", "b", "c"), (1, 4, 4), 0

    def __init__(self, target: torch.Tensor) -> None:
        self.target = target
        self.counted = None if target.ndim > 2 else (~target.isnan()).sum(1).numpy()

    @property
    def labels_that_count(self):
        return self.counted

    def open_memory(self): ...
    def keys(self, numbers): ...
    def empty_target(self, numbers, pinned=False): ...
    def read_into(self, number, image, target): ...


@pytest.mark.parametrize("findings", [True, False])
@pytest.mark.parametrize(("world_size", "micro"), [(1, 8), (2, 4), (4, 2), (2, 1)])
def test_the_loss_of_a_source_is_that_of_its_images_however_a_batch_is_divided(
    findings, world_size, micro
):
    drawn = torch.Generator().manual_seed(0)
    shape = (20, 5) if findings else (20, 1, 4, 4)
    target = (torch.rand(shape, generator=drawn) > 0.5).float()
    if findings:
        target[torch.rand(shape, generator=drawn) > 0.6] = torch.nan
        target[:4] = torch.nan  # of the first source nothing counts
    logits = torch.randn(shape, generator=drawn)
    kind = ClassificationTask if findings else SegmentationTask
    task = kind(1, PreprocessingConfig(mean=0.0, std=1.0), RecipeConfig(steps=1))
    images, order = Labels(target), batch_order(Labels.sizes, [1, 2, 1], 8, 0)
    share = Share.of(8, world_size, micro)
    for step in range(3):
        told: Counter[str] = Counter()
        for rank in range(world_size):
            batches = SourceBatches(images, order, share, rank, torch.device("cpu"))
            for part in range(share.accumulation):
                rows = share.part(order.batch(step), part, rank)
                found = task._by_source(logits[rows], target[rows], batches.rows(step, part))
                for name, value in found.items():
                    told[name] += float(value) / share.accumulation / world_size
        batch = order.batch(step)
        expected = {
            f"loss_by_source/{name}": float(task.loss(logits[own], target[own])["loss"])
            for number, name in enumerate("abc")
            if len(own := batch[order.sources(batch) == number])
        }
        if findings:
            assert expected.pop("loss_by_source/a") == 0
        assert batches.of_those_there(step, told) == pytest.approx(expected, abs=1e-6)
