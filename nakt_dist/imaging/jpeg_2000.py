"""What a JPEG 2000 picture says of itself, read before anything decodes it."""

from typing import NamedTuple

JP2_MAGIC = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM_MAGIC = b"\xff\x4f\xff\x51"


class AnnouncedPicture(NamedTuple):
    """The size that a compressed picture announces.

    Attributes:
        rows: height in pixels.
        columns: width in pixels.
        components: values a pixel.
        precision: bits of a value.
    """

    rows: int
    columns: int
    components: int
    precision: int


def codestream_of(content: bytes) -> bytes:
    """Returns the compressed picture without the boxes of a JP2 file, where it has them."""
    if not content.startswith(JP2_MAGIC):
        return content
    position = 0
    while position + 8 <= len(content):
        length, kind = int.from_bytes(content[position : position + 4]), content[position + 4 :][:4]
        header = 8
        if length == 1:
            length, header = int.from_bytes(content[position + 8 : position + 16]), 16
        if length == 0:  # up to the end
            length = len(content) - position
        if kind == b"jp2c":
            return content[position + header : position + length]
        if length < header:
            break
        position += length
    return b""


def announced_by_codestream(codestream: bytes) -> AnnouncedPicture | None:
    """Returns what the size segment says, which comes first; None where it does not."""
    if codestream[:4] != CODESTREAM_MAGIC or len(codestream) < 43:
        return None
    right, bottom, left, top = (int.from_bytes(codestream[at : at + 4]) for at in (8, 12, 16, 20))
    components, precision = int.from_bytes(codestream[40:42]), (codestream[42] & 0x7F) + 1
    return AnnouncedPicture(bottom - top, right - left, components, precision)
