"""The order of samples: a pure function of seed and step, whatever the number of processes."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.errors import ConfigurationError


class BatchOrder(ABC):
    """The endless sequence of global batches of one training run (promise 3).

    To resume is to ask for the next step.

    Args:
        sizes: images of each source; the samples are numbered one source after the other.
        batch_size: images per optimiser step, over all processes.
        seed: of all draws.

    Raises:
        ConfigurationError: there are fewer images than one batch has.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        self.sizes, self.batch_size, self.seed = tuple(sizes), batch_size, seed
        self.num_samples = sum(sizes)
        self._ends = np.cumsum(self.sizes)
        if self.num_samples < batch_size:
            raise ConfigurationError(
                f"recipe.global_batch_size is {batch_size}, but only {self.num_samples} "
                "samples are left to train on (after splits, count and exclusion). "
                "Lower it, or loosen data.exclusion"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches per epoch, which has as many draws as there are images."""
        return self.num_samples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """Returns the epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def sources(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the source, from 0, of each sample number."""
        return np.searchsorted(self._ends, numbers, side="right")

    @abstractmethod
    def batch(self, step: int) -> np.ndarray:
        """Returns the sample numbers, int64 (batch_size,), of the global batch of a step."""

    @abstractmethod
    def visits(self, step: int) -> np.ndarray:
        """Returns how often each sample of a batch was passed before, int64 (batch_size,).

        Together with the sample it tells a draw from all others: augmentation depends on it.
        """

    @abstractmethod
    def drawn(self, steps: int) -> np.ndarray:
        """Returns how many images of each source the first steps draw, int64 (sources,)."""


def batch_order(
    sizes: Sequence[int], weights: Sequence[float] | None, batch_size: int, seed: int
) -> BatchOrder:
    """Returns the order in which sources are learnt from.

    Args:
        weights: of the sources; None learns from every image once an epoch.

    Raises:
        ConfigurationError: there are fewer images than one batch has.
    """
    if weights is None or len(sizes) == 1:
        return GlobalBatches(sizes, batch_size, seed)
    return WeightedBatches(sizes, batch_size, seed, weights)


class GlobalBatches(BatchOrder):
    """Every epoch is a permutation of all images, drawn from (seed, epoch).

    It is cut into batches of equal size; the rest is dropped, another rest each epoch, because
    BatchNorm after global pooling cannot train on one image (paper A's DeepLabv3+) and because
    equal shares per process make the mean over processes the mean over the batch.
    """

    def batch(self, step: int) -> np.ndarray:
        """See ``BatchOrder``."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.num_samples, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def visits(self, step: int) -> np.ndarray:
        """Returns the epoch, of each."""
        return np.full(self.batch_size, self.epoch_of(step))

    def drawn(self, steps: int) -> np.ndarray:
        """See ``BatchOrder``."""
        whole, rest = divmod(steps, self.steps_per_epoch)
        epochs = [(epoch, self.steps_per_epoch) for epoch in range(whole)] + [(whole, rest)]
        return sum(
            (
                self._by_source(_order(self.num_samples, self.seed, epoch)[: n * self.batch_size])
                for epoch, n in epochs
            ),
            np.zeros(len(self.sizes), np.int64),
        )

    def _by_source(self, numbers: np.ndarray) -> np.ndarray:
        return np.bincount(self.sources(numbers), minlength=len(self.sizes))


@functools.lru_cache(maxsize=2)
def _order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_samples)


class WeightedBatches(BatchOrder):
    """Every global batch has its share of each source, to within one image.

    A source is passed through in permutations of its own, drawn from (seed, source, pass), the
    next one where one ends, also within a batch: no image comes again before all of its source
    came. So a small source is repeated within an epoch, and of a large one a part is seen.

    Where a share is no whole number of images, systematic sampling says which sources have one
    more: laid end to end on a line, those whose piece holds an integer, once the line is moved by
    a number in [0, 1). Over an epoch these numbers are evenly spaced, so that each source has its
    share of the epoch to within one image, too.

    Args:
        weights: of the sources, positive; a share is a weight by their sum.
    """

    def __init__(
        self, sizes: Sequence[int], batch_size: int, seed: int, weights: Sequence[float]
    ) -> None:
        super().__init__(sizes, batch_size, seed)
        # Rounded, so that 0.7 / (0.7 + 0.2 + 0.1) of 10 images is 7 of them.
        wanted = np.round(np.asarray(weights) / math.fsum(weights) * batch_size, 9)
        least = np.floor(wanted).astype(np.int64)
        ends = np.round(np.concatenate([[0.0], np.cumsum(wanted - least)]), 6)
        ends[-1] = batch_size - least.sum()
        moved = np.floor(ends + self._evenly_spaced()[:, None]).astype(np.int64)
        self._counts = least + np.diff(moved, axis=1)
        """int64 (steps_per_epoch, sources), images of each; alike in all epochs."""
        self._before = np.cumsum(self._counts, axis=0) - self._counts
        self._per_epoch = self._counts.sum(0)
        # A batch may end one pass and begin the next; who reads ahead is a few batches further.
        self._pass = functools.lru_cache(maxsize=4 * len(sizes))(self._permutation)

    def _evenly_spaced(self) -> np.ndarray:
        """Returns a number in (0, 1) per step of an epoch, in a drawn order."""
        steps = self.steps_per_epoch
        return (self._generator(0, 0).permutation(steps) + 0.5) / steps

    def batch(self, step: int) -> np.ndarray:
        """See ``BatchOrder``."""
        return self._draws(step)[0]

    def visits(self, step: int) -> np.ndarray:
        """See ``BatchOrder``."""
        return self._draws(step)[1]

    def drawn(self, steps: int) -> np.ndarray:
        """See ``BatchOrder``."""
        epoch, position = divmod(steps, self.steps_per_epoch)
        return epoch * self._per_epoch + self._before[position]

    def _draws(self, step: int) -> np.ndarray:
        """Returns the numbers of a step's samples and how often each was passed, int64 (2, N)."""
        counts, found = self._counts[step % self.steps_per_epoch], []
        for source, (first, count) in enumerate(zip(self.drawn(step), counts, strict=True)):
            passes, places = np.divmod(np.arange(first, first + count), self.sizes[source])
            for number in np.unique(passes):
                chosen = self._pass(source, int(number))[places[passes == number]]
                found.append(np.stack([chosen, np.full(len(chosen), number)]))
        # Mixed, so that no process or micro-batch has one source alone.
        mixed = self._generator(len(self.sizes) + 1, step).permutation(self.batch_size)
        return np.concatenate(found, axis=1)[:, mixed]

    def _permutation(self, source: int, number: int) -> np.ndarray:
        size = self.sizes[source]
        order = self._generator(source + 1, number).permutation(size)
        return order + (self._ends[source] - size)

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        """A generator of its own for each source and pass, and apart from augmentation's."""
        counter = [0, 0, 2, purpose]
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=counter))


@dataclass(frozen=True)
class Share:
    """How a global batch is divided among processes and micro-batches.

    Micro-batch m of all processes together is the m-th contiguous part of the global batch,
    of which process r takes the r-th part.

    Attributes:
        batch_size: images per optimiser step, over all processes.
        micro_batch_size: images per forward pass and process.
    """

    batch_size: int
    world_size: int
    micro_batch_size: int

    @classmethod
    def of(cls, batch_size: int, world_size: int, micro_batch_size: int | None) -> "Share":
        """Checks that the division leaves no rest.

        Raises:
            ConfigurationError: it does; names the sizes that would work.
        """
        micro = micro_batch_size or max(batch_size // world_size, 1)
        if batch_size % (world_size * micro):
            raise ConfigurationError(
                f"recipe.global_batch_size {batch_size} is not a multiple of {world_size} "
                f"processes × micro_batch_size {micro}. Choose a global batch that is, or start "
                f"another number of processes"
            )
        return cls(batch_size, world_size, micro)

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimiser step."""
        return self.batch_size // (self.world_size * self.micro_batch_size)

    def part(self, batch: np.ndarray, micro_batch: int, rank: int) -> np.ndarray:
        """Returns the sample numbers of one process's micro-batch."""
        start = (micro_batch * self.world_size + rank) * self.micro_batch_size
        return batch[start : start + self.micro_batch_size]
