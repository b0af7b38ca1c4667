"""JSON files that lie beside weights and describe them."""

import json
from pathlib import Path
from typing import Any

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.spec import ModelSpec, is_nested_deeper

_MOST_BYTES = 2**24
_MOST_NESTED = 40


def read_beside(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None where there is no such file.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict) or is_nested_deeper(value, _MOST_NESTED):
        raise CheckpointError(f"{path}: found no JSON object of settings; copy it again")
    return value


def take(value: dict[str, Any], name: str, kind: type, path: Path) -> Any:
    """Returns a field of a type.

    Raises:
        CheckpointError: it is missing or of another type.
    """
    found = value.get(name)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise CheckpointError(
            f"{path}: {name} is {repr(found)[:60]}, expected {kind.__name__}; copy it again from "
            "its origin, or name the network as model: {name: …, in_channels: …} for a copy of "
            "the weights that lies alone"
        )
    return found


def spec_beside(
    path: Path, name: str, channels: int, outputs: int, options: dict[str, Any]
) -> ModelSpec:
    """Returns the architecture that a file describes.

    Raises:
        CheckpointError: it describes none, as with numbers that are not finite.
    """
    try:
        return ModelSpec(name, channels, outputs, options)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}; copy it again from its origin") from None
