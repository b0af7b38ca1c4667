"""Look-up tables and palettes of DICOM files, judged by the values that they really hold."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.errors import UnusableSample

_LUT_DATA = 0x00283006
_DESCRIPTORS = ("Red", "Green", "Blue")
_PLAIN, _SEGMENTED = (0x00281201, 0x00281202, 0x00281203), (0x00281221, 0x00281222, 0x00281223)


@dataclass(frozen=True)
class LookUpTable:
    """One table of PS3.3 C.11.1 or C.11.2.

    Attributes:
        entries: uint16, one dimension.
        first: the value that gets the first entry; smaller ones get it as well, and those
            beyond the end the last entry.
        top: the entry that stands for white.
    """

    entries: np.ndarray
    first: int
    top: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the entries of the values, float64 of the same shape."""
        # numbers without a sign would wrap around below the first
        index = np.floor(values, dtype=np.float64) - self.first
        index = index.clip(0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)].astype(np.float64)


def read_table(table: Any, signed: bool, little: bool, name: str) -> LookUpTable:
    """Reads an item of ``ModalityLUTSequence`` or ``VOILUTSequence``.

    The bit count of its descriptor says how large entries can be, and is often that of the
    words they are stored in. So 16 bits, and fewer than the largest entry has, count for as many
    as that has, at least 8; entries that lie two in a word have 8.

    Args:
        signed: whether the values to be looked up can be negative.
        little: whether the file is little-endian.

    Raises:
        UnusableSample: ``unsupported_dicom``: a bit count that is none, or another number of
            entries than the descriptor says.
    """
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    if not 1 <= bits <= 16:
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}' has a look-up table with entries of {bits} bits; expected 1 to 16",
        )
    entries, packed = _entries(_raw(table, _LUT_DATA), count % 2**16 or 2**16, little, name)
    highest = int(entries.max())
    bits = min(bits, 8) if packed else bits
    if bits == 16 or highest >> bits:
        bits = max(8, highest.bit_length())
    return LookUpTable(entries, _as_signed(first, signed), 2**bits - 1)


def coloured(header: Any, stored: np.ndarray, little: bool, name: str) -> np.ndarray:
    """Returns the colours of a picture with a palette (PS3.3 C.7.6.3.1.5), uint8 with RGB last.

    Entries have 16 bits, and 8 where none of the three tables goes beyond 255.

    Raises:
        UnusableSample: ``unsupported_dicom``: a palette is not there or not of its length.
    """
    tables = []
    for colour, plain, segmented in zip(_DESCRIPTORS, _PLAIN, _SEGMENTED, strict=True):
        descriptor = header.get(f"{colour}PaletteColorLookupTableDescriptor")
        if not descriptor or len(descriptor) != 3:
            raise UnusableSample(
                "unsupported_dicom", f"'{name}' has the colours of a palette that is not there"
            )
        count, first, _ = (int(number) for number in descriptor)
        count = count % 2**16 or 2**16
        if plain in header:
            entries, _ = _entries(_raw(header, plain), count, little, name)
        else:
            entries = _expanded(_raw(header, segmented), count, little, name)
        tables.append(LookUpTable(entries, _as_signed(first, stored.dtype.kind == "i"), 0))
    top = 255 if max(int(table.entries.max()) for table in tables) <= 255 else 65535
    colours = np.stack([table(stored) for table in tables], axis=-1)
    return np.floor(colours * (255 / top) + 0.5).astype(np.uint8)


def _raw(header: Any, tag: int) -> bytes:
    """Returns a value as it lies in the file; its kind of numbers is often written wrong."""
    return bytes(header.get_item(tag).value or b"") if tag in header else b""


def _as_signed(number: int, signed: bool) -> int:
    """Returns a number that is signed as the values are, whatever it was written as."""
    return number - 2**16 if signed and number >= 2**15 else number


def _entries(data: bytes, count: int, little: bool, name: str) -> tuple[np.ndarray, bool]:
    """Returns the entries as uint16, and whether they lie two in a word."""
    if len(data) >= 2 * count:
        words = np.frombuffer(data[: 2 * count], "<u2" if little else ">u2")
        return words.astype(np.uint16), False
    if len(data) in (count, count + 1):
        pairs = np.frombuffer(data + b"\0" * (len(data) % 2), np.uint8).reshape(-1, 2)
        ordered = pairs if little else pairs[:, ::-1]  # the first of a word is its lower byte
        return ordered.reshape(-1)[:count].astype(np.uint16), True
    raise UnusableSample(
        "unsupported_dicom",
        f"'{name}' has a look-up table of {count} entries in {len(data)} bytes; expected "
        f"{2 * count}, or {count} of 8 bits",
    )


def _expanded(data: bytes, count: int, little: bool, name: str) -> np.ndarray:
    """Returns the entries of a segmented palette (PS3.3 C.7.9.2), uint16, no more than ``count``.

    Segments are runs of entries, straight lines, and repetitions of earlier segments.
    """
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").tolist()
    entries: list[int] = []
    position = 0
    while position + 1 < len(words) and len(entries) < count:
        kind, length = words[position : position + 2]
        if kind == 2 and position + 3 < len(words):
            # the offset is in bytes, its lower word first
            _add_segments(entries, words, words[position + 2 :][:2], length, count)
            position += 4
        else:
            position = _add_segment(entries, words, position, count)
    if len(entries) != count:
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}' has a segmented palette of {len(entries)} entries; expected {count}",
        )
    return np.array(entries, np.uint16)


def _add_segments(
    entries: list[int], words: list[int], offset: list[int], segments: int, count: int
) -> None:
    position = (offset[0] + offset[1] * 2**16) // 2
    for _ in range(segments):
        if position + 1 >= len(words) or len(entries) >= count:
            return
        position = _add_segment(entries, words, position, count)


def _add_segment(entries: list[int], words: list[int], position: int, count: int) -> int:
    """Adds the run or the line at ``position`` to the entries, and returns the next position."""
    kind, length = words[position : position + 2]
    length = min(length, count - len(entries))
    if length == 0:  # would be repeated for ever
        return len(words)
    if kind == 0:
        entries.extend(words[position + 2 : position + 2 + length])
        return position + 2 + words[position + 1]
    if kind == 1 and entries and position + 2 < len(words):
        line = np.linspace(entries[-1], words[position + 2], words[position + 1] + 1)[1:]
        entries.extend(np.floor(line[:length] + 0.5).astype(int).tolist())
        return position + 3
    return len(words)  # no segment: the palette is too short, which is said
