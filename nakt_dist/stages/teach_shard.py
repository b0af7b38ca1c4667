"""Runs the teachers over one shard and writes its sidecar.

Reading, forward pass and PNG writing overlap: threads decode the next batch and encode the
last one while the network works. Batches never cross a shard, so what a sample is batched
with, and with it every bit of the result, does not depend on which process does it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.imaging.images import encode_mask_png
from nakt_dist.loading.batches import Batch, as_float, read_ahead
from nakt_dist.loading.samples import ImagesAlone, SelectedSamples
from nakt_dist.runtime.devices import explain_full_memory
from nakt_dist.runtime.processes import own_cores
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.writer import write_shard
from nakt_dist.transfer.ensemble import Teacher, ensemble_probability
from nakt_dist.transfer.statistics import grey_level_entropy, quantise, target_pixels

_IN_FLIGHT = 2


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


def teach_shard(how: ShardTeaching, number: int, folder: Path, staging: Path) -> dict[str, Any]:
    """Writes ``pseudo-NNNNNN.tar`` for one shard, atomically.

    Returns:
        A receipt: the ``entry`` of the manifest and the ``rows`` of the index.
    """
    images = how.images
    samples = np.flatnonzero(images.shard_numbers == number)
    keys = images.column("key").take(samples).to_pylist()
    split = images.manifest.shards[number].split
    rows = [{"key": key, "shard": number, "split": split} for key in keys]

    def files() -> Iterator[tuple[str, dict[str, bytes]]]:
        for row, (encoded, statistics) in zip(rows, _taught(how, samples), strict=True):
            row.update(statistics)
            yield row["key"], {"soft.png": encoded.result()}

    entry, members = write_shard(folder / f"pseudo-{number:06d}.tar", split, files(), staging)
    for row in rows:
        member = members[row["key"]]["soft.png"]
        row.update({f"soft_{name}": value for name, value in asdict(member).items()})
    return {"entry": asdict(entry), "rows": rows}


def _taught(
    how: ShardTeaching, samples: np.ndarray
) -> Iterator[tuple[Future[bytes], dict[str, Any]]]:
    """Yields, in order, each sample's mask (being encoded) and its statistics."""
    size = how.batch_size
    parts = [samples[start : start + size].tolist() for start in range(0, len(samples), size)]
    images = ImagesAlone(SelectedSamples(how.images, None, len(how.images)))
    waiting: deque[list[tuple[Future[bytes], dict[str, Any]]]] = deque()
    with ThreadPoolExecutor(own_cores()) as encoders:
        for batch in read_ahead(images, parts, own_cores()):
            with explain_full_memory(
                "teach",
                f"Lower batch_size (now {size}), into another --output since it decides the "
                "last digits, take precision bfloat16, or set --device cpu",
            ):
                masks, statistics = _teach_batch(how, batch)
            encoded = [encoders.submit(encode_mask_png, mask) for mask in masks]
            waiting.append(list(zip(encoded, statistics, strict=True)))
            if len(waiting) > _IN_FLIGHT:
                yield from waiting.popleft()
        for each in waiting:
            yield from each


def _teach_batch(how: ShardTeaching, batch: Batch) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the stored masks, uint8 (N, H, W), and the statistics of each."""
    image, _ = as_float(batch, how.device)
    probability, disagreement = ensemble_probability(how.teachers, image, how.autocast)
    if not probability.isfinite().all():
        raise CheckpointError(
            "a teacher gives values that are not numbers "
            f"({', '.join(teacher.trained.name for teacher in how.teachers)}): its "
            "training has diverged, or precision bfloat16 is too coarse for it"
        )
    confidence = torch.maximum(probability, 1 - probability).flatten(1).mean(1)
    masks = quantise(probability)
    columns = {
        "target_pixels": target_pixels(masks).tolist(),
        "entropy": grey_level_entropy(masks).tolist(),
        "mean_confidence": confidence.tolist(),
        "teacher_disagreement": disagreement.tolist(),
    }
    statistics = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return masks.cpu().numpy(), statistics
