"""Which pictures a network has met: their numbers, kept beside its weights on this machine.

They are no part of the weights, which may be passed on: whoever has a picture could tell by its
number whether the network learnt from it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from nakt_dist.shards.tables import read_table, write_table

PICTURES_NAME = "pictures.parquet"

_SCHEMA = pa.schema([("role", pa.string()), ("pixels", pa.int64())])
"""One row per picture and role: ``training``, ``validation``, ``parents`` or ``teacher``."""


def numbers_of(index: pa.Table) -> np.ndarray:
    """Returns the numbers of the pictures of a dataset, int64, sorted, each once.

    Args:
        index: of a packed dataset, or some of its rows.
    """
    return np.unique(index["pixels"].drop_null().to_numpy())


def write_pictures(folder: Path, met: Mapping[str, np.ndarray]) -> None:
    """Writes which pictures a run has met.

    Args:
        folder: the run's output folder.
        met: numbers of pictures by role.
    """
    rows = (
        [{"role": role, "pixels": number} for number in numbers.tolist()]
        for role, numbers in met.items()
    )
    write_table(folder / PICTURES_NAME, _SCHEMA, rows, None)


def read_pictures(weights: Path) -> dict[str, np.ndarray]:
    """Returns the numbers of the pictures that a network has met, by role.

    Args:
        weights: its file; nothing is known of one that left the folder of its run.

    Raises:
        DatasetError: the table is damaged.
    """
    path = weights.parent / PICTURES_NAME
    if not path.is_file():
        return {}
    table = read_table(path, _SCHEMA)
    roles = np.array(table["role"].to_pylist(), dtype=object)
    return {role: table["pixels"].to_numpy()[roles == role] for role in np.unique(roles)}
