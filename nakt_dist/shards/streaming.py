"""A stream over shards too large for local disk, built on WebDataset's stages."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import webdataset as wds
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from nakt_dist.errors import DatasetError

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
        sidecar_opener: opens one of those.

    Yields:
        Mappings with ``__key__`` and the files of the sample by extension, as bytes.
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
            for shard, sidecar in source:
                samples = _samples_of(shard, opener)
                if sidecar is None:
                    yield from samples
                else:
                    yield from _merged(shard, samples, _samples_of(sidecar, sidecar_opener))

        super().__init__(
            draw_shards,
            read_shards,
            shuffle(shuffle_buffer, initial=min(100, shuffle_buffer), rng=generator),
        )


def _samples_of(name: str, opener: _Opener) -> Iterator[dict[str, Any]]:
    """Groups the members of one tar by key."""
    with opener(name) as stream:
        files = tar_file_expander([{"url": name, "stream": stream}], handler=wds.reraise_exception)
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
        yield {**sidecar, **sample}
