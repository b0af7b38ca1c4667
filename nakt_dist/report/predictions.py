"""What a run said of each test image, from the table beside its record."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.report.evaluations import Evaluation

PREDICTIONS_NAME = "predictions.parquet"
Item = TypeVar("Item")


def read_dice(run: Evaluation, purpose: str) -> dict[str, float]:
    """Reads the Dice of each image in percent by its key; NaN where it is not defined.

    Raises:
        DatasetError: as ``read_predictions``.
    """

    def read(table: pa.Table) -> tuple[dict[str, float], int, float]:
        values = 100 * table["dice"].cast(pa.float64()).to_numpy()
        known = values[~np.isnan(values)]
        found = dict(zip(table["key"].to_pylist(), values.tolist(), strict=True))
        return found, len(known), float(known.mean()) if len(known) else np.nan

    return read_predictions(run, read, purpose, ["key", "dice"])


def read_predictions(
    run: Evaluation,
    read: Callable[[pa.Table], tuple[Item, int, float]],
    purpose: str,
    columns: Sequence[str] | None = None,
    metric: str = "",
    tolerance: float = 1e-6,
) -> Item:
    """Reads a run's predictions, and checks them against its record.

    Args:
        read: returns what is wanted, the number of images and their mean in percent, or NaN.
        purpose: what there is not where they cannot be used.
        columns: read from the table; all where None.
        metric: whose mean it is, where that has to be said.
        tolerance: by how much the means may differ, in percentage points.

    Raises:
        DatasetError: the file is absent, damaged, or not what the record sums up.
    """
    path = run.folder / PREDICTIONS_NAME
    try:
        found, images, mean = read(pq.read_table(path, columns=columns, partitioning=None))
    except (OSError, KeyError, pa.ArrowException, NaktError) as error:
        reason = str(error).replace(str(path), PREDICTIONS_NAME)
        raise DatasetError(f"no {purpose}: {PREDICTIONS_NAME}: {reason:.200}") from None
    if images != run.images or not abs(mean - run.mean) <= tolerance:
        shown = "none" if math.isnan(mean) else f"{mean:.4f} %"
        raise DatasetError(
            f"no {purpose}: {PREDICTIONS_NAME} has {images} images of mean {metric}{shown}, its "
            f"record says {run.images} of {run.mean:.4f} %"
        )
    return found
