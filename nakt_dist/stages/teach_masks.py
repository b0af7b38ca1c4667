"""Pseudo masks as sidecars: a soft mask per sample in a tar, its statistics in an index."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nakt_dist.imaging.packed import encode_soft_png
from nakt_dist.shards.tables import per_class
from nakt_dist.shards.writer import write_shard
from nakt_dist.stages.teach_shard import ShardTeaching, Sidecar, Taught
from nakt_dist.transfer.ensemble import ensemble_probability
from nakt_dist.transfer.statistics import (
    class_pixels,
    expected_dice,
    grey_level_entropy,
    quantise,
)

_COUNTS = "target_pixels"
_STATISTICS = (
    "target_pixels",
    "entropy",
    "mean_confidence",
    "teacher_disagreement",
    "expected_dice",
)


class PseudoMasks(Sidecar):
    """``KEY.soft.png`` in ``pseudo-NNNNNN.tar``, and the statistics of paper A, section 2.

    Args:
        classes: of the masks, the background first, where there are several besides it; else empty.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self._names = list(_STATISTICS)
        for statistic in _STATISTICS[:2]:
            self._names += per_class(statistic, classes)

    def answer(self, how: ShardTeaching, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns masks, uint8 (N, P H, W), one class below the other, and statistics, float64."""
        probability, disagreement = ensemble_probability(
            how.teachers, image, how.autocast, how.combination
        )
        planes = quantise(probability)
        pixels = class_pixels(planes)
        entropy = grey_level_entropy(planes.flatten(0, 1)).view(planes.shape[:2])
        # The mean of a mask that holds no number is none either, which is how it is noticed.
        confidence = torch.maximum(probability.amax(1), 1 - probability.sum(1)).flatten(1).mean(1)
        columns = [
            pixels.sum(1),
            entropy.mean(1),
            confidence,
            disagreement,
            expected_dice(planes),
        ]
        if len(self._names) > len(columns):
            columns += [*pixels.unbind(1), *entropy.unbind(1)]
        return planes.flatten(1, 2), torch.stack([each.double() for each in columns], dim=1)

    def encode(self, answer: Sequence[torch.Tensor], encoders: ThreadPoolExecutor) -> Taught:
        """Returns of each sample its mask, which is being encoded, and its statistics."""
        masks, statistics = answer
        taught: Taught = []
        for mask, values in zip(masks.numpy(), statistics.tolist(), strict=True):
            pairs = zip(self._names, values, strict=True)
            named = {n: int(v) if n.startswith(_COUNTS) else v for n, v in pairs}
            taught.append((encoders.submit(encode_soft_png, mask), named))
        return taught

    def write(
        self,
        number: int,
        split: str,
        samples: Iterator[tuple[str, tuple[Future[bytes], dict[str, Any]]]],
        folder: Path,
        staging: Path,
    ) -> dict[str, Any]:
        """Writes one shard; the rows of the index say where its masks lie."""
        rows: list[dict[str, Any]] = []

        def files() -> Iterator[tuple[str, dict[str, bytes]]]:
            for key, (encoded, statistics) in samples:
                rows.append({"key": key, "shard": number, "split": split, **statistics})
                yield key, {"soft.png": encoded.result()}

        entry, members = write_shard(folder / f"pseudo-{number:06d}.tar", split, files(), staging)
        for row in rows:
            member = members[row["key"]]["soft.png"]
            row.update({f"soft_{name}": value for name, value in asdict(member).items()})
        return {"entry": asdict(entry), "rows": rows}
