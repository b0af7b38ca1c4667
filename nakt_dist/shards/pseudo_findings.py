"""Pseudo-findings: what classifiers say of each image of a packed dataset, a table per shard.

A probability is a whole number of 1/65,535: the error is at most 7.6e-6 everywhere. float16 would
lose up to 2.4e-4 near 1, where logits still differ much, and a probability and its complement
would be kept unlike well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.location import DEFAULT_CACHE, DatasetLocation
from nakt_dist.shards.manifest import MANIFEST_NAME, PseudoFindingsManifest, ShardEntry
from nakt_dist.shards.reader import IndexedShards, rows_by_key
from nakt_dist.shards.tables import TEXT, read_table, write_table

_PLAIN_TEXT = pa.string()

UNITS = 65535
"""Of a stored probability or disagreement of 1; as a disagreement: teachers did not answer."""

VALUES = ("probability", "disagreement")
"""The columns beside ``key``: a whole number of 1/65,535 for each finding of the manifest."""


def sidecar_schema(findings: int, text: pa.DataType = _PLAIN_TEXT) -> pa.Schema:
    """Returns the columns of a sidecar table for so many findings: a row per sample."""
    values = pa.list_(pa.uint16(), findings)
    return pa.schema([("key", text), *((name, values) for name in VALUES)])


def write_sidecar(
    path: Path,
    split: str,
    keys: Sequence[str],
    probability: np.ndarray,
    disagreement: np.ndarray,
    staging: Path | None = None,
) -> ShardEntry:
    """Writes the table of one shard, atomically.

    Args:
        keys: of the shard's samples, in their order.
        probability: float (N, K) in [0, 1]; NaN where the teachers did not answer.
        disagreement: float (N, K) in [0, 0.5].
    """
    silent = np.isnan(probability)
    values = np.where(silent, 0.0, probability), np.where(silent, 1.0, disagreement)
    stored = [np.rint(each * UNITS).astype(np.uint16) for each in values]
    rows = [
        dict(zip(("key", *VALUES), (key, first.tolist(), second.tolist()), strict=True))
        for key, first, second in zip(keys, *stored, strict=True)
    ]
    write_table(path, sidecar_schema(probability.shape[1]), [rows], staging)
    return ShardEntry(path.name, split, len(keys), path.stat().st_size, file_sha256(path))


def read_sidecar(path: Path, entry: ShardEntry, findings: int) -> pa.Table:
    """Reads and checks the table of one shard.

    Raises:
        DatasetError: it is absent or not the one that the manifest names, or holds no value
            somewhere, or another number of rows.
    """
    if not path.is_file() or file_sha256(path) != entry.sha256:
        raise DatasetError(f"{path}: absent or not the file the manifest names. Run nakt verify")
    table = read_table(path, sidecar_schema(findings), most_rows=entry.samples)
    nulls = sum(table[name].null_count + _flat(table[name]).null_count for name in VALUES)
    if len(table) != entry.samples or nulls or table["key"].null_count:
        raise DatasetError(
            f"{path}: {len(table)} rows with {nulls} values missing, expected {entry.samples} rows "
            "and none missing. Teach into a new --output"
        )
    return table


@dataclass(frozen=True)
class PseudoFindings:
    """What classifiers say of samples of a dataset.

    Attributes:
        root: folder of the pseudo-findings, or of their local copy.
        manifest: names the findings, the dataset and the teachers.
        keys: of the N samples.
        probability: float32 (N, K) in [0, 1], the teachers' weighted mean, or their private
            answer; NaN where they gave none.
        disagreement: float32 (N, K) in [0, 0.5], the weighted standard deviation between those
            teachers that know the finding; 0 for one alone, NaN as above.
    """

    root: Path
    manifest: PseudoFindingsManifest
    keys: pa.ChunkedArray
    probability: np.ndarray
    disagreement: np.ndarray

    @classmethod
    def read(cls, root: str | Path, cache: Path = DEFAULT_CACHE) -> "PseudoFindings":
        """Reads all of them, in the order of the shards.

        Args:
            root: folder or URL of the pseudo-findings.

        Raises:
            DatasetError: they are absent, damaged or unfinished.
        """
        location = DatasetLocation(root, cache)
        location.refresh(MANIFEST_NAME)
        manifest = PseudoFindingsManifest.read(location.folder)
        count = len(manifest.findings)
        tables = [read_sidecar(_local(location, each), each, count) for each in manifest.shards]
        table = pa.concat_tables([sidecar_schema(count, TEXT).empty_table(), *tables])
        if len(pc.unique(table["key"])) != len(table):
            raise DatasetError(f"{location.folder}: a key is there twice. Run nakt verify")
        stored = [_flat(table[name]).to_numpy().reshape(-1, count) for name in VALUES]
        silent = stored[1] == UNITS
        values = (np.where(silent, np.nan, each / np.float32(UNITS)) for each in stored)
        found = (each.astype(np.float32) for each in values)
        return cls(location.folder, manifest, table["key"], *found)

    @classmethod
    def open(
        cls, root: str | Path, dataset: IndexedShards, cache: Path = DEFAULT_CACHE
    ) -> "PseudoFindings":
        """Reads those of the selected samples of a dataset, in their order.

        Raises:
            DatasetError: as ``read``, or they were made for something else.
        """
        everything = cls.read(root, cache)
        everything.manifest.check_made_for(dataset.manifest, everything.root)
        rows = rows_by_key(everything.keys, dataset.column("key"), everything.root)
        return everything.select(rows)

    def __len__(self) -> int:
        return len(self.probability)

    def select(self, rows: Sequence[int] | np.ndarray) -> Self:
        """Returns the same with only the given samples, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            keys=self.keys.take(pa.array(rows)),
            probability=self.probability[rows],
            disagreement=self.disagreement[rows],
        )


def _local(location: DatasetLocation, entry: ShardEntry) -> Path:
    def is_whole(path: Path) -> bool:
        return path.is_file() and file_sha256(path) == entry.sha256

    return location.local(entry.name, is_whole, entry.sha256, entry.bytes)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Returns all values of a column of lists of one length, one after the other."""
    chunks = [chunk.values.slice(chunk.offset * chunk.type.list_size) for chunk in column.chunks]
    return pa.chunked_array(chunks, column.type.value_type).combine_chunks()
