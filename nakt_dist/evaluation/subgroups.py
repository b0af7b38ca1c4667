"""AUROC by sex, age band and view, and how far the groups lie apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.records.finding_results import GroupScore

AGE_BANDS = ((0, 40), (40, 60), (60, 80), (80, None))
"""Years, the upper limit excluded; None for no limit."""

SMALLEST_GROUP = 30
"""Images below which a group is counted but not compared."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Subgroups:
    """The groups of one attribute.

    Attributes:
        groups: in order, the unknown ones last.
        labels: numbers of the labels that are compared: those with both classes in every
            group that is compared, so that no group is judged by easier labels than another.
        gap: largest less smallest mean AUROC, in percentage points; None unless two groups have
            one.
    """

    groups: tuple[GroupScore, ...]
    labels: tuple[int, ...]
    gap: float | None


def age_band(age: float | None) -> str | None:
    """Returns the band of an age in years, such as ``"40-60"`` or ``"80+"``; None for no age."""
    for lower, upper in AGE_BANDS:
        if age is not None and lower <= age and (upper is None or age < upper):
            return f"{lower}+" if upper is None else f"{lower}-{upper}"
    return None


def compare_subgroups(
    attribute: str,
    values: Sequence[str | None],
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str | None],
) -> Subgroups:
    """Compares the groups of one attribute on the labels that all of them can be judged by.

    Args:
        values: of each image, None where unknown.
        probabilities: float (N, K).
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
        patients: of each image, None where unknown.
    """
    rows = _rows_by_group(values)
    compared = [group for group in rows if group != UNKNOWN and len(rows[group]) >= SMALLEST_GROUP]
    labels = _labels_of_all(targets, [rows[group] for group in compared]) if compared else []
    groups, means = [], []
    for group, members in rows.items():
        percent = None
        if group in compared and labels:
            chosen = np.ix_(members, labels)
            found = mean_auroc(probabilities[chosen], targets[chosen]).mean
            if found is not None:
                percent = 100 * found
                means.append(found)
        known = {patients[row] for row in members} - {None}
        counted = len(labels) if percent is not None else 0
        groups.append(GroupScore(attribute, group, len(members), len(known), percent, counted))
    gap = 100 * (max(means) - min(means)) if len(means) > 1 else None
    return Subgroups(tuple(groups), tuple(labels), gap)


def _rows_by_group(values: Sequence[str | None]) -> Mapping[str, list[int]]:
    """Returns the images of each group: groups in order of their names, the unknown one last."""
    known = sorted({value for value in values if value is not None} - {UNKNOWN})
    rows: dict[str, list[int]] = {group: [] for group in [*known, UNKNOWN]}
    for row, value in enumerate(values):
        rows[UNKNOWN if value is None else value].append(row)
    return {group: members for group, members in rows.items() if members}


def _labels_of_all(targets: np.ndarray, groups: Iterable[Sequence[int]]) -> list[int]:
    """Returns the labels that have both classes in every group."""
    usable = np.ones(targets.shape[1], dtype=bool)
    for members in groups:
        usable &= (targets[members] == 1).any(0) & (targets[members] == 0).any(0)
    return np.flatnonzero(usable).tolist()
