"""Writes tars whose bytes depend on the samples alone."""

import io
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nakt_dist.runtime.files import atomic_write, file_sha256
from nakt_dist.shards.manifest import ShardEntry

BLOCK_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """Where a file of a sample lies in its shard.

    Attributes:
        offset: first byte of the content in the tar.
        size: bytes of content.
        crc32: of the content; names the damaged key when a shard's SHA-256 differs.
    """

    offset: int
    size: int
    crc32: int


class ShardWriter:
    """Writes samples into an open tar stream.

    Args:
        stream: binary, seekable, at position 0.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, key: str, files: Mapping[str, bytes]) -> dict[str, Member]:
        """Adds the files of one sample next to each other.

        Args:
            key: the sample's key, without ``.`` and ``/``.
            files: content by extension, such as ``{"jpg": …, "mask.png": …}``, in the
                order in which they are to lie.

        Returns:
            Where each extension lies.

        Raises:
            ValueError: the key would be cut by WebDataset or leave the folder.
        """
        if not key or set(key) & set("./\\"):
            raise ValueError(f"key {key!r} is empty or holds one of . / \\")
        return {
            extension: self._add_file(f"{key}.{extension}", data)
            for extension, data in files.items()
        }

    def _add_file(self, name: str, data: bytes) -> Member:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644  # mtime, uid, gid and names keep TarInfo's fixed defaults
        self._tar.addfile(header, io.BytesIO(data))
        padded = -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
        return Member(self._stream.tell() - padded, len(data), zlib.crc32(data))

    def close(self) -> None:
        """Writes the end of the archive; the stream stays open."""
        self._tar.close()


def write_shard(
    path: Path,
    split: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    staging: Path | None = None,
) -> tuple[ShardEntry, dict[str, dict[str, Member]]]:
    """Writes one shard atomically, holding one sample in memory at a time.

    Args:
        samples: key and files by extension, in order; consumed lazily.
        staging: folder for the unfinished file.

    Returns:
        The shard's manifest entry, and per key where its files lie.
    """
    with atomic_write(path, staging) as stream:
        writer = ShardWriter(stream)
        members = {key: writer.add(key, files) for key, files in samples}
        writer.close()
    entry = ShardEntry(
        name=path.name,
        split=split,
        samples=len(members),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )
    return entry, members
