"""Damage in one shard: what its tar says beside the content of its files."""

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nakt_dist.errors import DatasetError
from nakt_dist.shards.manifest import ShardEntry
from nakt_dist.shards.tars import TarMember, list_members
from nakt_dist.shards.writer import ShardWriter


@dataclass(frozen=True)
class Damage:
    """One thing that is not as the manifest says.

    Attributes:
        file: name of the shard or table.
        key: the sample's key, or None when the damage is not in one sample.
        detail: what was found and what was expected.
    """

    file: str
    key: str | None
    detail: str

    def __str__(self) -> str:
        return f"{self.file}{f', key {self.key}' if self.key else ''}: {self.detail}"


def members_of(row: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Returns (offset, size, crc32) of each file of a sample, by extension, in tar order."""
    names = {
        "image": row.get("extension", ""),
        "mask": "mask.png",
        "json": "json",
        "soft": "soft.png",
    }
    return {
        extension: (row[f"{name}_offset"], row[f"{name}_size"], row[f"{name}_crc32"])
        for name, extension in names.items()
        if row.get(f"{name}_offset") is not None
    }


def check_tar(path: Path, entry: ShardEntry, rows: list[Mapping[str, Any]]) -> Iterator[Damage]:
    """Compares what a tar's own headers say with the index: other readers go by them.

    Yields:
        The first difference.
    """
    expected = (
        (row["key"], TarMember(f"{row['key']}.{extension}", offset, size))
        for row in rows
        for extension, (offset, size, _) in members_of(row).items()
    )
    try:
        with path.open("rb") as stream:
            pairs = itertools.zip_longest(expected, list_members(entry.name, stream))
            for in_index, found in pairs:
                key, wanted = in_index or (None, None)
                if wanted != found:
                    detail = f"the tar has {_told(found)} where the index has {_told(wanted)}"
                    yield Damage(entry.name, key, detail)
                    return
    except DatasetError as error:
        yield Damage(entry.name, None, str(error))


def _told(member: TarMember | None) -> str:
    return "nothing" if member is None else f"{member.name!r}, {member.size} at {member.offset}"


def locate_outside_members(path: Path, entry: ShardEntry, rows: list[Mapping[str, Any]]) -> Damage:
    """Finds the key whose tar header or padding changed, by writing its sample anew in memory.

    Args:
        path: a shard whose SHA-256 differs while the content of all its files is right.
    """
    anew = io.BytesIO()
    writer = ShardWriter(anew)
    position = 0
    with path.open("rb") as shard:
        for row in rows:
            files = {
                extension: bytes_at(shard, offset, size)
                for extension, (offset, size, _) in members_of(row).items()
            }
            writer.add(row["key"], files)
            written = anew.getvalue()
            if bytes_at(shard, position, len(written)) != written:
                return Damage(
                    entry.name, row["key"], "a tar header or padding of this sample has changed"
                )
            position += len(written)
            anew.seek(0)
            anew.truncate()
    return Damage(entry.name, None, "the end of the archive has changed")


def bytes_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    """Returns ``size`` bytes at ``offset``; fewer where the file ends before."""
    stream.seek(offset)
    return stream.read(size)
