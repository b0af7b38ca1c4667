"""Pseudo masks as sidecars: a soft mask per sample in a tar, its statistics in an index."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nakt_dist.imaging.packed import encode_soft_png
from nakt_dist.shards.writer import write_shard
from nakt_dist.stages.teach_shard import ShardTeaching, Sidecar, Taught
from nakt_dist.transfer.ensemble import ensemble_probability
from nakt_dist.transfer.statistics import grey_level_entropy, quantise, target_pixels

_STATISTICS = ("target_pixels", "entropy", "mean_confidence", "teacher_disagreement")


class PseudoMasks(Sidecar):
    """``KEY.soft.png`` in ``pseudo-NNNNNN.tar``, and the statistics of paper A, section 2."""

    def answer(self, how: ShardTeaching, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns masks, uint8 (N, H, W), and statistics, float64 (N, 4)."""
        probability, disagreement = ensemble_probability(
            how.teachers, image, how.autocast, how.combination
        )
        masks = quantise(probability)
        # The mean of a mask that holds no number is none either, which is how it is noticed.
        confidence = torch.maximum(probability, 1 - probability).flatten(1).mean(1)
        columns = (target_pixels(masks), grey_level_entropy(masks), confidence, disagreement)
        return masks, torch.stack([column.double() for column in columns], dim=1)

    def encode(self, answer: Sequence[torch.Tensor], encoders: ThreadPoolExecutor) -> Taught:
        """Returns of each sample its mask, which is being encoded, and its statistics."""
        masks, statistics = answer
        taught: Taught = []
        for mask, values in zip(masks.numpy(), statistics.tolist(), strict=True):
            named: dict[str, Any] = dict(zip(_STATISTICS, values, strict=True))
            named["target_pixels"] = int(named["target_pixels"])
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
