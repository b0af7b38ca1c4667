"""How much of each packed mask is target, and what looks wrong about that."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.shards.manifest import INDEX_NAME, ShardManifest
from nakt_dist.shards.tables import INDEX_SCHEMA, read_table


def target_pixels(mask: np.ndarray, kind: str) -> np.ndarray:
    """Returns where a packed mask has target, bool of its shape.

    Args:
        mask: uint8; 0 and 255, or class indices.
        kind: ``"binary"``, or ``"classes"``, of which every class but 0 and 255 (void) counts.
    """
    return (mask != 0) & (mask != 255) if kind == "classes" else mask != 0


def read_coverage(folder: Path, manifest: ShardManifest) -> dict[str, Any]:
    """Returns ``summarise_coverage`` of a packed dataset.

    Raises:
        DatasetError: the index is damaged.
    """
    if manifest.mask_kind == "none":
        return {}
    return summarise_coverage(read_table(folder / INDEX_NAME, INDEX_SCHEMA))


def summarise_coverage(index: pa.Table) -> dict[str, Any]:
    """Counts what the targets cover.

    Args:
        index: of a packed dataset.

    Returns:
        ``masks``, of these ``empty`` and ``full``, and the ``smallest``, ``median`` and
        ``largest`` share of target, from 0 to 1; nothing where there is no mask.
    """
    shares = index["target_share"].drop_null().to_numpy()
    if not len(shares):
        return {}
    return {
        "masks": len(shares),
        "empty": int((shares == 0).sum()),
        "full": int((shares == 1).sum()),
        "smallest": float(shares.min()),
        "median": float(np.median(shares)),
        "largest": float(shares.max()),
    }


def describe_coverage(coverage: dict[str, Any], kind: str, folder: str) -> list[str]:
    """Says what the targets cover, and warns where masks look inverted or misread.

    Args:
        coverage: as ``summarise_coverage`` gives it.
        kind: of the masks, as for ``target_pixels``.
        folder: of the packed dataset, for the advice.

    Returns:
        Lines to print.
    """
    if not coverage:
        return []
    lines = [
        f"target in {coverage['masks']} masks: smallest {coverage['smallest']:.2%} of the image, "
        f"median {coverage['median']:.2%}, largest {coverage['largest']:.2%}; "
        f"{coverage['empty']} empty, {coverage['full']} full"
    ]
    look = f"Look at them: nakt inspect {folder} --output SHEETS"
    if kind == "binary" and coverage["median"] > 0.5:
        lines.append(
            f"WARNING: more than half of most images is target; are the masks inverted? {look}. "
            "Where 0 is target, pack with --mask_values.target '[0]'"
        )
    if 2 * coverage["empty"] > coverage["masks"]:
        lines.append(
            f"WARNING: most masks are empty; is their target written in another way? {look}"
        )
    return lines
