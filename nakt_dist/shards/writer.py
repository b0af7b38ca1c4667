"""Writes tars whose bytes depend on the samples alone."""

import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nakt_dist.runtime.files import atomic_write, file_sha256
from nakt_dist.shards.manifest import ShardEntry

BLOCK_BYTES = tarfile.BLOCKSIZE
_PLAIN_BYTES = 8**11
"""Of which sizes a plain header holds no more."""


@dataclass(frozen=True)
class Member:
    """Where a file of a sample lies in its shard.

    Attributes:
        offset: first byte of the content in the tar.
        crc32: of the content; names the damaged key when a shard's SHA-256 differs.
    """

    offset: int
    size: int
    crc32: int


class ShardWriter:
    """Writes samples into a tar stream, byte for byte as ``tarfile`` would.

    Args:
        stream: binary, at position 0.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._written = 0

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
        self._write(_header(name, len(data)))
        member = Member(self._written, len(data), zlib.crc32(data))
        self._write(data)
        self._write(bytes(-len(data) % BLOCK_BYTES))
        return member

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._written += len(data)

    def close(self) -> None:
        """Writes the end of the archive; the stream stays open."""
        self._write(bytes(2 * BLOCK_BYTES))
        self._write(bytes(-self._written % tarfile.RECORDSIZE))


def _described(name: str, size: int) -> bytes:
    """Returns the header of a file as ``tarfile`` makes it."""
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o644  # mtime, uid, gid and names keep TarInfo's fixed defaults
    return header.tobuf(tarfile.PAX_FORMAT)


_ANY_HEADER = _described("", 0)
_SIZE_AT, _SUM_AT, _SUM_ENDS = 124, 148, 156


def _header(name: str, size: int) -> bytes:
    """Returns the header of a file; a plain one is put together here, in a tenth of the time."""
    if not name.isascii() or len(name) > tarfile.LENGTH_NAME or size >= _PLAIN_BYTES:
        return _described(name, size)
    header = bytearray(_ANY_HEADER)
    header[: len(name)] = name.encode()
    header[_SIZE_AT:_SUM_AT] = b"%011o\0" % size + header[_SIZE_AT + 12 : _SUM_AT]
    header[_SUM_AT:_SUM_ENDS] = b" " * 8  # so says the format, of the sum over all of it
    header[_SUM_AT : _SUM_ENDS - 1] = b"%06o\0" % sum(header)
    return bytes(header)


def write_shard(
    path: Path,
    split: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    staging: Path | None = None,
) -> tuple[ShardEntry, dict[str, dict[str, Member]]]:
    """Writes one shard atomically, holding one sample in memory at a time.

    Args:
        samples: key and files by extension, in order; consumed lazily.

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
