"""A stream over shards too large for local disk, built on WebDataset's stages."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import webdataset as wds
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys

from nakt_dist.errors import DatasetError
from nakt_dist.shards.tars import stream_members

_Opener = Callable[[str], BinaryIO]


class StatisticallyRepeatableStream(wds.DataPipeline):
    """An endless stream of raw samples, shuffled through a buffer.

    Only *statistically* repeatable: each process draws shards at random from its own seeded
    generator, so over many epochs every sample is seen equally often, but which batch holds
    which sample depends on the number of processes, and it cannot be resumed exactly. It
    never ends and never leaves a rank without data, so no rank waits for another. Use
    ``IndexedShards`` wherever the shards fit on local disk.

    No member is decoded here: what comes out is bytes by extension, so nothing pickled is
    ever loaded. Shards are opened by the given function, so no URL becomes a shell command.

    Args:
        shard_names: tars to draw from.
        opener: opens one of them for reading.
        seed: shared by all processes.
        rank: of this process; processes draw differently.
        shuffle_buffer: samples held in memory for shuffling.
        sidecar_names: per shard a second tar with the same keys in the same order, whose
            files are merged into the samples.
        sidecar_opener: opens one of those; None for the opener of the shards.

    Yields:
        Mappings with ``__key__`` and the files of the sample by extension, as bytes.

    Raises:
        DatasetError: a tar is damaged or holds what no shard holds (see ``stream_members``), a
            sidecar is not that of its shard, or no shard holds a sample.
    """

    def __init__(
        self,
        shard_names: Sequence[str],
        opener: _Opener,
        seed: int,
        rank: int = 0,
        shuffle_buffer: int = 1000,
        sidecar_names: Sequence[str] | None = None,
        sidecar_opener: _Opener | None = None,
    ) -> None:
        if not shard_names:
            raise DatasetError("the stream has no shards to read")
        generator = random.Random(f"{seed}-{rank}")
        pairs = list(zip(shard_names, sidecar_names or itertools.repeat(None), strict=False))

        def draw_shards() -> Iterator[tuple[str, str | None]]:
            while True:
                yield from generator.sample(pairs, len(pairs))

        def read_shards(source: Iterable[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
            empty = 0
            for shard, sidecar in source:
                empty += 1
                samples = _samples_of(shard, opener)
                if sidecar is not None:
                    sidecars = _samples_of(sidecar, sidecar_opener or opener)
                    samples = _merged(shard, samples, sidecars)
                for sample in samples:
                    empty = 0
                    yield sample
                if empty == len(pairs):  # else it would look for a sample for ever
                    raise DatasetError(f"none of the {empty} shards of the stream holds a sample")

        super().__init__(
            draw_shards,
            read_shards,
            shuffle(shuffle_buffer, initial=min(100, shuffle_buffer), rng=generator),
        )


def _samples_of(name: str, opener: _Opener) -> Iterator[dict[str, Any]]:
    """Groups the members of one tar by key."""
    with opener(name) as stream:
        files = (
            {"fname": member, "data": data, "__url__": name}
            for member, data in stream_members(name, stream)
        )
        yield from group_by_keys(files, handler=wds.reraise_exception)


def _merged(
    shard: str, samples: Iterator[dict[str, Any]], sidecars: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Joins a shard's samples with their sidecars, which must hold the same keys in order."""
    for sample, sidecar in itertools.zip_longest(samples, sidecars):
        keys = [part and part["__key__"] for part in (sample, sidecar)]
        if keys[0] != keys[1]:
            raise DatasetError(
                f"{shard}: its sidecar holds key {keys[1]!r} where the shard holds {keys[0]!r}. "
                "Run teach again on this packing"
            )
        common = {name for name in sample if name in sidecar and not name.startswith("__")}
        if common:
            raise DatasetError(
                f"{shard}: key {keys[0]!r} has {sorted(common)} in the shard and in its sidecar, "
                "so that it is open which one holds. Run nakt verify on both"
            )
        yield {**sidecar, **sample}
