"""How long does it take to open the index of a large dataset, and how much memory?

Beside plain libraries that read the same Parquet file into memory and check nothing. Ours besides
compares the file with its hash in the manifest, and checks what samples are looked up by.

    python -m benchmarks.indexes WAY SMALL LARGE    (MB that opening takes at its peak)
"""

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.comparing import Scale, Table, in_turns
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.manifest import INDEX_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards

_PER_SHARD = 1000


def _pandas(folder: Path) -> Any:
    import pandas

    return pandas.read_parquet(folder / INDEX_NAME)


def _pyarrow(folder: Path) -> Any:
    return pq.read_table(folder / INDEX_NAME)


WAYS: dict[str, Callable[[Path], Any]] = {
    "pyarrow": _pyarrow,
    "pandas": _pandas,
    "nakt": IndexedShards,
}


def measure(scale: Scale) -> list[Table]:
    """Opens indexes of 10⁵ and 10⁶ samples."""
    few = _dataset(scale.folder, 1000)
    tables = []
    for count in (1000,) if scale.smoke else (10**5, 10**6):
        many = _dataset(scale.folder, count)
        ways = {name: functools.partial(_rows, name, many) for name in WAYS}
        peaks = [f"{name} {_peak_megabytes(name, few, many):.0f} MB" for name in _installed(scale)]
        size = (many / INDEX_NAME).stat().st_size / 1e6
        note = f"Memory at its peak, beyond libraries: {', '.join(peaks)}. The file: {size:.0f} MB."
        title = f"opening an index of {count:,} samples"
        tables.append(in_turns(title, ways, "pyarrow", scale, note=note))
    return tables


def _installed(scale: Scale) -> list[str]:
    if scale.smoke:
        return ["nakt"]
    return [name for name in WAYS if name != "pandas" or importlib.util.find_spec("pandas")]


def _rows(name: str, folder: Path) -> int:
    return len(WAYS[name](folder))


def _peak_megabytes(name: str, few: Path, many: Path) -> float:
    """Returns what a process of its own says, whose libraries are loaded before."""
    words = [sys.executable, "-m", "benchmarks.indexes", name, str(few), str(many)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _tell_peak(name: str, few: Path, many: Path) -> None:
    WAYS[name](few)
    before = _most_resident_kilobytes()
    opened = WAYS[name](many)
    print((_most_resident_kilobytes() - before) * 1024 / 1e6)
    del opened


def _most_resident_kilobytes() -> int:
    """Of this process since it began; getrusage would tell that of its parent, were it more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _dataset(folder: Path, count: int) -> Path:
    """Writes manifest and index of a dataset whose shards are absent: opening reads none.

    The rows are those of a packed dataset, over and over, each with names of its own.
    """
    from benchmarks.loading import chest_shards

    root = folder / f"index-{count}"
    if root.exists():
        return root
    packed = chest_shards(folder, 64)
    numbers = np.arange(count)
    table = pq.read_table(packed / INDEX_NAME)
    schema, table = table.schema, table.take(pa.array(numbers % len(table)))
    endings = pc.cast(pa.array(numbers), pa.string())
    columns = {name: table[name] for name in schema.names}
    for name in ("key", "patient_id", "source"):
        columns[name] = pc.binary_join_element_wise(columns[name], endings, "-")
    columns["shard"] = pa.array((numbers // _PER_SHARD).astype(np.int32))
    columns["pixels"] = pa.array(np.random.default_rng(0).integers(2**62, size=count))
    root.mkdir()
    repeated = pa.table(columns, schema=schema)
    pq.write_table(repeated, root / INDEX_NAME, row_group_size=4096, compression="zstd")
    manifest = ShardManifest.read(packed)
    entries = tuple(
        replace(manifest.shards[0], name=f"train-{number:06d}.tar", samples=_PER_SHARD)
        for number in range(count // _PER_SHARD)
    )
    files = {**manifest.files, INDEX_NAME: file_sha256(root / INDEX_NAME)}
    replace(manifest, shards=entries, files=files, splits={"train": count}).write(root)
    return root


if __name__ == "__main__":
    _tell_peak(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
