"""Tars that no honest writer makes, and folders signed by somebody who knows the format."""

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.runtime.files import file_sha256, json_bytes, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME

BLOCK = tarfile.BLOCKSIZE
FIFTY_GIGABYTES = 50 * 2**30


def base_256(number: int) -> bytes:
    """Writes a size as GNU tar does where it does not fit, or is negative."""
    lead = b"\xff" if number < 0 else b"\x80"
    return lead + number.to_bytes(11, "big", signed=True)


def header(name: str | bytes, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: str) -> bytes:
    """Returns one block; the name and the size may be anything."""
    info = tarfile.TarInfo("placeholder")
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return with_header(bytearray(info.tobuf(tarfile.USTAR_FORMAT)), 0, name=name, size=size)


def with_header(
    data: bytes,
    position: int,
    name: str | bytes | None = None,
    size: int | None = None,
    kind: bytes | None = None,
) -> bytes:
    """Returns a tar in which one header says something else, with a checksum that is right."""
    changed = bytearray(data)
    if name is not None:
        name = name.encode() if isinstance(name, str) else name
        changed[position : position + 100] = name.ljust(100, b"\0")[:100]
    if size is not None:
        octal = f"{size:011o}\0".encode() if 0 <= size < 8**11 else base_256(size)
        changed[position + 124 : position + 136] = octal
    if kind is not None:
        changed[position + 156 : position + 157] = kind
    changed[position + 148 : position + 156] = b" " * 8
    checksum = sum(changed[position : position + BLOCK])
    changed[position + 148 : position + 156] = f"{checksum:06o}\0 ".encode()
    return bytes(changed)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def ended(*blocks: bytes) -> bytes:
    """Joins blocks and ends the archive."""
    data = b"".join(blocks) + bytes(2 * BLOCK)
    return data + bytes(-len(data) % tarfile.RECORDSIZE)


def file_blocks(name: str | bytes, data: bytes = b"content") -> bytes:
    return header(name, len(data)) + padded(data)


def pax_blocks(**values: str) -> bytes:
    """Returns a header that overrides what the next one says."""
    records = b""
    for name, value in values.items():
        body = f" {name.replace('__', '.')}={value}\n".encode()
        length = len(body) + len(str(len(body)))
        length = len(body) + len(str(length))
        records += str(length).encode() + body
    return header("pax", len(records), tarfile.XHDTYPE) + padded(records)


def holes(names_size: int) -> bytes:
    """Returns a tar with a file of GNU's sparse kind: a few bytes that unpack to as many."""
    info = tarfile.TarInfo("b.png")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % 0, b"%011o\0" % 7
    block[483:495] = base_256(names_size)
    return ended(with_header(block, 0, size=7), padded(b"content"))


def packed_bytes(members: dict[str, bytes], **options: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def sign(
    folder: Path, change: Callable[[dict], None] = lambda value: None, shards: bool = True
) -> None:
    """Changes a manifest and makes it agree with itself and with the files beside it.

    Args:
        folder: of the manifest.
        change: made in its value.
        shards: whether sizes and digests of the shards are told anew, too.
    """
    value = json.loads((folder / MANIFEST_NAME).read_text())
    value.pop("fingerprint")
    for entry in value["shards"] if shards else ():
        path = folder / entry["name"]
        entry.update(bytes=path.stat().st_size, sha256=file_sha256(path))
    value["files"] = {name: file_sha256(folder / name) for name in value["files"]}
    change(value)
    value["fingerprint"] = value_sha256(value)
    (folder / MANIFEST_NAME).write_bytes(json_bytes(value))


def change_cell(
    folder: Path, column: str, value: object, row: int = 0, shards: bool = True
) -> None:
    """Puts a value into the index, and signs as ``sign`` does."""
    path = folder / INDEX_NAME
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    position = table.schema.get_field_index(column)
    field = table.schema.field(column)
    pq.write_table(table.set_column(position, field, pa.array(values, type=field.type)), path)
    sign(folder, shards=shards)


@contextlib.contextmanager
def nothing_appears(folder: Path) -> Iterator[None]:
    """Fails if something is in a folder, at any depth, that was not there before."""
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before
