"""Puts prepared samples together to a shard; runs in a worker process."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nakt_dist.shards.writer import Member, write_shard
from nakt_dist.sources import SourceRecord
from nakt_dist.stages.pack_divide import ShardPlan
from nakt_dist.stages.pack_prepare import Prepared, staged_files


def pack_shard(
    folder: Path, staging: Path, prepared: Path, number: int, plan: ShardPlan
) -> dict[str, Any]:
    """Writes one shard atomically.

    Args:
        folder: the dataset's output folder.
        staging: folder for the unfinished file.
        prepared: folder with the files of the samples.
        number: the shard's number.
        plan: its samples.

    Returns:
        A receipt: ``entry`` of the manifest and ``rows`` of the index.
    """

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for made in plan.prepared:
            yield made.key, staged_files(prepared, made)

    entry, members = write_shard(folder / plan.name, plan.split, samples(), staging)
    rows = [
        _row(number, plan.split, each.record, made) | _positions(members[made.key])
        for each, made in zip(plan.inputs, plan.prepared, strict=True)
    ]
    return {"entry": asdict(entry), "rows": rows}


def _row(number: int, split: str, record: SourceRecord, made: Prepared) -> dict[str, Any]:
    return {
        "key": made.key,
        "shard": number,
        "split": split,
        "patient_id": record.patient_id,
        "stratum": record.stratum,
        "source": record.name,
        "labels": json.dumps(dict(record.labels), sort_keys=True),
        "findings": (
            None if record.findings is None else json.dumps(dict(record.findings), sort_keys=True)
        ),
        "extension": made.files[0][0],
        "target_share": made.target_share,
        "pixels": made.pixels,
    }


def _positions(files: dict[str, Member]) -> dict[str, int]:
    """Returns the index columns that say where a sample's files lie."""
    names = {"mask.png": "mask", "json": "json"}
    return {
        f"{names.get(extension, 'image')}_{column}": value
        for extension, member in files.items()
        for column, value in asdict(member).items()
    }
