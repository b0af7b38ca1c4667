"""Pseudo-findings as sidecars: a table per shard, see ``shards.pseudo_findings``."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.shards.pseudo_findings import write_sidecar
from nakt_dist.stages.teach_shard import ShardTeaching, Sidecar, Taught
from nakt_dist.transfer.ensemble import ensemble_findings


class FindingsOfTeachers(Sidecar):
    """``pseudo-NNNNNN.parquet``: probability and disagreement of each finding."""

    def __init__(self, findings: int) -> None:
        self._findings = findings

    def answer(self, how: ShardTeaching, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns probabilities and disagreements, float32 (N, K)."""
        assert how.combination != "staple"  # refused when the teachers are opened
        return ensemble_findings(how.teachers, image, how.autocast, how.combination)

    def encode(self, answer: Sequence[torch.Tensor], encoders: ThreadPoolExecutor) -> Taught:
        """Returns of each sample its two rows; the table is encoded as a whole."""
        probability, disagreement = (each.numpy() for each in answer)
        return list(zip(probability, disagreement, strict=True))

    def write(
        self,
        number: int,
        split: str,
        samples: Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]],
        folder: Path,
        staging: Path,
    ) -> dict[str, Any]:
        """Writes one table; there is no index besides."""
        rows = list(samples)  # none of an empty shard
        keys, values = [key for key, _ in rows], [each for _, each in rows]
        probability, disagreement = np.reshape(values, (-1, 2, self._findings)).swapaxes(0, 1)
        path = folder / f"pseudo-{number:06d}.parquet"
        return {
            "entry": asdict(write_sidecar(path, split, keys, probability, disagreement, staging))
        }
