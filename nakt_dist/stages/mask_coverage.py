"""How much of each packed mask is target, and what looks wrong about that."""

from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.shards.manifest import ShardManifest

LOST_TARGETS = (
    "masks whose target is lost at this size: pack with a larger image.height and image.width, or "
    "with image.fit pad where centre_crop cuts it off"
)


def target_pixels(mask: np.ndarray, kind: str) -> np.ndarray:
    """Returns where a packed mask has target, bool of its shape.

    Args:
        mask: uint8; 0 and 255, or class indices.
        kind: ``"binary"``, or ``"classes"``, of which every class but 0 and 255 (void) counts.
    """
    return (mask != 0) & (mask != 255) if kind == "classes" else mask != 0


def summarise_coverage(index: pa.Table) -> dict[str, Any]:
    """Counts what the targets cover in a packed dataset, by its index.

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


def describe_coverage(coverage: dict[str, Any], manifest: ShardManifest, folder: str) -> list[str]:
    """Says what ``summarise_coverage`` found, and warns where masks look inverted or misread."""
    if not coverage:
        return []
    lines = [
        f"target in {coverage['masks']} masks: smallest {coverage['smallest']:.2%} of the image, "
        f"median {coverage['median']:.2%}, largest {coverage['largest']:.2%}; "
        f"{coverage['empty']} empty, {coverage['full']} full"
    ]
    look = f"Look at them: nakt inspect {folder} --output SHEETS"
    if manifest.mask_kind == "binary" and coverage["median"] > 0.5:
        lines.append(
            f"WARNING: more than half of most images is target; are the masks inverted? {look}. "
            + _how_to_invert(manifest.config.get("mask_values", {}))
        )
    if 2 * coverage["empty"] > coverage["masks"]:
        lost = manifest.found.get(LOST_TARGETS, 0)
        why = "is their target written in another way?"
        if 2 * lost >= coverage["empty"]:
            why = f"{lost} of them are {LOST_TARGETS}."
        lines.append(f"WARNING: most masks are empty; {why} {look}")
    return lines


def _how_to_invert(mask_values: dict[str, Any]) -> str:
    """Says what to set where a mask came out inverted, by what was set."""
    if mask_values.get("target") is None and mask_values.get("threshold") is None:
        return "Where 0 is target, pack with --mask_values.target '[0]'"
    return (
        "mask_values says what is target; of a palette of greys it means the grey levels that a "
        "viewer shows, not the indices. Leave it out where it is not needed"
    )
