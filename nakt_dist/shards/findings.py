"""What the index says about the findings, facts and patient of each sample."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from nakt_dist.limits import OLDEST_AGE

COUNTED = ("positive", "negative", "uncertain", "blank")
"""What the findings of an image are counted as."""

_VALUES = (-1, 0, 1)
_WORDS = {1: "positive", 0: "negative", -1: "uncertain", None: "blank"}


def parse_findings(text: str | None, vocabulary: Collection[str]) -> dict[str, int] | None:
    """Reads one entry of the column ``findings``.

    Args:
        text: JSON of the mapping, or None.
        vocabulary: the findings that the manifest names.

    Returns:
        Per finding 1 (present), 0 (absent) or -1 (uncertain), blanks left out; None where the
        dataset says nothing about the image.

    Raises:
        ValueError: saying what is wrong with the entry.
    """
    if text is None:
        return None
    value = _read_object("findings", text, "numbers")
    for name, found in value.items():
        if name not in vocabulary:
            raise ValueError(f"the finding {name[:60]!r} is not in the manifest's vocabulary")
        if type(found) is not int or found not in _VALUES:
            raise ValueError(f"the finding '{name}' is {str(found)[:60]!r}, expected -1, 0 or 1")
    return value


def count_findings(
    findings: Iterable[Mapping[str, int] | None], splits: Iterable[str], vocabulary: Iterable[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Counts what the images of each split have of each finding.

    Args:
        findings: of each image, as ``parse_findings`` returns them; None counts nowhere.

    Returns:
        By finding and split the number of images that are each of ``COUNTED``.
    """
    names = list(vocabulary)
    counts: Counter[tuple[str, str, str]] = Counter()
    seen: dict[str, None] = {}
    for found, split in zip(findings, splits, strict=True):
        seen[split] = None
        if found is not None:
            counts.update((name, split, _WORDS[found.get(name)]) for name in names)
    return {
        name: {split: {word: counts[name, split, word] for word in COUNTED} for split in seen}
        for name in names
    }


def parse_labels(text: str | None) -> dict[str, Any]:
    """Reads one entry of the column ``labels``.

    Returns:
        Texts, finite numbers and truth values by name; ``age`` is from 0 to ``OLDEST_AGE`` years.

    Raises:
        ValueError: saying what is wrong with the entry.
    """
    value = _read_object("labels", text, "values")
    for name, found in value.items():
        if not _is_plain(found):
            raise ValueError(
                f"the label {name[:60]!r} is {str(found)[:60]!r}, expected a text or a number"
            )
    age = value.get("age", 0)
    if isinstance(age, bool | str) or not 0 <= age <= OLDEST_AGE:
        raise ValueError(f"the age is {str(age)[:60]!r}, expected years from 0 to {OLDEST_AGE}")
    return value


def _read_object(what: str, text: str | None, of: str) -> dict[str, Any]:
    shown = repr(text and text[:60])
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        raise ValueError(f"{what} are {shown}, expected JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} are {shown}, expected an object of {of} by name")
    return value


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def patients_in_two_splits(
    patients: Iterable[str | None], splits: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    """Names patients whose images lie in several splits.

    Args:
        patients: of each sample; None where unknown.

    Yields:
        Each such patient once, with two of the splits, in the order in which they appear.
    """
    split_of: dict[str, str] = {}
    told: set[str] = set()
    for patient, split in zip(patients, splits, strict=True):
        if patient is None or patient in told:
            continue
        first = split_of.setdefault(patient, split)
        if first != split:
            told.add(patient)
            yield patient, first, split
