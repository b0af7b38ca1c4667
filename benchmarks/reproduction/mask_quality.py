"""Whether what is measured of pseudo masks tells the good ones: against annotations kept apart.

Annotations of a transferal dataset are read here alone, once its students are trained.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.records.pseudo_sets import PseudoSet, learnt_from, read_pseudo_set
from nakt_dist.shards.manifest import MANIFEST_NAME
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.transfer.statistics import TARGET_LEVEL

MEASURES = ("entropy", "target_pixels", "mean_confidence", "expected_dice")
_DIGITS = 4


def judge_measures(root: Path) -> list[dict[str, Any]]:
    """Compares the pseudo masks of a study with annotations of the same pictures, where there are.

    Pictures are known by their content, so that another packing of a dataset, with its
    annotations, serves. Images that a teacher learnt from are left out.

    Args:
        root: of the study: packed datasets below ``shards``, pseudo masks below ``pseudo``.

    Returns:
        Of each set of pseudo masks with annotations its ``name``, ``dataset``, ``images``, their
        mean ``dice`` in percent, and Spearman's correlation of each of ``MEASURES`` with the Dice
        of an image, None where either is alike in all.
    """
    packed = [IndexedShards(path.parent) for path in sorted(root.glob(f"shards/*/{MANIFEST_NAME}"))]
    annotated = [each for each in packed if not len(each.without_mask())]
    found = []
    for path in sorted(root.glob(f"pseudo/*/{MANIFEST_NAME}")):
        pseudo = read_pseudo_set(path.parent)
        (images,) = (
            each for each in packed
            if each.manifest.fingerprint == pseudo.manifest.dataset_fingerprint
        )  # fmt: skip
        told = max((_judge(pseudo, path.parent, images, each) for each in annotated), key=_count)
        if told["images"]:
            found.append({"name": f"pseudo/{path.parent.name}", **told})
    return found


def _count(told: Mapping[str, Any]) -> int:
    return int(told["images"])


def _judge(
    pseudo: PseudoSet, folder: Path, images: IndexedShards, annotated: IndexedShards
) -> dict[str, Any]:
    labels = PseudoLabels(folder, images)
    pairs = list(_pairs(pseudo, images, annotated))
    rows = [row for row, _ in pairs]
    dice = np.array([_dice(labels, row, annotated, other) for row, other in pairs])
    measured = {name: labels.statistics[name].to_numpy()[rows] for name in MEASURES}
    return {
        "dataset": pseudo.manifest.dataset,
        "images": len(rows),
        "dice": round(100 * float(dice.mean()), _DIGITS) if rows else None,
        **{name: _correlation(values, dice) for name, values in measured.items()},
    }


def _pairs(
    pseudo: PseudoSet, images: IndexedShards, annotated: IndexedShards
) -> Iterator[tuple[int, int]]:
    """Yields rows of pseudo masks and of annotations of one size and the same picture."""
    manifest = annotated.manifest
    if (manifest.height, manifest.width) != (pseudo.manifest.height, pseudo.manifest.width):
        return
    number = {key: row for row, key in enumerate(annotated.column("pixels").to_pylist()) if key}
    learnt = [
        each.splits
        for teacher in pseudo.manifest.teachers
        for each in learnt_from(teacher)
        if each.fingerprint == images.manifest.fingerprint
    ]
    splits = images.column("split").to_pylist()
    for row, picture in enumerate(images.column("pixels").to_pylist()):
        if picture in number and not any(own is None or splits[row] in own for own in learnt):
            yield row, number[picture]


def _dice(labels: PseudoLabels, row: int, annotated: IndexedShards, other: int) -> float:
    data = annotated.mask_bytes(other)
    assert data is not None
    mask = decode_pixels(labels.soft_mask_bytes(row))[0] >= TARGET_LEVEL
    truth = decode_pixels(data)[0] > 0
    both = mask.sum() + truth.sum()
    return 2 * float((mask & truth).sum()) / float(both) if both else 1.0


def _correlation(values: np.ndarray, dice: np.ndarray) -> float | None:
    if len(dice) < 2 or np.ptp(values) == 0 or np.ptp(dice) == 0:
        return None
    return round(float(spearmanr(values, dice).statistic), _DIGITS)
