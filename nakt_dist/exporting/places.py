"""Takes places of a machine out of what is handed on."""

import re
from collections.abc import Mapping
from typing import Any

_PLACE = re.compile(r"\s*(?:~|\.{0,2}[/\\]|[A-Za-z]:[/\\]|file:)|.*://", re.DOTALL)
_PARTS = re.compile(r"[/\\]+")


def without_places(value: Any) -> Any:
    """Returns what was read from JSON, each path or address in it cut to its last part.

    Names of networks, datasets and layers, and names with a stroke inside, stay as they are.
    """
    if isinstance(value, Mapping):
        return {name: without_places(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    if not isinstance(value, str) or not _PLACE.match(value):
        return value
    return next((part for part in reversed(_PARTS.split(value)) if part.strip()), "")
