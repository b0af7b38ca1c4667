"""Random access to packed samples: a sample is read at its place in the shard."""

import hashlib
import json
import os
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample, nearest_name
from nakt_dist.shards.findings import parse_findings
from nakt_dist.shards.index_file import IndexFile
from nakt_dist.shards.location import DEFAULT_CACHE, DatasetLocation
from nakt_dist.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    PseudoLabelManifest,
    ShardEntry,
    ShardManifest,
)
from nakt_dist.shards.tables import TEXT, check_member, check_rows

_OPEN_SHARDS = 64


class _OpenShard:
    """A shard's file, closed when its last reader lets go of it.

    It is not memory-mapped: a mapped file that somebody truncates kills its readers by SIGBUS.
    """

    def __init__(self, path: Path) -> None:
        # Without waiting: a pipe in the place of a shard would be waited for for ever.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self.descriptor)
        self.bytes = os.fstat(self.descriptor).st_size


class _OpenShards:
    """Keeps the most recently used shards open."""

    def __init__(self, location: DatasetLocation, shards: Sequence[ShardEntry]) -> None:
        self._location = location
        self._shards = shards
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        """Leaves the open files behind: worker processes open their own."""
        return (type(self), (self._location, self._shards))

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Returns ``size`` bytes at ``offset`` of a shard; fewer where it ends before.

        Raises:
            DatasetError: the shard is absent, of another size, or its disk gives an error.
        """
        entry = self._shards[shard]
        with self._lock:
            file = self._open.get(shard)
            if file is None:
                file = self._open[shard] = self._opened(entry)
                if len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
        try:
            # A damaged index may ask for more memory than there is.
            return os.pread(file.descriptor, max(min(size, entry.bytes - offset), 0), offset)
        except OSError as error:
            raise DatasetError(
                f"{self._location.folder / entry.name}: cannot be read: {error.strerror}. Run "
                "nakt verify on the folder"
            ) from None

    def _opened(self, entry: ShardEntry) -> _OpenShard:
        def is_whole(path: Path) -> bool:
            return path.is_file() and path.stat().st_size == entry.bytes > 0

        path = self._location.local(entry.name, is_whole, entry.sha256, entry.bytes)
        try:
            file = _OpenShard(path)
            found = f"{file.bytes} bytes"
        except OSError as error:
            file, found = None, str(error.strerror).lower()
        if file is None or not file.bytes == entry.bytes > 0:
            raise DatasetError(
                f"{path}: found {found}, expected {entry.bytes} bytes as the manifest says. "
                "Run nakt verify on the folder"
            )
        return file


_Manifest = TypeVar("_Manifest", ShardManifest, PseudoLabelManifest)


class _PackedRows(Generic[_Manifest]):
    """Rows of an index with the files in shards that they speak of, numbered from 0.

    Only what samples are looked up by is read at once; other columns are when they are asked for.
    """

    root: Path
    manifest: _Manifest
    _table: IndexFile

    def _open(
        self,
        root: str | Path,
        cache: Path,
        kind: type[_Manifest],
        members: Sequence[str],
        filled: Sequence[str],
    ) -> None:
        """Reads the manifest and checks the index."""
        location = DatasetLocation(root, cache)
        self.root = location.folder
        location.refresh(MANIFEST_NAME)
        self.manifest = kind.read(self.root)
        self._table = IndexFile(location, self.manifest)
        self._rows: np.ndarray | None = None
        names = ["key", "shard", *(name for name in filled if name not in members)]
        table = self._table.read(names)
        check_rows(self._table.path, table, len(self.manifest.shards), (), names)
        self._held = {"key": table["key"]}
        self.shard_numbers = table["shard"].to_numpy()
        self._columns: dict[str, np.ndarray] = {}
        for member in members:
            columns = self._table.read([f"{member}_{what}" for what in ("offset", "size", "crc32")])
            check_member(self._table.path, columns, member, member not in filled)
            self._columns |= {name: _numbers(columns[name]) for name in columns.column_names}
        self._files = _OpenShards(location, self.manifest.shards)

    @property
    def index(self) -> pa.Table:
        """The rows with all of their columns, as the schema of the table has them."""
        return self._table.read(self._table.schema.names, self._rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column of the rows; it is read from the table when first asked for."""
        if name not in self._held:
            self._held[name] = self._table.read([name], self._rows)[name]
        return self._held[name]

    def select(self, rows: Sequence[int] | np.ndarray) -> Self:
        """Returns the same with only the given samples, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        chosen = object.__new__(type(self))
        chosen.__dict__.update(self.__dict__)
        chosen._rows = rows if self._rows is None else self._rows[rows]
        chosen.shard_numbers = self.shard_numbers[rows]
        chosen._columns = {name: _chosen(each, rows) for name, each in self._columns.items()}
        chosen._held = {name: each.take(pa.array(rows)) for name, each in self._held.items()}
        return chosen

    def fingerprint_of_rows(self) -> bytes:
        """Returns what tells these rows, in their order, from all others: 32 bytes."""
        digest = hashlib.sha256(self.manifest.fingerprint.encode())
        for values in (self.shard_numbers, *self._columns.values()):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.digest()

    @property
    def keys(self) -> list[str]:
        """Keys of the selected samples, in order."""
        return self.column("key").to_pylist()

    def _member(self, number: int, member: str) -> bytes:
        offset = int(self._columns[f"{member}_offset"][number])
        size = int(self._columns[f"{member}_size"][number])
        data = self._files.read(int(self.shard_numbers[number]), offset, size)
        self.check_bytes(number, member, data)
        return data

    def check_bytes(self, number: int, member: str, data: bytes) -> None:
        """Compares bytes that were read, perhaps from a stream, with the stored checksum.

        Args:
            member: ``"image"``, ``"mask"``, ``"json"`` or ``"soft"``.

        Raises:
            UnusableSample: they differ.
        """
        # A damaged JPEG decodes to another picture without complaint; the checksum complains.
        if zlib.crc32(data) != self._columns[f"{member}_crc32"][number]:
            raise UnusableSample("checksum_differs", self._changed(number, member))

    def _changed(self, number: int, member: str) -> str:
        return f"the {member}'s bytes have changed"


class IndexedShards(_PackedRows[ShardManifest]):
    """A packed dataset, or some of its splits, with random access to every sample.

    Samples are numbered from 0 in the order of the shards, whatever is selected.

    Args:
        root: folder or URL of the dataset.
        splits: the splits wanted; None for all.
        cache: folder for local copies when ``root`` is a URL.

    Raises:
        DatasetError: the dataset is absent or damaged.
        ConfigurationError: a split is not in the dataset.
    """

    def __init__(
        self, root: str | Path, splits: Sequence[str] | None = None, cache: Path = DEFAULT_CACHE
    ) -> None:
        members = ("image", "mask", "json")
        self._open(root, cache, ShardManifest, members, ("image", "json"))
        if len(self) != self.manifest.num_samples:
            raise DatasetError(
                f"{self.root / INDEX_NAME}: {len(self)} rows, but the manifest counts "
                f"{self.manifest.num_samples} samples. Run nakt verify on the folder"
            )
        if splits is not None:
            self.__dict__ = self.select(self._rows_of(splits)).__dict__

    def _rows_of(self, splits: Sequence[str]) -> np.ndarray:
        known = self.manifest.splits
        for split in splits:
            if split not in known:
                raise ConfigurationError(
                    f"split '{split}' is not in {self.root}, which has {', '.join(known)}"
                    f"{nearest_name(split, known)}"
                )
        wanted = pc.is_in(self._table.read(["split"])["split"], pa.array(splits, TEXT))
        return np.flatnonzero(wanted.to_numpy())

    def __len__(self) -> int:
        return len(self.shard_numbers)

    @property
    def patients(self) -> list[str | None]:
        """The patient of each selected sample, in order; None where unknown."""
        return self.column("patient_id").to_pylist()

    def image_bytes(self, number: int) -> bytes:
        """Returns the encoded image of a sample."""
        return self._member(number, "image")

    def mask_bytes(self, number: int) -> bytes | None:
        """Returns the encoded mask of a sample, or None where the dataset has none."""
        size = self._columns["mask_size"][number]
        return None if np.isnan(size) else self._member(number, "mask")

    def without_mask(self) -> np.ndarray:
        """Returns the numbers, int64 (N,), of the samples for which the dataset has no mask."""
        return np.flatnonzero(np.isnan(self._columns["mask_size"]))

    def metadata(self, number: int) -> dict[str, Any]:
        """Returns the sample's JSON: labels, patient, source, original size.

        Raises:
            UnusableSample: its bytes have changed, or are no JSON object.
        """
        try:
            value = json.loads(self._member(number, "json"))
        except (ValueError, RecursionError) as error:
            raise UnusableSample("undecodable", f"the json does not decode: {error}") from None
        if not isinstance(value, dict):
            raise UnusableSample("undecodable", "the json is no object of values by name")
        return value

    def findings(self) -> list[dict[str, int] | None]:
        """Returns what the dataset says of each sample, as it published it.

        Returns:
            Per sample 1 (present), 0 (absent) or -1 (uncertain) by finding; a blank is absent
            from the mapping. None where the dataset says nothing about the image. Samples of
            which the same is said share one mapping.

        Raises:
            DatasetError: an entry is none of these.
        """
        known = frozenset(self.manifest.findings)
        coded = self.column("findings").combine_chunks().dictionary_encode("encode")
        parsed = []
        for code, text in enumerate(coded.dictionary.to_pylist()):  # each wording once
            try:
                parsed.append(parse_findings(text, known))
            except ValueError as error:
                number = pc.index(coded.indices, code).as_py()
                raise DatasetError(
                    f"{self.describe(number)}: {error}. Run nakt verify on the folder"
                ) from None
        return [parsed[code] for code in coded.indices.to_numpy()]

    def check(self, number: int) -> None:
        """Compares the stored checksums of a sample's files with their bytes.

        Raises:
            UnusableSample: a file differs.
        """
        for member in ("image", "mask", "json"):
            if not np.isnan(self._columns[f"{member}_size"][number]):
                self._member(number, member)

    def describe(self, number: int) -> str:
        """Returns ``shard/key`` of a sample, for messages."""
        shard = self.manifest.shards[int(self.shard_numbers[number])].name
        return f"{self.root / shard}:{self.column('key')[number].as_py()}"


class PseudoLabels(_PackedRows[PseudoLabelManifest]):
    """The soft masks and statistics made for a dataset, in the order of its samples.

    Args:
        root: folder or URL of the pseudo-labels.
        dataset: the dataset as selected; only its samples are looked up.
        cache: folder for local copies when ``root`` is a URL.

    Raises:
        DatasetError: they are absent, damaged, unfinished, or made for something else.
    """

    def __init__(
        self, root: str | Path, dataset: IndexedShards, cache: Path = DEFAULT_CACHE
    ) -> None:
        filled = ("soft", "target_pixels", "entropy")
        self._open(root, cache, PseudoLabelManifest, ("soft",), filled)
        self.manifest.check_made_for(dataset.manifest, self.root)
        rows = rows_by_key(self.column("key"), dataset.column("key"), self.root)
        self.__dict__ = self.select(rows).__dict__

    @property
    def statistics(self) -> pa.Table:
        """A row per sample, with the columns of ``pseudo_index_schema``."""
        return self.index

    def soft_mask_bytes(self, number: int) -> bytes:
        """Returns the encoded soft mask (uint8 PNG, round(255 y), planes below each other).

        Raises:
            UnusableSample: its bytes are not those that were written.
        """
        return self._member(number, "soft")

    def _changed(self, number: int, member: str) -> str:
        shard = self.manifest.shards[int(self.shard_numbers[number])].name
        return f"the soft mask's bytes in {shard} have changed"


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Returns numbers, NaN for null; a column of nulls takes no memory."""
    if column.null_count == len(column):
        return np.broadcast_to(np.float64(np.nan), len(column))
    return column.to_numpy()


def _chosen(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.broadcast_to(column[:1], len(rows)) if column.strides == (0,) else column[rows]


def rows_by_key(keys: pa.ChunkedArray, wanted: pa.ChunkedArray, root: Path) -> np.ndarray:
    """Returns the rows of the wanted keys, each of which must be there."""
    rows = pc.index_in(wanted, value_set=keys.combine_chunks())
    if rows.null_count:
        missing = wanted[pc.index(rows.is_null(), True).as_py()].as_py()
        raise DatasetError(
            f"{root}: no pseudo-label for key {missing!r}; run teach again on the whole dataset"
        )
    return rows.to_numpy().astype(np.int64)
