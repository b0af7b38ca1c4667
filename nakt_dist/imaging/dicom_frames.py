"""The bytes of a DICOM file's picture: of the size that the header says, or refused."""

import struct
import types
import zlib
from typing import Any

import numpy as np

from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.imaging.decoding import most_bytes
from nakt_dist.imaging.dicom_recognition import meta_elements
from nakt_dist.imaging.jpeg_2000 import AnnouncedPicture, announced_by_codestream, codestream_of

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_TRANSFER_SYNTAX = 0x00020010
_EXPLICIT = b"DICM\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
_JPEG_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


def inflated(content: bytes, start: int, name: str, max_pixels: int) -> bytes:
    """Returns a file that is deflated as a whole as one that is not; others as they are.

    Args:
        start: position of its first element.
        max_pixels: width × height allowed; says how far a file may be inflated.

    Raises:
        UnusableSample: ``too_many_bytes``, ``truncated_image`` or ``unsupported_dicom``.
    """
    syntax, end = b"", start
    for element in meta_elements(content, start):
        end = element.value_at + element.length
        if element.tag == _TRANSFER_SYNTAX:
            syntax = content[element.value_at : end].rstrip(b"\0 ")
    if syntax == _DEFLATED:
        allowed = most_bytes(max_pixels)
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        data = stream.decompress(content[end:], allowed + 1)
        if len(data) > allowed:
            raise UnusableSample(
                "too_many_bytes", f"'{name}' inflates to more than the {allowed} bytes allowed"
            )
        if not stream.eof:
            raise UnusableSample("truncated_image", f"'{name}' ends too early")
        content = bytes(128) + _EXPLICIT + data
    if _DEFLATED in content:  # pydicom would inflate it whole, however large it becomes
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}' names the deflated transfer syntax in an unusual place; expected it in the "
            "file's own description alone",
        )
    return content


def check_frame(pydicom: types.ModuleType, header: Any, name: str) -> AnnouncedPicture | None:
    """Refuses what cannot be decoded, and a picture of another size than the header says.

    What surrounds the picture without belonging to it, padding and JP2 boxes, is taken off, and
    run lengths are expanded, so that the header is that of an uncompressed picture.

    Returns:
        What a picture of a JPEG format announces; None for the other kinds.

    Raises:
        UnusableSample: ``unsupported_dicom`` or ``unreadable``.
        ConfigurationError: what decodes this compression is not installed.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _UNCOMPRESSED:
        _trim_padding(header, name)
        return None
    if syntax == _RUN_LENGTHS and header.BitsAllocated % 8 == 0:
        _expand_run_lengths(pydicom, header, name)
        return None
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not syntax.startswith(_JPEG_FAMILY) or header.BitsAllocated == 1:
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}' is compressed as {syntax.name}; expected one picture, uncompressed, in "
            "run lengths or in a JPEG format",
        )
    if not decoder.is_available:
        raise ConfigurationError(
            f"'{name}' is compressed as {syntax.name}, which needs a decoder that is not "
            "installed: pip install 'nakt_dist[dicom]', or move such files out of the dataset"
        )
    return _check_announced(pydicom, header, name)


def _check_announced(pydicom: types.ModuleType, header: Any, name: str) -> AnnouncedPicture:
    frame = pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1)
    bare = codestream_of(frame)
    announced = announced_by_codestream(bare) or _announced_by_jpeg(bare)
    rows, columns, samples = header.Rows, header.Columns, header.get("SamplesPerPixel", 1)
    if announced is None or announced[:3] != (rows, columns, samples):
        found = "nothing"
        if announced is not None:
            found = f"{announced.columns}×{announced.rows}"
            if announced[:2] == (rows, columns):
                found = f"{announced.components} values a pixel instead of {samples}"
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {columns}×{rows} pixels and its compressed picture {found}",
        )
    if bare is not frame:
        header.PixelData = pydicom.encaps.encapsulate([bare])
        header["PixelData"].is_undefined_length = True
    return announced


def _trim_padding(header: Any, name: str) -> None:
    """Refuses more pixel data than the header announces; pydicom itself refuses less.

    Padding is none: older applications write more than the byte that makes the length even, and
    readers are to accept it (PS3.5, 8.1.1).
    """
    # YBR_FULL_422 stores each colour difference once for two pixels
    half = header.PhotometricInterpretation == "YBR_FULL_422"
    values = header.Rows * header.Columns * (2 if half else header.get("SamplesPerPixel", 1))
    expected, found = -(-values * header.BitsAllocated // 8), len(header.PixelData)
    even = expected + expected % 2
    pad = header.PixelData[expected:even]
    big = not header.file_meta.TransferSyntaxUID.is_little_endian
    if big and header.BitsAllocated == 8 and header["PixelData"].VR == "OW":
        pad = b""  # bytes in big-endian words change places: the one that pads comes before
    if any(pad) or any(header.PixelData[even:]):
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {header.Columns}×{header.Rows} pixels, which are "
            f"{expected} bytes, and its pixel data has {found} bytes",
        )
    header.PixelData = header.PixelData[:even]


def _expand_run_lengths(pydicom: types.ModuleType, header: Any, name: str) -> None:
    """Expands RLE Lossless (PS3.5, annex G), no further than the header announces.

    Not by pydicom's decoders: one expands a frame whole, however large it becomes, and the other
    panics on a frame that ends early.
    """
    frame = pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1)
    samples, width = header.get("SamplesPerPixel", 1), header.BitsAllocated // 8
    count, *starts = struct.unpack_from("<16I", frame.ljust(64, b"\0"))
    if count != samples * width:
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {samples * width} bytes a pixel and its run lengths have "
            f"{count} parts",
        )
    starts = starts[:count]
    if starts != sorted({64, *starts}) or starts[-1] >= len(frame):
        raise UnusableSample(
            "unreadable",
            f"'{name}': its run lengths begin at the bytes {', '.join(map(str, starts))} of "
            f"{len(frame)}; expected 64 and then ascending ones",
        )
    pixels = header.Rows * header.Columns
    planes = np.empty((samples, pixels, width), np.uint8)
    for number, start in enumerate(starts):
        sample, byte = divmod(number, width)  # the highest byte comes first
        end = starts[number + 1] if number + 1 < count else len(frame)
        plane = _expanded(frame[start:end], pixels)
        if len(plane) < pixels:
            raise UnusableSample("truncated_image", f"'{name}' ends too early")
        planes[sample, :, width - 1 - byte] = np.frombuffer(plane, np.uint8)
    if header.PhotometricInterpretation == "YBR_FULL_422":  # each pixel has its own difference
        header.PhotometricInterpretation = "YBR_FULL"
    header.PlanarConfiguration = 1
    header.PixelData = planes.tobytes()
    header["PixelData"].is_undefined_length = False
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def _expanded(packed: bytes, length: int) -> bytes:
    """Returns the bytes that PackBits has packed, ``length`` of them or fewer."""
    expanded = bytearray()
    at = 0
    while at < len(packed) and len(expanded) < length:
        run = packed[at]
        if run < 128:
            expanded += packed[at + 1 : at + 2 + run]
            at += run + 2
        else:
            expanded += packed[at + 1 : at + 2] * (257 - run if run > 128 else 0)
            at += 2 if run > 128 else 1
    return bytes(expanded[:length])


def _announced_by_jpeg(frame: bytes) -> AnnouncedPicture | None:
    """Returns what the header of a JPEG or JPEG-LS picture says."""
    position = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4])
        if marker in _JPEG_SIZE_MARKERS:
            rows, columns = frame[position + 5 : position + 7], frame[position + 7 : position + 9]
            precision, components = frame[position + 4], frame[position + 9]
            return AnnouncedPicture(
                int.from_bytes(rows), int.from_bytes(columns), components, precision
            )
        position += 1 if marker == 0xFF else 2 + length
    return None
