"""Whether the files and tables that a dataset was packed from are as they were."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from nakt_dist.errors import DatasetError
from nakt_dist.shards.tables import read_table, write_table
from nakt_dist.sources import SourceRecord
from nakt_dist.stages.pack_plan import PackPlan

if TYPE_CHECKING:
    from nakt_dist.stages.pack_prepare import Prepared

SOURCES_NAME = "sources.parquet"
TIMES_NAME = ".source_times.parquet"

SOURCES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.string()),
        ("masks", pa.string()),
        ("facts", pa.string()),
    ]
)
"""One row per input, packed or rejected: hashes of the bytes of its image file, of those of its
mask files, and of what the dataset's tables and folders say of it. Null where a file cannot be
read, or is not there."""

TIMES_SCHEMA = pa.schema([("key", pa.string()), ("times", pa.string())])
"""When the files of each input were last changed; of this machine, no part of the dataset."""

_CHUNK_BYTES = 2**20
_DIGEST_BYTES = 16
_FACTS = (
    "name", "mask_kind", "mask_classes", "patient_id", "stratum", "official_split", "problem",
)  # fmt: skip


class FileTimes(NamedTuple):
    """What tells at a glance whether a file has changed; -1 where it cannot be looked at.

    Attributes:
        size: bytes.
        modified: time of the last change of its content, nanoseconds; a copy can keep it.
        changed: time of the last change of anything, nanoseconds; set by the system alone.
    """

    size: int
    modified: int
    changed: int


def times_of(record: SourceRecord) -> tuple[FileTimes, ...]:
    """Returns size and times of the image and of each mask."""
    return tuple(_times(path) for path in (record.image, *record.masks))


def contents_of(record: SourceRecord, key: bytes) -> tuple[str | None, str | None]:
    """Hashes the bytes of the image file, and those of the mask files.

    Args:
        record: of the input.
        key: keys the hashes; may be empty.

    Returns:
        BLAKE2b of 128 bits in hexadecimal digits; None for a file that cannot be read, and for
        no masks.
    """
    masks = [_content_of(path, key) for path in record.masks]
    return _content_of(record.image, key), " ".join(map(str, masks)) or None


def facts_of(record: SourceRecord, key: bytes) -> str:
    """Hashes all that the dataset's tables, folders and file names say of an image."""
    facts = {name: getattr(record, name) for name in _FACTS}
    facts |= {"masks": [path.name for path in record.masks], "labels": dict(record.labels)}
    facts["findings"] = None if record.findings is None else dict(record.findings)
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=key).hexdigest()


def write_sources(
    folder: Path, plan: PackPlan, prepared: Sequence["Prepared"], staging: Path
) -> None:
    """Writes what the dataset was packed from, and when that was last seen to change.

    Args:
        folder: the dataset's output folder.
        plan: its inputs.
        prepared: what was made of each of them.
        staging: folder for the unfinished files.
    """
    key = plan.content_key
    rows = (
        {
            "key": each.key,
            "image": made.image,
            "masks": made.masks,
            "facts": facts_of(each.record, key),
        }
        for each, made in zip(plan.inputs, prepared, strict=True)
    )
    write_table(folder / SOURCES_NAME, SOURCES_SCHEMA, ([row] for row in rows), staging)
    _write_times(folder, {made.key: made.times for made in prepared}, staging)


class SourceChanges(NamedTuple):
    """Inputs that are not as they were when a dataset was packed.

    Attributes:
        added: names of images that are new.
        removed: how many are gone.
        images: names of those whose image file has other bytes.
        masks: names of those whose masks have other bytes.
        facts: names of those of which the dataset says something else.
    """

    added: list[str]
    removed: int
    images: list[str]
    masks: list[str]
    facts: list[str]

    def __str__(self) -> str:
        """Says in words what has changed; empty where nothing has."""
        parts = [
            _told(self.added, "was added", "were added"),
            f"images no longer there: {self.removed}" if self.removed else "",
            _told(self.images, "has other content", "have other content"),
            _told(self.masks, "has another mask", "have other masks"),
            _told(self.facts, "is described otherwise", "are described otherwise"),
        ]
        return "; ".join(part for part in parts if part)


def find_changes(
    folder: Path, plan: PackPlan, read: Literal["none", "modified", "touched", "all"]
) -> SourceChanges:
    """Compares the inputs with those that a finished dataset was packed from.

    A file that is not read is taken to be the same. A copy of a dataset has other times and the
    same content; whether a file has changed is therefore decided by its content.

    Args:
        folder: the dataset's output folder.
        plan: of the same settings.
        read: which files: those of another size or time of modification (``modified``), which
            a copy or a program can keep; those that the system has touched in whatever way
            (``touched``); all; or none.

    Raises:
        DatasetError: the table of sources is damaged.
    """
    table = read_table(folder / SOURCES_NAME, SOURCES_SCHEMA).to_pylist()
    known = {row["key"]: row for row in table}
    times = _read_times(folder)
    found = SourceChanges([], len(known.keys() - {each.key for each in plan.inputs}), [], [], [])
    seen = {}
    for each in plan.inputs:
        row, name = known.get(each.key), each.record.name
        if row is None:
            found.added.append(name)
            continue
        if facts_of(each.record, plan.content_key) != row["facts"]:
            found.facts.append(name)
        seen[each.key] = times_of(each.record)
        if read == "none" or _is_same(seen[each.key], times.get(each.key), read):
            continue
        image, masks = contents_of(each.record, plan.content_key)
        if image != row["image"]:
            found.images.append(name)
        if masks != row["masks"]:
            found.masks.append(name)
    if not str(found) and read != "none" and seen != times:
        _write_times(folder, seen, None)
    return found


def _is_same(now: Sequence[FileTimes], then: Sequence[FileTimes] | None, read: str) -> bool:
    """Says whether times tell that files are as they were."""
    if then is None or read == "all":
        return False
    if read == "touched":
        return now == then
    return [each[:2] for each in now] == [each[:2] for each in then]


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


def _write_times(
    folder: Path, times: Mapping[str, Sequence[FileTimes]], staging: Path | None
) -> None:
    rows = ([{"key": key, "times": json.dumps(each)}] for key, each in times.items())
    write_table(folder / TIMES_NAME, TIMES_SCHEMA, rows, staging)


def _read_times(folder: Path) -> dict[str, tuple[FileTimes, ...]]:
    """Returns the times of each input; none where the dataset was copied without them."""
    try:
        rows = read_table(folder / TIMES_NAME, TIMES_SCHEMA).to_pylist()
        return {
            row["key"]: tuple(FileTimes(*each) for each in json.loads(row["times"])) for row in rows
        }
    except (DatasetError, ValueError, TypeError):
        return {}


def _times(path: Path) -> FileTimes:
    try:
        status = path.stat()
    except OSError:
        return FileTimes(-1, -1, -1)
    return FileTimes(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
