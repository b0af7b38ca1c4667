"""Files that are whole or absent, and their fingerprints."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nakt_dist.errors import DatasetError


@contextlib.contextmanager
def atomic_write(path: Path, staging: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file that takes the name ``path`` only when all went well.

    The data is flushed to the disk before the rename and the folder after it, so a crash
    or a power cut leaves either the old file or the new one, never a part.

    Args:
        path: the final name; its folder must exist.
        staging: folder for the temporary file, on the same file system; a kill -9 leaves its
            remains there. By default the folder of ``path``.

    Yields:
        A binary file open for writing and seeking.
    """
    temporary = (staging or path.parent) / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was about
        raise
    flush_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Removes what a kill left of atomic writes; only for a folder nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, where the system lets one do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, data: bytes, staging: Path | None = None) -> None:
    """Writes ``data`` to ``path`` atomically; ``staging`` as for ``atomic_write``."""
    with atomic_write(path, staging) as stream:
        stream.write(data)


def write_json(path: Path, value: Any, staging: Path | None = None) -> None:
    """Writes ``value`` as ``json_bytes`` encodes it, atomically."""
    write_bytes(path, json_bytes(value), staging)


def json_bytes(value: Any) -> bytes:
    """Encodes a value as indented JSON with sorted keys, so that equal values give equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file.
        what: what the file is, for the message, such as ``"shard manifest"``.

    Raises:
        DatasetError: the file is absent, not JSON, nested too deeply or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{path}: no {what} here") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: the {what} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: the {what} holds a {type(value).__name__}, expected an object")
    return value


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_sha256(value: Any) -> str:
    """Returns the SHA-256 of a JSON-serialisable value, independent of key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing_fields(
    found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Names the fields in which two nested mappings differ.

    Returns:
        One ``"field: found X, expected Y"`` per difference, in the order of the field names.
    """
    differences = []
    for name in sorted(set(found) | set(expected)):
        left, right = found.get(name, "nothing"), expected.get(name, "nothing")
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            differences += differing_fields(left, right, f"{prefix}{name}.")
        elif _are_alike_lists(left, right):
            for number, pair in enumerate(zip(left, right, strict=True)):
                differences += differing_fields(*pair, f"{prefix}{name}[{number}].")
        elif left != right:
            differences.append(f"{prefix}{name}: found {left!r}, expected {right!r}")
    return differences


def _are_alike_lists(left: Any, right: Any) -> bool:
    """Says whether these are equally long lists of mappings, such as two ensembles."""
    lists = isinstance(left, list) and isinstance(right, list) and len(left) == len(right)
    return lists and all(isinstance(each, Mapping) for each in [*left, *right])
