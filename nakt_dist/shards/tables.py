"""The Parquet tables beside shards: their columns, and writing them piece by piece."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import atomic_write

_MEMBER_COLUMNS = [
    (f"{member}_{column}", kind)
    for member in ("image", "mask", "json")
    for column, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32()))
]

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("split", pa.string()),
        ("patient_id", pa.string()),
        ("stratum", pa.string()),
        ("source", pa.string()),
        ("labels", pa.string()),
        ("extension", pa.string()),
        *_MEMBER_COLUMNS,
    ]
)
"""One row per sample, in the order of the shards. ``labels`` is JSON; ``mask_*`` may be null."""

REJECTED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row per input that is in no shard, and why."""

PSEUDO_INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("split", pa.string()),
        ("soft_offset", pa.int64()),
        ("soft_size", pa.int64()),
        ("soft_crc32", pa.uint32()),
        ("target_pixels", pa.int64()),
        ("entropy", pa.float64()),
        ("mean_confidence", pa.float64()),
        ("teacher_disagreement", pa.float64()),
    ]
)
"""One row per sample, in the order of the dataset's index; statistics of the stored mask."""


def write_table(
    path: Path, schema: pa.Schema, pieces: Iterable[list[Mapping[str, Any]]], staging: Path | None
) -> None:
    """Writes rows as Parquet, atomically, holding one piece in memory at a time.

    Args:
        path: the final name.
        schema: the columns.
        pieces: rows as mappings; each piece of more than zero rows becomes a row group.
        staging: folder for the unfinished file.
    """
    with (
        atomic_write(path, staging) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for rows in _batched(pieces, minimum=4096):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _batched(pieces: Iterable[list[Any]], minimum: int) -> Iterator[list[Any]]:
    """Joins small pieces, so that row groups are not tiny."""
    waiting: list[Any] = []
    for piece in pieces:
        waiting += piece
        if len(waiting) >= minimum:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def read_table(path: Path, schema: pa.Schema, filters: Any = None) -> pa.Table:
    """Reads a table and checks its columns.

    Args:
        path: the Parquet file.
        schema: the columns it must have.
        filters: as ``pyarrow.parquet.read_table`` takes them.

    Raises:
        DatasetError: the file is absent, damaged, or has other columns.
    """
    try:
        table = pq.read_table(path, filters=filters, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: the table cannot be read: {error}") from None
    if table.schema.names != schema.names:
        raise DatasetError(f"{path}: columns {table.schema.names}, expected {schema.names}")
    return table.combine_chunks()
