"""The Parquet tables beside shards: their columns, and writing them piece by piece."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import atomic_write
from nakt_dist.shards.tars import MOST_MEMBER_BYTES

MOST_TABLE_BYTES = 2**32
"""Enough for 50 million samples."""

TEXT = pa.large_string()
"""Text in memory; of ``pa.string()`` a column holds 2 GiB at most."""

_MOST_TIMES_UNPACKED = 1000  # the index of an annotated dataset unpacks to its tenfold
_MOST_UNPACKED_BYTES = 2**26
_CELL_BYTES = 8

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
        ("findings", pa.string()),
        ("extension", pa.string()),
        ("target_share", pa.float32()),
        ("pixels", pa.int64()),
        *_MEMBER_COLUMNS,
    ]
)
"""One row per sample, in the order of the shards. ``labels`` and ``findings`` are JSON, null
where the dataset says nothing about the image's findings; ``mask_*`` may be null, and then
``target_share``, the share of target in the packed mask from 0 to 1, is null too. ``pixels`` is
63 bits of a hash of the published picture, upright and grey, before it was resized: two samples
of one number are copies, in whatever dataset, size or fit. Null where the picture has one value
everywhere."""

REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("source", "key", "reason", "detail")])
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
        ("expected_dice", pa.float64()),
    ]
)
"""One row per sample, in the order of the dataset's index; statistics of the stored mask."""


def pseudo_index_schema(classes: Sequence[str]) -> pa.Schema:
    """Returns the columns of pseudo-labels with some classes.

    Args:
        classes: as ``PseudoLabelManifest`` has them; each but the background has columns of its own
            behind those of all masks. Empty for one target, which needs none.
    """
    schema = PSEUDO_INDEX_SCHEMA
    for statistic in ("target_pixels", "entropy"):
        kind = schema.field(statistic).type
        for name in per_class(statistic, classes):
            schema = schema.append(pa.field(name, kind))
    return schema


def per_class(statistic: str, classes: Sequence[str]) -> list[str]:
    """Returns the names of the columns with a statistic of each class but the background.

    Args:
        statistic: ``target_pixels`` or ``entropy``.
        classes: the background first.
    """
    return [f"{statistic}:{name}" for name in classes[1:]]


def write_table(
    path: Path,
    schema: pa.Schema,
    pieces: Iterable[Sequence[Mapping[str, Any]]],
    staging: Path | None,
) -> None:
    """Writes rows as Parquet, atomically, holding one piece in memory at a time.

    Args:
        pieces: rows as mappings; each piece of more than zero rows becomes a row group.
    """
    with (
        atomic_write(path, staging) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for rows in _batched(pieces, minimum=4096):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _batched(pieces: Iterable[Sequence[Any]], minimum: int) -> Iterator[list[Any]]:
    """Joins small pieces, so that row groups are not tiny."""
    waiting: list[Any] = []
    for piece in pieces:
        waiting += piece
        if len(waiting) >= minimum:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def read_table(
    path: Path,
    schema: pa.Schema,
    filters: Any = None,
    most_rows: int | None = None,
    what: str = "samples",
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Reads a table and checks the names and types of its columns.

    A table that unpacks to far more than its file is refused before it takes the memory. Text is
    held as Arrow's ``large_string``: rows of more than 2 GiB of text can be chosen and ordered.

    Args:
        filters: as ``pyarrow.parquet.read_table`` takes them.
        most_rows: how many the manifest knows of; None where there is no manifest.
        what: a row is one of these, for the message.
        columns: the only ones to read, in the schema's order; None for all.

    Raises:
        DatasetError: the file is absent, damaged, too large, or has other columns.
    """
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    texts = [column.name for column in wanted if column.type == pa.string()]
    try:
        footer = pq.read_metadata(path)
        found = footer.schema.to_arrow_schema()
        _check_columns(path, found, schema)  # a filter needs the right types
        _check_footer(path, footer, most_rows, what)
        # A text that stands in many rows stays one text until all of them are counted.
        table = pq.read_table(
            path, columns=wanted.names, filters=filters, partitioning=None, read_dictionary=texts
        )
        table.validate(full=True)  # Parquet's text need not be text; without this, readers raise
        _check_unpacked(path, sum(_text_bytes(table[name]) for name in texts))
        return _with_large_texts(table, texts).cast(_in_memory(wanted)).combine_chunks()
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: the table cannot be read: {reason}") from None


def _in_memory(schema: pa.Schema) -> pa.Schema:
    """Returns a schema with 64-bit offsets of text; those of a file stay as they are."""
    return pa.schema(
        [(each.name, TEXT if each.type == pa.string() else each.type) for each in schema]
    )


def _with_large_texts(table: pa.Table, texts: Sequence[str]) -> pa.Table:
    """Lengthens the dictionaries' offsets before they are unpacked, which else overflows."""
    for name in texts:
        chunks = [
            pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(TEXT))
            for chunk in table[name].chunks
        ]
        column = pa.chunked_array(chunks, pa.dictionary(pa.int32(), TEXT))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _check_footer(path: Path, footer: pq.FileMetaData, most_rows: int | None, what: str) -> None:
    rows = footer.num_rows
    if most_rows is not None and rows > most_rows:
        raise DatasetError(
            f"{path}: {rows} rows for {most_rows} {what} of the manifest. Run nakt verify on the "
            "folder"
        )
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    packed_texts = sum(group.total_byte_size for group in groups)
    _check_unpacked(path, max(packed_texts, rows * footer.num_columns * _CELL_BYTES))


def _text_bytes(column: pa.ChunkedArray) -> int:
    lengths = [
        pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py()
        for chunk in column.chunks
    ]
    return sum(filter(None, lengths))


def _check_unpacked(path: Path, unpacked: int) -> None:
    size = path.stat().st_size
    if unpacked > _MOST_UNPACKED_BYTES + _MOST_TIMES_UNPACKED * size:
        raise DatasetError(
            f"{path}: a table of {size} bytes that unpacks to {unpacked} or more, expected at "
            f"most {_MOST_TIMES_UNPACKED} for each byte and {_MOST_UNPACKED_BYTES} besides. Run "
            "nakt verify on the folder, or copy it from its origin"
        )


def _check_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    if found.names != expected.names:
        raise DatasetError(f"{path}: columns {found.names}, expected {expected.names}")
    for name, kind, wanted in zip(found.names, found.types, expected.types, strict=True):
        if kind != wanted and (kind, wanted) != (TEXT, pa.string()):  # as other writers have it
            raise DatasetError(
                f"{path}: column '{name}' holds {kind}, expected {wanted}. Run nakt verify on the "
                "folder"
            )


def check_rows(
    path: Path, table: pa.Table, shards: int, members: Sequence[str], filled: Sequence[str] = ()
) -> None:
    """Checks what samples are looked up by: a reader then needs to check nothing per sample.

    Keys are those that a shard can hold, each there once.

    Args:
        shards: how many the manifest names; shard numbers lie below.
        members: files of a sample, such as ``"image"``. Their offset, size and checksum may
            be absent only together, and not negative.
        filled: further columns, and members, that may not hold null anywhere.

    Raises:
        DatasetError: naming file, column and the first wrong row.
    """
    for member in members:
        check_member(path, table, member, may_be_absent=member not in filled)
    for name in ("key", "shard", *(each for each in filled if each not in members)):
        _require(path, table, name, pc.is_valid(table[name]), "a value in every row")
    inside = pc.and_(
        pc.greater_equal(table["shard"], 0), pc.less(table["shard"], pa.scalar(shards, pa.int64()))
    )
    _require(path, table, "shard", inside, f"a number from 0 to {shards - 1}")
    plain = pc.match_substring_regex(table["key"], r"^[^./\\\x00]+$")
    _require(path, table, "key", plain, "a name without . / \\")
    first_rows = pc.index_in(table["key"], value_set=table["key"].combine_chunks())
    alone = pc.equal(first_rows, pa.array(np.arange(len(table), dtype=np.int32)))
    _require(path, table, "key", alone, "each key once")


def check_member(path: Path, table: pa.Table, member: str, may_be_absent: bool) -> None:
    """Checks the three columns of one file of each sample, as ``check_rows`` does."""
    offset, size, crc32 = (f"{member}_{each}" for each in ("offset", "size", "crc32"))
    for name in (offset, size, crc32):
        good, expected = pc.is_valid(table[name]), "a number"
        if may_be_absent:
            good = pc.equal(good, pc.is_valid(table[size if name == offset else offset]))
            expected = f"a number where the {member}'s other columns hold one, and nowhere else"
        _require(path, table, name, good, expected)
    for name in (offset, size):
        _require(path, table, name, pc.greater_equal(table[name], 0), "0 or more")
    small = pc.less_equal(table[size], MOST_MEMBER_BYTES)
    _require(path, table, size, small, f"at most {MOST_MEMBER_BYTES}")


def _require(path: Path, table: pa.Table, column: str, good: pa.ChunkedArray, what: str) -> None:
    """Raises DatasetError for the first row where ``good`` is false; null counts as good."""
    row = pc.index(good, False).as_py()
    if row >= 0:
        raise DatasetError(
            f"{path}: column '{column}' holds {table[column][row].as_py()} in row {row}, expected "
            f"{what}. Run nakt verify on the folder"
        )
