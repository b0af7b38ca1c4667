"""Which pictures a network has met: a small sample of their numbers that travels in its lineage."""

import base64
import binascii
from typing import Any

import numpy as np
import pyarrow as pa

MOST_KEPT = 2048
"""Numbers kept of a set of pictures. Of a smaller set all are; a larger one is told by those of its
smallest numbers, which a test set that shares pictures with it holds in proportion."""

_BYTES = 8


def numbers_of(index: pa.Table) -> np.ndarray:
    """Returns the numbers of the pictures of a dataset, int64, sorted, each once.

    Args:
        index: of a packed dataset, or some of its rows.
    """
    return np.unique(index["pixels"].drop_null().to_numpy())


def sketch_pictures(numbers: np.ndarray) -> dict[str, Any]:
    """Returns what a lineage keeps of a set of pictures (bottom-k sketch).

    Args:
        numbers: from ``numbers_of``.

    Returns:
        ``count`` of pictures, and ``smallest``, base64 of the smallest ``MOST_KEPT`` numbers.
    """
    kept = numbers[:MOST_KEPT].astype(">i8").tobytes()
    return {"count": len(numbers), "smallest": base64.b64encode(kept).decode()}


def shared_pictures(sketch: Any, numbers: np.ndarray) -> int:
    """Returns how many pictures of a set are in one that was sketched, as far as that tells.

    Args:
        sketch: from ``sketch_pictures``, of whatever origin.
        numbers: of the other set, from ``numbers_of``.

    Returns:
        All of them where the sketch is whole; else those that it can know, at least.

    Raises:
        ValueError: the sketch is none.
    """
    try:
        kept = base64.b64decode(sketch["smallest"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ValueError("expected base64 of numbers as 'smallest'") from None
    if len(kept) % _BYTES or len(kept) > MOST_KEPT * _BYTES:
        raise ValueError(f"{len(kept)} bytes of numbers, expected at most {MOST_KEPT} of 8 bytes")
    return len(np.intersect1d(np.frombuffer(kept, ">i8").astype(np.int64), numbers))
