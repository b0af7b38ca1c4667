"""Runs the teachers over shards and writes their sidecars.

Reading, forward pass, encoding and writing overlap, from one shard to the next: each has
threads of its own, a few batches ahead of what follows. Batches never cross a shard, so what a
sample is batched with, and with it every bit of the result, does not depend on which process
does it.
"""

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.loading.batches import Batch, as_float, read_ahead
from nakt_dist.loading.samples import ImagesAlone, SelectedSamples
from nakt_dist.runtime.ahead import ahead
from nakt_dist.runtime.devices import explain_full_memory
from nakt_dist.runtime.processes import own_cores
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.transfer.combining import Combination
from nakt_dist.transfer.ensemble import Teacher

_IN_FLIGHT = 2

Taught = list[Any]
"""A batch: what is to be written of each sample, of which parts may still be encoded."""


class Sidecar(ABC):
    """What teachers write beside the images: pseudo masks, or pseudo-findings."""

    @abstractmethod
    def answer(self, how: "ShardTeaching", image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Asks the teachers about images, float32 (N, C, H, W) on the device, without waiting."""

    @abstractmethod
    def encode(self, answer: Sequence[torch.Tensor], encoders: ThreadPoolExecutor) -> Taught:
        """Has an answer encoded, which has come back to the CPU."""

    @abstractmethod
    def write(
        self,
        number: int,
        split: str,
        samples: Iterator[tuple[str, Any]],
        folder: Path,
        staging: Path,
    ) -> dict[str, Any]:
        """Writes the sidecar of a shard, atomically.

        Args:
            samples: key and what ``encode`` gave for it, in order.

        Returns:
            A receipt: the ``entry`` of the manifest, and ``rows`` of an index if there is one.
        """


@dataclass(frozen=True)
class ShardTeaching:
    """How the shards of a packed dataset are taught.

    Attributes:
        images: the dataset, all splits.
        combination: how their answers become one.
        batch_size: images per forward pass.
        autocast: type of the forward pass; None for float32.
    """

    images: IndexedShards
    teachers: Sequence[Teacher]
    sidecar: Sidecar
    combination: Combination
    batch_size: int
    device: torch.device
    autocast: torch.dtype | None


def teach_shards(
    how: ShardTeaching, numbers: Iterable[int], folder: Path, staging: Path
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Writes the sidecar of each shard, ``pseudo-NNNNNN``, atomically.

    Args:
        numbers: of the shards; some are taken before those ahead of them are written.
        folder: of the pseudo-labels.

    Yields:
        The number and the receipt.
    """
    entries, empty = how.images.manifest.shards, list[int]()

    def filled() -> Iterator[int]:
        for number in numbers:
            if entries[number].samples:
                yield number
            else:
                empty.append(number)

    with contextlib.closing(ahead(_taught(how, filled()), _IN_FLIGHT)) as batches:
        for number, first in batches:
            taught = itertools.chain(first, (each for _, batch in batches for each in batch))
            rows = np.flatnonzero(how.images.shard_numbers == number)
            keys = how.images.column("key").take(rows).to_pylist()
            # Not strict: what comes after is the next shard's.
            samples = zip(keys, taught, strict=False)
            split = entries[number].split
            yield number, how.sidecar.write(number, split, samples, folder, staging)
    for number in empty:  # no batch is of them
        yield number, how.sidecar.write(number, entries[number].split, iter(()), folder, staging)


def _taught(how: ShardTeaching, numbers: Iterable[int]) -> Iterator[tuple[int, Taught]]:
    """Yields the batches of shards in order, each with its shard's number.

    On a GPU the next batch is under way while the answer to one comes back.
    """
    advice = (
        f"Lower batch_size (now {how.batch_size}), into another --output since it decides the "
        "last digits, take precision bfloat16, or set --device cpu"
    )
    images = ImagesAlone(SelectedSamples(how.images, None, len(how.images)))
    shards: deque[int] = deque()
    pinned = how.device.type == "cuda"
    read = read_ahead(images, _batches(how, numbers, shards), own_cores(), pinned)
    with ThreadPoolExecutor(own_cores()) as encoders, contextlib.closing(read) as batches:
        under_way: deque[tuple[int, _Answer]] = deque()
        for batch in batches:
            with explain_full_memory("teach", advice):
                under_way.append((shards.popleft(), _Answer(how, batch)))
            if len(under_way) > 1:
                number, answer = under_way.popleft()
                yield number, answer.encode(encoders)
        for number, answer in under_way:
            yield number, answer.encode(encoders)


def _batches(
    how: ShardTeaching, numbers: Iterable[int], shards: deque[int]
) -> Iterator[Sequence[int]]:
    """Yields the samples of each batch, and notes the number of its shard."""
    for number in numbers:
        samples = np.flatnonzero(how.images.shard_numbers == number)
        for start in range(0, len(samples), how.batch_size):
            shards.append(number)
            yield samples[start : start + how.batch_size].tolist()


class _Answer:
    """What the teachers say to a batch: under way on a GPU, until it is asked for."""

    def __init__(self, how: ShardTeaching, batch: Batch) -> None:
        self._how = how
        image, _ = as_float(batch, how.device)
        self._answer = [
            each.to("cpu", non_blocking=True) for each in how.sidecar.answer(how, image)
        ]
        self._done = torch.cuda.Event() if how.device.type == "cuda" else None
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(how.device))

    def encode(self, encoders: ThreadPoolExecutor) -> Taught:
        """Has the answer encoded.

        Raises:
            CheckpointError: some of it are no numbers.
        """
        if self._done is not None:
            self._done.synchronize()
        if not all(each.isfinite().all() for each in self._answer if each.is_floating_point()):
            names = ", ".join(teacher.trained.name for teacher in self._how.teachers)
            raise CheckpointError(
                f"a teacher gives values that are not numbers ({names}): its "
                "training has diverged, or precision bfloat16 is too coarse for it"
            )
        return self._how.sidecar.encode(self._answer, encoders)
