"""The members of a tar that nobody vouches for: files of samples, or an error.

``tarfile`` takes much for the end of an archive, such as a damaged header, and a header may
announce any size, any type and any name. Here a tar gives its files whole or a DatasetError;
nothing is unpacked, and no memory is taken for what is only announced.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

from nakt_dist.errors import DatasetError

MOST_MEMBER_BYTES = 2**30
"""What one file of a sample may have: far more than any packed image has."""

_MOST_LONG_NAME_BYTES = 4096
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}
# WebDataset cuts the key at the first dot, and takes names with __ for its own.
_NAME = re.compile(r"[^./\\\0\ud800-\udfff]+\.[A-Za-z0-9][A-Za-z0-9._-]*")


class TarMember(NamedTuple):
    """Where a file lies in a tar.

    Attributes:
        name: ``KEY.EXTENSION``.
        offset: first byte of the content.
    """

    name: str
    offset: int
    size: int


class _Refused(Exception):
    """What no shard of ours holds."""


class _Header(tarfile.TarInfo):
    """A header of a plain file, or of one with a long name."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise  # a block of zeros
        except tarfile.HeaderError as error:  # tarfile would take it for the end
            raise _Refused(f"{error} at byte {tar.offset}") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        kind, most = header.type, MOST_MEMBER_BYTES
        if kind == tarfile.XHDTYPE:
            most = _MOST_LONG_NAME_BYTES
        elif kind not in _FILE_TYPES:
            found = _TYPES.get(kind, f"a member of type {kind!r}")
            raise _Refused(f"{header.name!r} is {found}, expected plain files")
        if not 0 <= header.size <= most:
            raise _Refused(f"{header.name!r} announces {header.size} bytes, expected 0 to {most}")
        return header


def stream_members(name: str, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yields the files of a tar from its beginning to its end.

    Yields:
        Name and content of each member.

    Raises:
        DatasetError: the tar is damaged or truncated, or holds anything but plain files named
            ``KEY.EXTENSION``, those of one key side by side and each once.
    """
    for tar, header in _headers(name, stream, "r|"):
        yield header.name, _content(name, tar, header)


def list_members(name: str, stream: BinaryIO) -> Iterator[TarMember]:
    """Yields where the files of a tar lie, without reading them.

    Args:
        stream: binary and seekable.

    Raises:
        DatasetError: as ``stream_members`` does, but not for content that is cut off.
    """
    for _, header in _headers(name, stream, "r:"):
        yield TarMember(header.name, header.offset_data, header.size)


def _headers(
    name: str, stream: BinaryIO, mode: Literal["r|", "r:"]
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    order = _Order()
    try:
        with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header) as tar:
            while (header := tar.next()) is not None:
                # It keeps them all, and typeshed does not know.
                tar.members.clear()  # type: ignore[attr-defined]
                others = set(header.pax_headers) - {"path"}
                if others:  # a header of a long name may say more than the name
                    raise _Refused(
                        f"a header of {header.name!r} sets {sorted(others)}, expected a name alone"
                    )
                order.check(header.name)
                yield tar, header
            _check_end(tar)
    except Exception as error:  # of hostile bytes tarfile raises many kinds
        raise _damaged(name, error) from None


def _content(name: str, tar: tarfile.TarFile, header: tarfile.TarInfo) -> bytes:
    try:
        content = tar.extractfile(header)
        assert content is not None  # it is a plain file
        data = content.read()
    except Exception as error:  # as above
        raise _damaged(name, error) from None
    if len(data) != header.size:
        raise _damaged(name, f"{header.name!r} is cut off")
    return data


def _damaged(name: str, error: Any) -> DatasetError:
    text = str(error) or type(error).__name__
    return DatasetError(
        f"{name}: not a shard, or damaged: {text}. Fetch it again from its origin, or pack again"
    )


def _check_end(tar: tarfile.TarFile) -> None:
    """Checks that zeros are all that follows, and few; else a zeroed header hid the rest."""
    rest = tar.fileobj.read(tarfile.RECORDSIZE + 1)
    if len(rest) > tarfile.RECORDSIZE or rest.strip(b"\0"):
        raise _Refused(f"it goes on after its end at byte {tar.offset}")


class _Order:
    """Checks names one after the other."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._names: set[str] = set()
        self._ended: set[str] = set()

    def check(self, name: str) -> None:
        """Raises _Refused for a name that is not plain, not in its place, or there twice."""
        if not _NAME.fullmatch(name):
            raise _Refused(f"{name[:120]!r} is not named KEY.EXTENSION")
        key = name.split(".", 1)[0]
        if key != self._key:
            if key in self._ended:
                raise _Refused(f"the key {key!r} occurs in two places")
            self._ended.add(key)
            self._key, self._names = key, set()
        if name.lower() in self._names:  # WebDataset lowers extensions
            raise _Refused(f"{name!r} occurs twice")
        self._names.add(name.lower())
