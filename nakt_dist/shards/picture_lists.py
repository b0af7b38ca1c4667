"""Lists of pictures that somebody learnt from: by their numbers, or by their names in a dataset."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nakt_dist.errors import DatasetError
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import MOST_TABLE_BYTES, read_table

_KINDS = {"pixels": pa.int64(), "source": pa.string()}


@dataclass(frozen=True)
class PictureList:
    """What a list says.

    Attributes:
        numbers: int64, sorted, each once: of pictures, as an index has them in ``pixels``, and of
            names, see ``name_numbers``.
        rows: how many pictures it lists.
        by_picture: whether each row has the number of its picture: a name tells nothing of the
            same picture in a dataset that is called otherwise.
    """

    numbers: np.ndarray
    rows: int
    by_picture: bool


def read_picture_list(path: Path, dataset: str) -> PictureList:
    """Reads a list of pictures.

    Args:
        path: CSV or Parquet, such as the ``index.parquet`` of a packed dataset. Of its columns
            ``pixels`` (numbers of pictures) and ``source`` (names in the dataset) one must be
            there; others are left alone.
        dataset: whose pictures these are, which their names need.

    Raises:
        DatasetError: the file is absent, damaged or too large, has neither column, or lists
            nothing.
    """
    table = _read(path)
    pixels, names = (table[name] if name in table.column_names else None for name in _KINDS)
    numbers = np.empty(0, np.int64) if pixels is None else pixels.drop_null().to_numpy()
    known = numbers if names is None else np.concatenate([numbers, _numbers_of(names, dataset)])
    by_picture = pixels is not None and pixels.null_count == 0
    return PictureList(np.unique(known[known >= 0]), len(table), by_picture)


def name_numbers(images: IndexedShards) -> np.ndarray:
    """Returns a number for the name of each image in its dataset, int64 (N,); -1 for no name."""
    return _numbers_of(images.column("source"), images.manifest.dataset)


def _numbers_of(names: pa.ChunkedArray, dataset: str) -> np.ndarray:
    """Hashes names to 63 bits, as pictures are hashed, so that both can be kept together."""

    def hashed(values: Iterable[str | None]) -> Iterable[int]:
        start = hashlib.blake2b(f"{dataset}\0".encode(), digest_size=8)
        for value in values:
            digest = start.copy()
            digest.update((value or "").encode())
            yield int.from_bytes(digest.digest()) >> 1 if value else -1

    return np.fromiter(hashed(names.to_pylist()), np.int64, len(names))


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            table = _read_csv(path)
        else:
            found = pq.read_schema(path)
            # Its own schema is what it is checked against; of the rest the types are checked below.
            table = read_table(path, found, columns=[n for n in found.names if n in _KINDS])
        wanted = [name for name in _KINDS if name in table.column_names]
        if "pixels" in wanted and not pa.types.is_integer(table.schema.field("pixels").type):
            raise ValueError("its pixels are no whole numbers")  # as fractions they lose digits
        table = table.select(wanted).cast(pa.schema([(name, _KINDS[name]) for name in wanted]))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DatasetError(f"{path}: the list of pictures cannot be read: {reason}") from None
    if not wanted:
        raise DatasetError(
            f"{path}: has neither of the columns {' and '.join(_KINDS)}; expected a list of "
            "pictures: their numbers, as nakt pack writes them into index.parquet, or their names "
            "in the dataset"
        )
    if not len(table):
        raise DatasetError(f"{path}: lists no picture; leave teacher.card's images out")
    return table


def _read_csv(path: Path) -> pa.Table:
    if path.stat().st_size > MOST_TABLE_BYTES:
        raise DatasetError(f"{path}: larger than {MOST_TABLE_BYTES} bytes; give it as Parquet")
    options = pyarrow.csv.ConvertOptions(column_types=_KINDS, strings_can_be_null=True)
    return pyarrow.csv.read_csv(path, convert_options=options)
