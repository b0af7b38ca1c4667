"""The index of a dataset as a file: checked by the manifest, and read a few columns at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import INDEX_NAME, PseudoLabelManifest, ShardManifest
from nakt_dist.shards.tables import INDEX_SCHEMA, pseudo_index_schema, read_table


def index_schema(manifest: ShardManifest | PseudoLabelManifest) -> pa.Schema:
    """Returns the columns of the index that a manifest names."""
    if isinstance(manifest, PseudoLabelManifest):
        return pseudo_index_schema(manifest.classes)
    return INDEX_SCHEMA


class IndexFile:
    """The table of a dataset, whose bytes are hashed once as long as its file stays the same.

    Raises:
        DatasetError: it is absent, damaged, or not the one that the manifest names.
    """

    def __init__(
        self, location: DatasetLocation, manifest: ShardManifest | PseudoLabelManifest
    ) -> None:
        self.schema = index_schema(manifest)
        self._sha256 = manifest.files.get(INDEX_NAME, "")
        self._most_rows = manifest.num_samples
        self._sound: tuple[int, ...] | None = None
        self.path = location.local(INDEX_NAME, self._is_whole)
        self._check()

    def read(self, names: Sequence[str], rows: np.ndarray | None = None) -> pa.Table:
        """Returns columns, of all rows or of some in the given order."""
        self._check()
        table = read_table(self.path, self.schema, most_rows=self._most_rows, columns=names)
        return table if rows is None else table.take(pa.array(rows))

    def _check(self) -> None:
        if not self._is_whole(self.path):
            raise DatasetError(
                f"{self.path}: absent or not the file the manifest names. Run nakt verify"
            )

    def _is_whole(self, path: Path) -> bool:
        if not path.is_file():
            return False
        status = path.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if seen != self._sound:
            self._sound = seen if file_sha256(path) == self._sha256 else None
        return self._sound is not None
