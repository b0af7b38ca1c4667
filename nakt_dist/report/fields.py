"""Reads values out of records that anybody may have written, and names the field that is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.processes import printable
from nakt_dist.shards.pictures import ROLES

Value = TypeVar("Value")
_LARGEST = 2**63 - 1


def read_field(record: Any, path: str, kind: type[Value] | tuple[type, ...]) -> Any:
    """Returns a nested value of a record.

    Args:
        record: mappings within mappings.
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
        raise DatasetError(f"the field '{path}' is {value!r:.60}, expected {expected}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise DatasetError(f"the field '{path}' is beyond ±{_LARGEST}, expected a smaller number")
    return value


def read_names(record: Any, path: str) -> tuple[str, ...] | None:
    """Returns a list of texts sorted, or None where the field is null.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    value = read_field(record, path, (list, type(None)))
    if value is None:
        return None
    if not all(isinstance(name, str) for name in value):
        raise DatasetError(f"the field '{path}' is {value!r:.60}, expected a list of texts")
    return tuple(sorted(printable(name) for name in value))


def read_met(details: Mapping[str, Any]) -> frozenset[str]:
    """Returns the roles in which a network met its test images, by the record of its evaluation.

    Roles of which the record knows nothing are not among them.

    Raises:
        DatasetError: ``met_test_images`` holds something else than true, false and null.
    """
    if "met_test_images" not in details:
        return frozenset()
    said = read_field(details, "met_test_images", Mapping)
    return frozenset(
        role
        for role in ROLES
        if role in said and read_field(details, f"met_test_images.{role}", (bool, type(None)))
    )


def label_dataset(name: str, phantom: bool) -> str:
    """Returns a dataset's name with ``(phantom)`` behind it where its images are procedural."""
    return f"{name} (phantom)" if phantom else name
