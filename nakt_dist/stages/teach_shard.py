"""Runs the teachers over one shard and writes its sidecar.

Reading, forward pass and PNG writing overlap: threads decode the next batch and encode the
last one while the network works. Batches never cross a shard, so what a sample is batched
with, and with it every bit of the result, does not depend on which process does it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.errors import CheckpointError, DatasetError, UnusableSample
from nakt_dist.imaging.images import encode_mask_png
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.runtime.devices import explain_full_memory
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.writer import write_shard
from nakt_dist.transfer.ensemble import Teacher, ensemble_probability
from nakt_dist.transfer.statistics import grey_level_entropy, quantise, target_pixels

_IN_FLIGHT = 2


def teach_shard(
    folder: Path,
    staging: Path,
    number: int,
    images: IndexedShards,
    teachers: Sequence[Teacher],
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
) -> dict[str, Any]:
    """Writes ``pseudo-NNNNNN.tar`` for one shard, atomically.

    Args:
        folder: output of the stage.
        staging: folder for the unfinished file.
        number: of the shard.
        images: the packed dataset, all splits.
        teachers: on the device.
        batch_size: images per forward pass.
        device: where to compute.
        autocast: type of the forward pass; None for float32.

    Returns:
        A receipt: the ``entry`` of the manifest and the ``rows`` of the index.
    """
    samples = np.flatnonzero(images.shard_numbers == number)
    keys = images.index["key"].take(samples).to_pylist()
    split = images.manifest.shards[number].split
    rows = [{"key": key, "shard": number, "split": split} for key in keys]

    def files() -> Iterator[tuple[str, dict[str, bytes]]]:
        done = _taught(images, samples, teachers, batch_size, device, autocast)
        for row, (encoded, statistics) in zip(rows, done, strict=True):
            row.update(statistics)
            yield row["key"], {"soft.png": encoded.result()}

    entry, members = write_shard(folder / f"pseudo-{number:06d}.tar", split, files(), staging)
    for row in rows:
        member = members[row["key"]]["soft.png"]
        row.update({f"soft_{name}": value for name, value in asdict(member).items()})
    return {"entry": asdict(entry), "rows": rows}


def _taught(
    images: IndexedShards,
    samples: np.ndarray,
    teachers: Sequence[Teacher],
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
) -> Iterator[tuple[Future[bytes], dict[str, Any]]]:
    """Yields, in order, each sample's mask (being encoded) and its statistics."""
    starts = range(0, len(samples), batch_size)
    with ThreadPoolExecutor(2) as decoders, ThreadPoolExecutor(2) as encoders:
        batches: deque[list[Future[np.ndarray]]] = deque()
        waiting: deque[list[tuple[Future[bytes], dict[str, Any]]]] = deque()
        upcoming = iter(starts)

        def read_ahead() -> None:
            for start in upcoming:
                numbers = samples[start : start + batch_size]
                batches.append([decoders.submit(_decode, images, int(n)) for n in numbers])
                if len(batches) >= _IN_FLIGHT:
                    return

        read_ahead()
        while batches:
            pixels = np.stack([decoded.result() for decoded in batches.popleft()])
            read_ahead()
            with explain_full_memory(
                "teach",
                f"Lower batch_size (now {batch_size}), into another --output since it decides the "
                "last digits, take precision bfloat16, or set --device cpu",
            ):
                masks, statistics = _teach_batch(pixels, teachers, device, autocast)
            encoded = [encoders.submit(encode_mask_png, mask) for mask in masks]
            waiting.append(list(zip(encoded, statistics, strict=True)))
            if len(waiting) > _IN_FLIGHT:
                yield from waiting.popleft()
        for batch in waiting:
            yield from batch


def _decode(images: IndexedShards, number: int) -> np.ndarray:
    size = (images.manifest.height, images.manifest.width)
    try:
        return decode_pixels(images.image_bytes(number), size)
    except UnusableSample as error:
        raise DatasetError(
            f"{images.describe(number)}: {error.detail}. Run nakt verify on the folder"
        ) from None


def _teach_batch(
    pixels: np.ndarray,
    teachers: Sequence[Teacher],
    device: torch.device,
    autocast: torch.dtype | None,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the stored masks, uint8 (N, H, W), and the statistics of each."""
    image = torch.from_numpy(pixels).to(device).float().div_(255)
    probability, disagreement = ensemble_probability(teachers, image, autocast)
    if not probability.isfinite().all():
        raise CheckpointError(
            "a teacher gives values that are not numbers "
            f"({', '.join(teacher.trained.name for teacher in teachers)}): its "
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
