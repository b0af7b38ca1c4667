"""What the index says about the findings of each sample."""

import json
from collections.abc import Collection, Iterable, Iterator

_VALUES = (-1, 0, 1)


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
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"findings are {text[:60]!r}, expected JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"findings are {text[:60]!r}, expected an object of numbers by name")
    for name, found in value.items():
        if name not in vocabulary:
            raise ValueError(f"the finding {name[:60]!r} is not in the manifest's vocabulary")
        if type(found) is not int or found not in _VALUES:
            raise ValueError(f"the finding '{name}' is {str(found)[:60]!r}, expected -1, 0 or 1")
    return value


def patients_in_two_splits(
    patients: Iterable[str | None], splits: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    """Names patients whose images lie in several splits.

    Args:
        patients: of each sample; None where unknown.
        splits: of each sample.

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
