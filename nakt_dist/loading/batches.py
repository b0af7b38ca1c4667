"""Batches for training, by index or from a stream."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
import torch

from nakt_dist.config import DataConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.images import Images
from nakt_dist.loading.mask_planes import MaskPlanes
from nakt_dist.loading.sampler import BatchOrder, Share
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.loading.targets import LabelledTargets
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.reader import PseudoLabels

Batch = Mapping[str, torch.Tensor]

_BATCHES_AHEAD = 3


def indexed_batches(
    dataset: Images,
    order: BatchOrder,
    share: Share,
    rank: int,
    first_step: int,
    last_step: int,
    threads: int,
    pinned: bool = False,
) -> Iterator[Batch]:
    """Yields one process's micro-batches, from the first step up to the last, exclusive.

    Args:
        threads: see ``read_ahead``.
        pinned: in memory that a GPU copies from while this process goes on.

    Raises:
        DatasetError: a sample of the batch that would be next is damaged.
    """
    batches = map(order.batch, range(first_step, last_step))
    parts = (
        share.part(batch, micro_batch, rank).tolist()
        for batch in batches
        for micro_batch in range(share.accumulation)
    )
    return read_ahead(dataset, parts, threads, pinned)


def read_ahead(
    dataset: Images, batches: Iterable[Sequence[int]], threads: int, pinned: bool = False
) -> Generator[Batch, None, None]:
    """Yields batches of samples in order, while threads read the next ones.

    Threads rather than processes: decoders let each other go on, nothing is copied between
    processes, and nobody is left behind when this one is killed.

    Args:
        batches: the numbers of each batch's samples.
        threads: that read; 0 reads each batch when it is asked for.
        pinned: as above.

    Raises:
        DatasetError: a sample of the batch that would be next is damaged.
    """
    if not threads:
        yield from map(dataset.batch, batches)
        return
    dataset.open_memory()
    upcoming = iter(batches)
    ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(threads, "read-ahead")
    try:
        while True:
            while len(ahead) < _BATCHES_AHEAD and (numbers := next(upcoming, None)) is not None:
                batch = dataset.empty_batch(numbers, pinned)
                # A batch is there sooner when all threads work on it.
                rows, size = range(len(numbers)), -(-len(numbers) // threads)
                pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
                ahead.append((batch, [pool.submit(dataset.fill, batch, piece) for piece in pieces]))
            if not ahead:
                return
            read, reading = ahead.popleft()
            for piece in reading:
                piece.result()
            yield read
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def streamed_batches(
    config: DataConfig,
    samples: SelectedSamples,
    micro_batch_size: int,
    seed: int,
    rank: int,
    targets: LabelledTargets | MaskPlanes | None = None,
) -> Iterator[Batch]:
    """Yields micro-batches without end from a shuffled stream over the shards.

    Only statistically repeatable; see ``StatisticallyRepeatableStream``. Samples that were
    not selected (exclusion) are passed over. What is read is compared with the index's
    checksums, as it is when reading by index.

    Args:
        samples: which keys are wanted; images are not read through it.
        targets: of these samples, in their order, for a classifier; a streamed image finds
            its own by key. Of masks, which lie beside the images, what becomes of them; None for
            those of one target.

    Raises:
        DatasetError: a shard is damaged, differs from the index, or holds none of the samples.
    """
    from nakt_dist.shards.streaming import StatisticallyRepeatableStream

    numbers = {key: number for number, key in enumerate(samples.images.keys)}
    shard_numbers = sorted(set(samples.images.shard_numbers.tolist()))
    entries = [samples.images.manifest.shards[number] for number in shard_numbers]
    pseudo = samples.pseudo_labels
    sidecars = None
    if isinstance(pseudo, PseudoLabels):
        sidecars = [pseudo.manifest.shards[number].name for number in shard_numbers]
    stream = StatisticallyRepeatableStream(
        [entry.name for entry in entries],
        _opener(config.dataset),
        seed=seed,
        rank=rank,
        shuffle_buffer=config.shuffle_buffer,
        sidecar_names=sidecars,
        sidecar_opener=_opener(config.pseudo_labels or "") if sidecars else None,
    )
    in_shards = sum(entry.samples for entry in entries)
    # How many others come before a sample comes again is about geometric, on average in_shards:
    # that it is 50 times as many by chance has a probability of e^-50.
    chosen = _chosen(stream, numbers, 50 * in_shards + config.shuffle_buffer)
    targets = targets or MaskPlanes()
    wanted = (_decoded(sample, samples, number, targets) for sample, number in chosen)
    while True:
        batch = [next(wanted) for _ in range(micro_batch_size)]
        yield torch.utils.data.default_collate(batch)


def _opener(url: str) -> Callable[[str], BinaryIO]:
    """Returns a function that opens a file of a folder or URL without copying it."""
    import fsspec

    location = DatasetLocation(url)
    if location.is_local:
        return lambda name: (location.folder / name).open("rb")
    return lambda name: fsspec.open(f"{location.url}/{name}", "rb").open()


def _chosen(
    stream: Iterable[Mapping[str, Any]], numbers: Mapping[str, int], most_misses: int
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yields the samples that were selected, each with its number.

    Raises:
        DatasetError: none came in so long that none will: the shards are not the index's.
    """
    misses = 0
    for sample in stream:
        number = numbers.get(sample["__key__"])
        if number is not None:
            misses = 0
            yield sample, number
            continue
        misses += 1
        if misses > most_misses:
            raise DatasetError(
                f"{misses} samples of the stream, and none is one that was selected: the shards "
                "are not those of the index. Run nakt verify"
            )


def _check_mask(samples: SelectedSamples, number: int, mask: bytes) -> None:
    if not isinstance(samples.pseudo_labels, PseudoLabels):
        samples.images.check_bytes(number, "mask", mask)
    else:
        samples.pseudo_labels.check_bytes(number, "soft", mask)


def _decoded(
    sample: Mapping[str, Any],
    samples: SelectedSamples,
    number: int,
    targets: LabelledTargets | MaskPlanes,
) -> dict[str, torch.Tensor]:
    key = sample["__key__"]
    image = sample.get("jpg") or sample.get("png") or b""
    mask = sample.get("soft.png" if samples.mask_is_soft else "mask.png", b"")
    if not image or (not mask and isinstance(targets, MaskPlanes)):
        raise DatasetError(f"key {key} of the stream has no image or no mask; run nakt verify")
    manifest = samples.images.manifest
    size = (manifest.height, manifest.width)
    try:
        samples.images.check_bytes(number, "image", image)
        pixels = decode_pixels(image, size)
        if isinstance(targets, MaskPlanes):
            _check_mask(samples, number, mask)
            stored = decode_pixels(mask, (targets.stored * size[0], size[1]))
            target = np.empty((targets.count, *size), np.uint8)
            targets.spread(stored.reshape(-1, *size), target)
        else:
            target = targets.values[number]
    except UnusableSample as error:
        raise DatasetError(f"key {key} of the stream {error.detail}. Run nakt verify") from None
    return {
        "image": torch.from_numpy(pixels.copy()),
        "target": torch.from_numpy(target.copy()),
        "number": torch.tensor(number),
    }


def as_float(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves a batch to the device as float32: image and target.

    Pixels and masks, uint8, come to [0, 1]; a target that is floating-point already, that of a
    classifier, stays as it is, NaN included.
    """
    image, target = (
        _unit_range(batch[name].to(device, non_blocking=True)) for name in ("image", "target")
    )
    return image, target


def _unit_range(values: torch.Tensor) -> torch.Tensor:
    return values if values.is_floating_point() else values.float().div_(255)
