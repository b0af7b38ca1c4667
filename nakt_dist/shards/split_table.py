"""What the splits of a packed dataset hold, side by side, and whether they are one population."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.limits import OLDEST_AGE

_MOST_VALUES = 12
"""Values of a fact beyond which it is no class of images."""

_UNLIKELY = 9.2
"""Minus the logarithm of 1 in 10,000: with a hundred rows, one random division in a hundred
would be called different."""


@dataclass(frozen=True)
class SplitRow:
    """One line of the table.

    Attributes:
        what: ``"images"``, ``"patients"``, ``"images a patient"``, ``"age"``, or the name of a
            finding, class, sex or view.
        values: by split a count, a mean, or a share of the split's images from 0 to 1.
        unit: ``"count"``, ``"mean"`` or ``"share"``.
        counts: by split the images of a share; empty for other units.
        differs: whether some split differs from the others by more than dividing the patients at
            random gives.
    """

    what: str
    values: Mapping[str, float]
    unit: str
    counts: Mapping[str, int]
    differs: bool = False


def compare_splits(
    index: pa.Table, findings: Sequence[Mapping[str, int] | None], vocabulary: Sequence[str]
) -> list[SplitRow]:
    """Compares the splits of a packed dataset.

    A row is called different where Bernstein's bound puts the chance of so large a difference,
    had the patients been divided at random, below 1 in 10,000.

    Args:
        index: of the dataset; samples without a patient count as one each.
        findings: of each sample, as ``parse_findings`` returns them.

    Returns:
        Rows on images and patients, then of each class, sex, view, age, finding, and of what the
        masks cover, as far as the dataset says them.
    """
    splits = np.array(index["split"].to_pylist(), dtype=object)
    names = list(dict.fromkeys(splits))
    patients = index["patient_id"].to_pylist()
    units = [f"image {n}" if p is None else f"patient {p}" for n, p in enumerate(patients)]
    _, unit = np.unique(np.array(units, dtype=object), return_inverse=True)
    sizes = np.bincount(unit)
    inside = {name: splits == name for name in names}
    of_unit = {name: np.bincount(unit, mask) > 0 for name, mask in inside.items()}
    rows = [
        SplitRow("images", {name: int(mask.sum()) for name, mask in inside.items()}, "count", {})
    ]
    if any(patient is not None for patient in patients):
        known = {
            name: len(set(np.array(patients, object)[mask]) - {None})
            for name, mask in inside.items()
        }
        rows.append(SplitRow("patients", known, "count", {}))
        each = {name: float(sizes[found].mean()) for name, found in of_unit.items()}
        excess = sizes - sizes.mean()
        rows.append(SplitRow("images a patient", each, "mean", {}, _differs(excess, of_unit)))
    for what, unit_name, values in _facts(index, findings, vocabulary):
        told = ~np.isnan(values)
        overall = values[told].mean() if told.any() else 0.0
        excess = np.bincount(unit, np.where(told, values - overall, 0.0))
        means = {name: _mean(values[mask & told]) for name, mask in inside.items()}
        counts = {}
        if unit_name == "share":
            counts = {name: int(values[mask & told].sum()) for name, mask in inside.items()}
        rows.append(SplitRow(what, means, unit_name, counts, _differs(excess, of_unit)))
    return rows


def describe_splits(rows: Sequence[SplitRow]) -> list[str]:
    """Returns the table as lines of text, and a warning where splits differ."""
    names = list(rows[0].values)
    cells = [["", *names]]
    cells += [[row.what, *(_cell(row, name) for name in names)] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names) + 1)]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    different = [
        f"{row.what} ({', '.join(_cell(row, name) for name in names)})"
        for row in rows
        if row.differs
    ]
    if different:
        lines.append(
            f"WARNING: the splits are not alike: {'; '.join(different)} differ by more than "
            "dividing the patients at random gives, so what is measured on one split says less "
            "about images like those of another"
        )
    return lines


def describe_constant(
    rows: Sequence[SplitRow], findings: Sequence[str], splits: Mapping[str, int]
) -> str:
    """Names the findings that all images of a split have, or none; empty without such."""
    constant = {
        row.what: [split for split in splits if row.counts[split] in (0, splits[split])]
        for row in rows
        if row.what in findings
    }
    told = ", ".join(f"{name} ({', '.join(where)})" for name, where in constant.items() if where)
    return told and f"alike in all images of a split, so without AUROC there: {told}"


def _cell(row: SplitRow, split: str) -> str:
    value = row.values[split]
    if np.isnan(value):
        return "-"
    if row.unit == "count":
        return f"{value:,}"
    if row.unit == "mean":
        return f"{value:.2f}"
    return f"{row.counts[split]:,} {100 * value:.1f} %"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _differs(excess: np.ndarray, of_unit: Mapping[str, np.ndarray]) -> bool:
    """Says whether some split's sum of what patients have too much is beyond chance.

    Args:
        excess: of each patient, float; they sum to zero.
        of_unit: by split which patients it has, bool.
    """
    if len(of_unit) < 2:
        return False
    largest, squares = float(np.abs(excess).max()), float((excess**2).sum())
    for found in of_unit.values():
        share = found.mean()
        distance = abs(float(excess[found].sum()))
        spread = share * (1 - share) * squares + largest * distance / 3
        if distance > 1e-9 and distance**2 / (2 * spread) > _UNLIKELY:
            return True
    return False


def _facts(
    index: pa.Table, findings: Sequence[Mapping[str, int] | None], vocabulary: Sequence[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields what is compared, its unit, and its value for each image; NaN where unknown."""
    strata = index["stratum"].to_pylist()
    texts = index["labels"].to_pylist()
    parsed = {text: _parse(text) for text in set(texts)}  # there are few different ones
    labels = [parsed[text] for text in texts]
    yield from _classes("", strata)
    yield from _classes("sex ", [each.get("sex") for each in labels])
    yield from _classes("", [each.get("projection") or each.get("view") for each in labels])
    ages = [each.get("age", each.get("age_approx")) for each in labels]
    # JSON may hold any number; what no one is aged is none
    numbers = [
        float(age) if isinstance(age, int | float) and 0 <= age <= OLDEST_AGE else np.nan
        for age in ages
    ]
    if not np.isnan(numbers).all():
        yield "age", "mean", np.array(numbers)
    present = {name: np.zeros(len(findings)) for name in vocabulary}
    for number, each in enumerate(findings):
        for name in vocabulary if each is None else each.keys() & present.keys():
            present[name][number] = np.nan if each is None else each[name] == 1
    for name, values in present.items():
        yield name, "share", values
    covered = index["target_share"].to_numpy(zero_copy_only=False).astype(float)
    if not np.isnan(covered).all():
        yield "target, % of image", "mean", 100 * covered


def _classes(prefix: str, values: Sequence[Any]) -> Iterator[tuple[str, str, np.ndarray]]:
    counts = Counter(value for value in values if isinstance(value, str) and value)
    if 0 < len(counts) <= _MOST_VALUES:
        for name in sorted(counts):
            yield f"{prefix}{name}", "share", np.array([float(value == name) for value in values])


def _parse(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
