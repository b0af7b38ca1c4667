"""Files that are whole or absent, and their fingerprints."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nakt_dist.errors import DatasetError, NaktError

_FINGERPRINT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(
    path: Path,
    staging: Path | None = None,
    replace: bool = True,
    mode: int = 0o666,
    flush: bool = True,
) -> Iterator[BinaryIO]:
    """Opens a temporary file that takes the name ``path`` only when all went well.

    The data is flushed to the disk before the file is named and the folder after it, so a crash
    or a power cut leaves either the old file or the new one, never a part.

    Args:
        path: the final name; its folder must exist.
        staging: folder for the temporary file, on the same file system; a kill -9 leaves its
            remains there. By default the folder of ``path``.
        replace: take the place of a file that has the name; otherwise it stays.
        mode: who may use the file, less what the umask takes away.
        flush: whether it must outlast a power cut; without it, that may leave a part.

    Yields:
        A binary file open for writing and seeking.

    Raises:
        NaktError: the disk is full.
        FileExistsError: without ``replace``, the name is taken; of several writers one gets it.
    """
    temporary = (staging or path.parent) / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with naming(path):
            with open(temporary, "x+b", opener=functools.partial(os.open, mode=mode)) as stream:
                yield stream
                stream.flush()
                if flush:
                    os.fsync(stream.fileno())
            if replace:
                temporary.replace(path)
            else:
                _take_name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if flush:
        flush_folder(path.parent)


def _take_name(temporary: Path, path: Path) -> None:
    """Gives a file a name; raises FileExistsError where it is taken."""
    try:
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links: the name first, then what it stands for
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        temporary.replace(path)
    else:
        temporary.unlink()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of writing it; a full disk does not say what it was about.

    Raises:
        NaktError: the disk, or the user's share of it, is full.
    """
    try:
        yield
    except NaktError:  # names its own file, such as one of the cache
        raise
    except Exception as error:
        full = _no_room(error)
        if full is not None:
            raise NaktError(
                f"{path}: cannot be written: {full.strerror}. Make room there and run the same "
                "command again; what was finished is kept"
            ) from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _no_room(error: BaseException | None) -> OSError | None:
    """Finds the full disk behind an error; torch and pyarrow raise others on top of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_new_json(path: Path, value: Any) -> bool:
    """Writes ``value`` as JSON unless the file is there already; of several writers one wins.

    Where the file system has no hard links the file is empty for a moment.

    Args:
        path: the final name; its folder must exist.
        value: JSON-serialisable.

    Returns:
        Whether this call wrote it.

    Raises:
        NaktError: the disk is full.
    """
    try:
        with atomic_write(path, replace=False) as stream:
            stream.write(json_bytes(value))
    except FileExistsError:
        return False
    return True


def remove_unfinished(folder: Path) -> None:
    """Removes what a kill left of atomic writes; only for a folder nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        remove(path)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
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


def read_regular_file(path: Path, most_bytes: int = 2**30) -> bytes:
    """Reads a file that others may have put there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or has more bytes than ``most_bytes``.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to read a pipe would be to wait, perhaps for ever
        raise ValueError("it is not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"it has {status.st_size} bytes, expected at most {most_bytes}")
    return path.read_bytes()


def read_json(path: Path, what: str, most_bytes: int = 2**30) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        what: what the file is, for the message, such as ``"shard manifest"``.
        most_bytes: of a file that is read at all; JSON takes many times its size in memory.

    Raises:
        DatasetError: the file is absent, not a regular file, too large, not JSON, nested too
            deeply, names a field twice or is not an object.
    """
    try:
        content = read_regular_file(path, most_bytes)
        value = json.loads(content, object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no {what} here") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: the {what} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: the {what} holds a {type(value).__name__}, expected an object")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object; of two equal names other readers would take the first."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the field {twice[:60]!r} stands there twice")
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
        One ``"field: found X, expected Y"`` per difference, in the order of the field names; of
        two fingerprints ``"field: differs"``, since nobody reads 64 digits.
    """
    differences = []
    for name in sorted(set(found) | set(expected)):
        left, right = found.get(name, "nothing"), expected.get(name, "nothing")
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            differences += differing_fields(left, right, f"{prefix}{name}.")
        elif _are_alike_lists(left, right):
            for number, pair in enumerate(zip(left, right, strict=True)):
                differences += differing_fields(*pair, f"{prefix}{name}[{number}].")
        elif left != right and _is_fingerprint(left) and _is_fingerprint(right):
            differences.append(f"{prefix}{name}: differs")
        elif left != right:
            shown = [_FINGERPRINT.sub(r"\1…", repr(each)) for each in (left, right)]
            differences.append(f"{prefix}{name}: found {shown[0]}, expected {shown[1]}")
    return differences


def with_new_nulls(stored: Any, now: Any) -> Any:
    """Returns stored settings with those that they lack and that are null now, at any depth.

    A version of the program that did not know a setting yet did what null says.
    """
    if not (isinstance(stored, Mapping) and isinstance(now, Mapping)):
        return stored
    new = {name: None for name, value in now.items() if value is None and name not in stored}
    return {name: with_new_nulls(value, now.get(name)) for name, value in stored.items()} | new


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None


def _are_alike_lists(left: Any, right: Any) -> bool:
    """Says whether these are equally long lists of mappings, such as two ensembles."""
    lists = isinstance(left, list) and isinstance(right, list) and len(left) == len(right)
    return lists and all(isinstance(each, Mapping) for each in [*left, *right])
