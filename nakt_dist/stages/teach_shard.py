"""Runs the teachers over shards and writes their sidecars.

Reading, forward pass, PNG encoding and writing overlap, from one shard to the next: each has
threads of its own, a few batches ahead of what follows. Batches never cross a shard, so what a
sample is batched with, and with it every bit of the result, does not depend on which process
does it.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.imaging.packed import encode_soft_png
from nakt_dist.loading.batches import Batch, as_float, read_ahead
from nakt_dist.loading.samples import ImagesAlone, SelectedSamples
from nakt_dist.runtime.ahead import ahead
from nakt_dist.runtime.devices import explain_full_memory
from nakt_dist.runtime.processes import own_cores
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.writer import write_shard
from nakt_dist.transfer.ensemble import Teacher, ensemble_probability
from nakt_dist.transfer.statistics import grey_level_entropy, quantise, target_pixels

_IN_FLIGHT = 2
_STATISTICS = ("target_pixels", "entropy", "mean_confidence", "teacher_disagreement")

Taught = list[tuple[Future[bytes], dict[str, Any]]]
"""A batch: each sample's mask, which is being encoded, and its statistics."""


@dataclass(frozen=True)
class ShardTeaching:
    """How the shards of a packed dataset are taught.

    Attributes:
        images: the dataset, all splits.
        teachers: on the device.
        batch_size: images per forward pass.
        device: where to compute.
        autocast: type of the forward pass; None for float32.
    """

    images: IndexedShards
    teachers: Sequence[Teacher]
    batch_size: int
    device: torch.device
    autocast: torch.dtype | None


def teach_shards(
    how: ShardTeaching, numbers: Iterable[int], folder: Path, staging: Path
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Writes ``pseudo-NNNNNN.tar`` for each shard, atomically.

    Args:
        numbers: of the shards; some are taken before those ahead of them are written.
        folder: of the pseudo-labels.
        staging: folder for unfinished files.

    Yields:
        The number, and a receipt: the ``entry`` of the manifest and the ``rows`` of the index.
    """
    with contextlib.closing(ahead(_taught(how, numbers), _IN_FLIGHT)) as batches:
        for number, first in batches:

            def samples(first: Taught = first) -> Iterator[tuple[Future[bytes], dict[str, Any]]]:
                yield from first
                for _, batch in batches:
                    yield from batch

            yield number, _write(how.images, number, samples(), folder, staging)


def _write(
    images: IndexedShards,
    number: int,
    taught: Iterator[tuple[Future[bytes], dict[str, Any]]],
    folder: Path,
    staging: Path,
) -> dict[str, Any]:
    """Writes one shard of the samples that come first; returns its receipt."""
    samples = np.flatnonzero(images.shard_numbers == number)
    keys = images.column("key").take(samples).to_pylist()
    split = images.manifest.shards[number].split
    rows = [{"key": key, "shard": number, "split": split} for key in keys]

    def files() -> Iterator[tuple[str, dict[str, bytes]]]:
        # Not strict: what comes after is the next shard's.
        for row, (encoded, statistics) in zip(rows, taught, strict=False):
            row.update(statistics)
            yield row["key"], {"soft.png": encoded.result()}

    entry, members = write_shard(folder / f"pseudo-{number:06d}.tar", split, files(), staging)
    for row in rows:
        member = members[row["key"]]["soft.png"]
        row.update({f"soft_{name}": value for name, value in asdict(member).items()})
    return {"entry": asdict(entry), "rows": rows}


def _taught(how: ShardTeaching, numbers: Iterable[int]) -> Iterator[tuple[int, Taught]]:
    """Yields the batches of shards in order, each with its shard's number.

    On a GPU the next batch is under way while the masks of one come back.
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
        self._names = ", ".join(teacher.trained.name for teacher in how.teachers)
        image, _ = as_float(batch, how.device)
        probability, disagreement = ensemble_probability(how.teachers, image, how.autocast)
        masks = quantise(probability)
        confidence = torch.maximum(probability, 1 - probability).flatten(1).mean(1)
        columns = (target_pixels(masks), grey_level_entropy(masks), confidence, disagreement)
        statistics = torch.stack([column.double() for column in columns], dim=1)
        self._masks, self._statistics = (
            each.to("cpu", non_blocking=True) for each in (masks, statistics)
        )
        self._done = torch.cuda.Event() if how.device.type == "cuda" else None
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(how.device))

    def encode(self, encoders: ThreadPoolExecutor) -> Taught:
        """Has the masks encoded.

        Raises:
            CheckpointError: some are no numbers; then so is the confidence, which is their mean.
        """
        if self._done is not None:
            self._done.synchronize()
        if not self._statistics.isfinite().all():
            raise CheckpointError(
                f"a teacher gives values that are not numbers ({self._names}): its "
                "training has diverged, or precision bfloat16 is too coarse for it"
            )
        taught: Taught = []
        for mask, values in zip(self._masks.numpy(), self._statistics.tolist(), strict=True):
            statistics: dict[str, Any] = dict(zip(_STATISTICS, values, strict=True))
            statistics["target_pixels"] = int(statistics["target_pixels"])
            taught.append((encoders.submit(encode_soft_png, mask), statistics))
        return taught
