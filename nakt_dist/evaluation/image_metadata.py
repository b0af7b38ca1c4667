"""What a packed dataset says about whom each image shows, and how it was taken."""

import json
from collections.abc import Mapping
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.limits import OLDEST_AGE
from nakt_dist.shards.manifest import INDEX_NAME
from nakt_dist.shards.reader import IndexedShards

METADATA = ("sex", "age", "view", "projection")


def read_metadata(images: IndexedShards) -> list[dict[str, Any]]:
    """Reads the column ``labels`` of the index.

    Returns:
        Per image ``key``, ``patient_id``, ``sex``, ``age`` (whole years), ``view`` and
        ``projection``; None where the dataset does not say.

    Raises:
        DatasetError: an entry is no JSON object, or its age is none.
    """
    columns = (images.column(name).to_pylist() for name in ("key", "patient_id", "labels"))
    rows = []
    for number, (key, patient, text) in enumerate(zip(*columns, strict=True)):
        labels = _parse(images, number, text)
        row: dict[str, Any] = {name: _text(labels.get(name)) for name in METADATA}
        row["age"] = _age(images, number, labels.get("age"))
        rows.append({"key": key, "patient_id": patient, **row})
    return rows


def _parse(images: IndexedShards, number: int, text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, dict):
        raise _damaged(images, number, f"labels are {text[:60]!r}, expected a JSON object")
    return labels


def _age(images: IndexedShards, number: int, value: Any) -> int | None:
    """Returns an age; anything but a whole number is one that the dataset does not say."""
    if type(value) is not int:
        return None
    if not 0 <= value <= OLDEST_AGE:
        expected = f"expected years up to {OLDEST_AGE}"
        raise _damaged(images, number, f"the age is {str(value)[:40]}, {expected}")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _damaged(images: IndexedShards, number: int, what: str) -> DatasetError:
    return DatasetError(
        f"{images.root / INDEX_NAME}: of {images.describe(number)} {what}. Run nakt verify on the "
        "folder"
    )
