"""Reads values out of records that anybody may have written, and names the field that is wrong."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.processes import printable

Value = TypeVar("Value")
_LARGEST = 2**63 - 1

ODD_VALUES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What odd values raise when read: a file that anybody may have written must not end a program."""


class FieldError(DatasetError):
    """A field of a record holds what it should not."""

    def __init__(self, path: str, value: Any, expected: str) -> None:
        said = f"beyond ±{_LARGEST}" if _is_huge(value) else f"{value!r:.60}"
        super().__init__(f"the field '{path}' is {said}, expected {expected}")
        self.path, self.value = path, value


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > _LARGEST


def read_field(record: Any, path: str, kind: type[Value] | tuple[type, ...]) -> Any:
    """Returns a nested value of a record.

    Args:
        path: the field, such as ``"details.test_set.dataset"``.
        kind: the type, or types, that it must have. A bool is not taken for a number.

    Raises:
        DatasetError: the field is absent, of another type or absurdly large; names it.
    """
    value = record
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise DatasetError(f"the field '{path}' is missing")
        value = value[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("null" if each is type(None) else each.__name__ for each in kinds)
        raise FieldError(path, value, expected)
    if _is_huge(value):
        raise FieldError(path, value, "a smaller number")
    return value


def read_if_there(record: Any, path: str, kind: type[Value] | tuple[type, ...]) -> Any:
    """Returns a nested value of a record as ``read_field`` does; None where it is absent or null.

    Raises:
        DatasetError: it is there and of another type, or what should hold it is; names it.
    """
    value = record
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise FieldError(path, value, "an object")
        value = value.get(name)
    return None if value is None else read_field(record, path, kind)


def read_names(record: Any, path: str) -> tuple[str, ...] | None:
    """Returns a list of texts sorted, or None where the field is null.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, (list, type(None)))
    return None if value is None else tuple(sorted(read_texts(record, path)))


def read_texts(record: Any, path: str) -> tuple[str, ...]:
    """Returns a list of texts in its order.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, list)
    if not all(isinstance(text, str) for text in value):
        raise FieldError(path, value, "a list of texts")
    return tuple(printable(text) for text in value)


def read_policy(record: Any, path: str) -> str:
    """Returns what unsure labels count as, sorted JSON such as ``{"uncertain": "one"}``.

    Raises:
        DatasetError: the field is absent, or holds something else than texts by name, or by
            name and finding.
    """
    value = read_field(record, path, Mapping)
    for use in value.values():
        texts = list(use.values()) if isinstance(use, Mapping) else [use]
        if not (texts and all(isinstance(text, str) for text in texts)):
            raise FieldError(path, dict(value), "texts by name")
    return sorted_json(value)


def read_percent(record: Any, path: str, most: float = 100) -> float:
    """Returns a number from 0 to 100, or to another limit.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, (int, float))
    if not 0 <= value <= most:
        raise FieldError(path, value, f"a number from 0 to {most}")
    return float(value)


def read_percent_or_null(record: Any, path: str) -> float | None:
    """Returns a number from 0 to 100, or None where the field is null.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, (int, float, type(None)))
    return None if value is None else read_percent(record, path)


def read_interval(record: Any, path: str, most: float = 100) -> tuple[float, float]:
    """Returns the limits of an interval in percent, or up to another limit.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, list)
    if len(value) != 2:
        raise FieldError(path, value, "2 limits")
    limits = dict(zip(("lower", "upper"), value, strict=True))
    return read_percent(limits, "lower", most), read_percent(limits, "upper", most)


def read_interval_or_null(record: Any, path: str) -> tuple[float, float] | None:
    """Returns the limits of an interval in percent, or None where it or one of them is null.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, (list, type(None)))
    return None if value is None or None in value else read_interval(record, path)


def label_dataset(name: str, phantom: bool) -> str:
    """Returns a dataset's name with ``(phantom)`` behind it where its images are procedural."""
    return f"{name} (phantom)" if phantom else name


def sorted_json(value: Mapping[str, Any]) -> str:
    """Returns a mapping as text; equal mappings give equal texts."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
