"""Tells DICOM files from others by how they begin, whatever they are called."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEAD_BYTES = 1024
"""What ``is_dicom`` looks at; more of a file need not be read."""

_MAGIC, _PREAMBLE = b"DICM", 128
_DIRECTORY = b"1.2.840.10008.1.3.10"
_GROUPS = frozenset({*range(0x0002, 0x0032, 2), 0x0040, 0x0088, 0x2050, 0x4008, 0x7FE0})
_FIRST_GROUPS = frozenset({0x0002, 0x0008})
"""What a data set without the mark begins with."""
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN "
    b"UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_ENOUGH = {"implicit": 4, "explicit": 3, "explicit big-endian": 3}
"""Elements in a row, tags rising, that no other kind of file begins with."""


class Element(NamedTuple):
    """Where one element of a data set lies.

    Attributes:
        tag: group × 65536 + number.
        value_at: position of the value's first byte.
        length: of the value in bytes.
    """

    tag: int
    value_at: int
    length: int


def is_dicom(content: bytes) -> bool:
    """Says whether a file is DICOM, by its first ``HEAD_BYTES`` bytes."""
    return data_set_start(content) is not None


def is_directory(content: bytes) -> bool:
    """Says whether a DICOM file lists other files (``DICOMDIR``) and is no picture itself."""
    return _DIRECTORY in content[:HEAD_BYTES]


def data_set_start(content: bytes) -> int | None:
    """Returns the position of a DICOM file's first element, None where it is no such file.

    A file begins with 128 bytes and ``DICM``; older applications leave out both, or the mark
    alone. Elements must follow in any case: text and other programs' files may hold the mark.
    """
    head = content[:HEAD_BYTES]
    after = _PREAMBLE + len(_MAGIC)
    if head[_PREAMBLE:after] == _MAGIC and any(any(_walk(head, after, kind)) for kind in _ENOUGH):
        return after
    start = 0 if any(head[:_PREAMBLE]) else _PREAMBLE
    sound = any(_begins(head, start, kind, least) for kind, least in _ENOUGH.items())
    return start if sound else None


def meta_elements(content: bytes, start: int) -> Iterator[Element]:
    """Yields the elements of the file's own description (group 2), which are explicit."""
    for element in _walk(content, start, "explicit"):
        if element.tag >> 16 != 2:
            return
        yield element


def _begins(head: bytes, start: int, kind: str, least: int) -> bool:
    """Says whether a data set begins at ``start``, with at least so many sound elements."""
    found = list(_walk(head, start, kind))
    return len(found) >= least and found[0].tag >> 16 in _FIRST_GROUPS


def _walk(content: bytes, position: int, kind: str) -> Iterator[Element]:
    """Yields elements until one is not sound, ends beyond ``content`` or has no length."""
    previous, order = -1, ">" if kind == "explicit big-endian" else "<"
    while position + 12 <= len(content):
        group, number = struct.unpack_from(f"{order}HH", content, position)
        vr, header = content[position + 4 : position + 6], 8
        if kind == "implicit":
            (length,) = struct.unpack_from("<I", content, position + 4)
        elif vr not in _VRS:
            return
        elif vr in _LONG_VRS:
            header = 12
            (length,) = struct.unpack_from(f"{order}I", content, position + 8)
        else:
            (length,) = struct.unpack_from(f"{order}H", content, position + 6)
        tag = group << 16 | number
        # the length of a group is a number of four bytes
        if group not in _GROUPS or tag <= previous or (number == 0 and length != 4):
            return
        yield Element(tag, position + header, length)
        if length == _UNDEFINED:
            return
        previous, position = tag, position + header + length
