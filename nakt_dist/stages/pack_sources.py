"""Whether the files and tables that a dataset was packed from are as they were."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

from nakt_dist.errors import DatasetError
from nakt_dist.shards.tables import read_table, write_table
from nakt_dist.sources import SourceRecord
from nakt_dist.stages.pack_plan import PackPlan

SOURCES_NAME = "sources.parquet"
TIMES_NAME = ".source_times.parquet"

SOURCES_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "image", "masks", "facts")])
"""One row per input, packed or rejected: hashes of the bytes of its image file, of those of its
mask files, and of what the dataset's tables and folders say of it. Null where a file cannot be
read, or is not there."""

TIMES_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "modified", "touched")])
"""Hashes of the sizes and times of each input's files; of this machine, no part of the dataset.
``modified`` is over size and time of modification, ``touched`` over the system's own time as well.
Keyed as the contents are: sizes and times in clear would tell which published file it is."""

_CHUNK_BYTES = 2**20
_DIGEST_BYTES = 16
_FACTS = (
    "name", "mask_kind", "mask_classes", "patient_id", "stratum", "official_split", "problem",
)  # fmt: skip


class FileTimes(NamedTuple):
    """What tells at a glance whether a file has changed; -1 where it cannot be looked at.

    Attributes:
        modified: time of the last change of its content, nanoseconds; a copy can keep it.
        changed: time of the last change of anything, nanoseconds; set by the system alone.
    """

    size: int
    modified: int
    changed: int


def times_of(record: SourceRecord) -> tuple[FileTimes, ...]:
    """Returns size and times of the image and of each mask."""
    return tuple(_times(path) for path in (record.image, *record.masks))


def contents_of(
    record: SourceRecord, key: bytes, image: str | None = None
) -> tuple[str | None, str | None]:
    """Hashes the bytes of the image file, and those of the mask files, keyed where a key is given.

    Args:
        image: the hash of the image file, where it is known already.

    Returns:
        BLAKE2b of 128 bits in hexadecimal digits; None for a file that cannot be read, and for
        no masks.
    """
    masks = [_content_of(path, key) for path in record.masks]
    return image or _content_of(record.image, key), " ".join(map(str, masks)) or None


def content_hash(content: bytes, key: bytes) -> str:
    """Hashes the bytes of a file as ``contents_of`` does."""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES, key=key).hexdigest()


def facts_of(record: SourceRecord, key: bytes) -> str:
    """Hashes all that the dataset's tables, folders and file names say of an image."""
    facts = {name: getattr(record, name) for name in _FACTS}
    facts |= {"masks": [path.name for path in record.masks], "labels": dict(record.labels)}
    facts["findings"] = None if record.findings is None else dict(record.findings)
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=key).hexdigest()


def find_changes(
    folder: Path, plan: PackPlan, read: Literal["none", "modified", "touched", "all"]
) -> tuple[str, dict[str, tuple[FileTimes, ...]]]:
    """Compares the inputs with those that a finished dataset was packed from.

    A file that is not read is taken to be the same. A copy of a dataset has other times and the
    same content; whether a file has changed is therefore decided by its content.

    Args:
        read: which files: those of another size or time of modification (``modified``), which
            a copy or a program can keep; those that the system has touched in whatever way
            (``touched``); all; or none.

    Returns:
        What has changed, in words, empty where nothing has; and of every input the times of its
        files as they are now, empty where no file was read.

    Raises:
        DatasetError: the table of sources is damaged.
    """
    table = read_table(folder / SOURCES_NAME, SOURCES_SCHEMA).to_pylist()
    known = {row["key"]: row for row in table}
    hashes, key = _read_times(folder), plan.content_key
    gone = known.keys() - {each.key for each in plan.inputs}
    added: list[str] = []
    facts: list[str] = []
    images: list[str] = []
    masks: list[str] = []
    times: dict[str, tuple[FileTimes, ...]] = {}
    files_read = 0
    for each in plan.inputs:
        row, name = known.get(each.key), each.record.name
        if row is None:
            added.append(name)
            continue
        if facts_of(each.record, key) != row["facts"]:
            facts.append(name)
        now = times[each.key] = times_of(each.record)
        if read == "none" or hashes.get((each.key, read)) == _hashed(now, read, key):
            continue  # of all files that are to be read no hash is kept
        files_read += 1
        image, mask = contents_of(each.record, key)
        if image != row["image"]:
            images.append(name)
        if mask != row["masks"]:
            masks.append(name)
    parts = (
        _told(added, "was added", "were added"),
        f"images no longer there: {len(gone)}" if gone else "",
        _told(images, "has other content", "have other content"),
        _told(masks, "has another mask", "have other masks"),
        _told(facts, "is described otherwise", "are described otherwise"),
    )
    return "; ".join(filter(None, parts)), times if files_read else {}


def remember_times(
    folder: Path, times: Mapping[str, Sequence[FileTimes]], key: bytes, staging: Path | None = None
) -> None:
    """Writes when the files of a dataset's source, which were read just now, were last changed.

    Args:
        times: of the files of each input, by the input's key.
        key: keys the hashes; may be empty.
    """
    rows = (
        [{"key": name, **{read: _hashed(each, read, key) for read in ("modified", "touched")}}]
        for name, each in times.items()
    )
    write_table(folder / TIMES_NAME, TIMES_SCHEMA, rows, staging)


def _told(names: Sequence[str], one: str, several: str) -> str:
    if not names:
        return ""
    first = f"{len(names)} image{'' if len(names) == 1 else 's'}"
    more = "" if len(names) == 1 else ", the first of them"
    return f"{first} {one if len(names) == 1 else several} ('{min(names)}'{more})"


def _content_of(path: Path, key: bytes) -> str | None:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=key)
    try:
        if not path.is_file():  # to open a pipe would be to wait for ever
            return None
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _hashed(times: Sequence[FileTimes], read: str, key: bytes) -> str:
    told = [each[: 2 if read == "modified" else 3] for each in times]
    return hashlib.blake2b(f"{told}".encode(), digest_size=_DIGEST_BYTES, key=key).hexdigest()


def _read_times(folder: Path) -> dict[tuple[str, str], str]:
    """Returns the hashes by input and kind; none where the dataset was copied without them."""
    try:
        rows = read_table(folder / TIMES_NAME, TIMES_SCHEMA).to_pylist()
    except DatasetError:
        return {}
    return {(row["key"], read): row[read] for row in rows for read in ("modified", "touched")}


def _times(path: Path) -> FileTimes:
    try:
        status = path.stat()
    except OSError:
        return FileTimes(-1, -1, -1)
    return FileTimes(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
