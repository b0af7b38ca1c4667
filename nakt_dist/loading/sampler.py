"""The order of samples: a pure function of seed and step, whatever the number of processes."""

import functools
from dataclasses import dataclass

import numpy as np

from nakt_dist.errors import ConfigurationError


@dataclass(frozen=True)
class GlobalBatches:
    """The endless sequence of global batches of one training run (promise 3).

    Every epoch is a permutation drawn from (seed, epoch). It is cut into batches of equal
    size; the rest is dropped, another rest each epoch, because BatchNorm after global pooling
    cannot train on one image (paper A's DeepLabv3+) and because equal shares per process make
    the mean over processes the mean over the batch. To resume is to ask for the next step.

    Attributes:
        num_samples: in the dataset as selected.
        batch_size: images per optimiser step, over all processes.
        seed: of the permutations.

    Raises:
        ConfigurationError: the dataset is smaller than one batch.
    """

    num_samples: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_samples < self.batch_size:
            raise ConfigurationError(
                f"recipe.global_batch_size is {self.batch_size}, but only {self.num_samples} "
                "samples are left to train on (after splits, count and exclusion). "
                "Lower it, or loosen data.exclusion"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches per epoch."""
        return self.num_samples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """Returns the epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Returns the sample numbers, int64 (batch_size,), of the global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.num_samples, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@functools.lru_cache(maxsize=2)
def _order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_samples)


@dataclass(frozen=True)
class Share:
    """How a global batch is divided among processes and micro-batches.

    Micro-batch m of all processes together is the m-th contiguous part of the global batch,
    of which process r takes the r-th part.

    Attributes:
        batch_size: images per optimiser step, over all processes.
        world_size: number of processes.
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
