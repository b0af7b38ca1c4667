"""Reads the picture of a DICOM file, and of its header only what the picture needs.

Needs pydicom, the extra ``dicom``; it is imported when the first DICOM file is met. Elements
that could name a patient are never parsed, so they reach neither samples nor messages.
"""

import io
import logging
import types
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.errors import ConfigurationError, UnusableSample

_MAGIC, _MAGIC_AT = b"DICM", 128
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_ELEMENTS = [
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PixelData",
]
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_JPEG_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class DicomPicture:
    """The picture as a viewer would show it first.

    Attributes:
        pixels: uint8, height × width (grey) or height × width × 3 (RGB); larger is brighter.
        photometric: ``PhotometricInterpretation`` of the file; MONOCHROME1 has been inverted.
        bits_stored: bits of a stored value.
        scaling: how stored values became 8 bits: ``"window"`` or ``"lut"`` as the file asks
            for, else ``"kept"``, ``"min_max"`` or ``"full_range"``.
        range: the two values, after rescaling, that became 0 and 255 before any inversion;
            None for a look-up table, a sigmoid window and colour.
    """

    pixels: np.ndarray
    photometric: str
    bits_stored: int
    scaling: str
    range: list[float] | None


def is_dicom(content: bytes) -> bool:
    """Says whether the bytes of a file begin as those of a DICOM file with preamble do."""
    return content[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_dicom(content: bytes, name: str, max_pixels: int, full_range: bool) -> DicomPicture:
    """Decodes the one picture of a DICOM file.

    Grey values pass the modality's look-up table or rescaling (PS3.3 C.11.1), then the file's
    first look-up table or window of interest (PS3.3 C.11.2), and are inverted for MONOCHROME1.
    Without either, values of 8 bits are kept and wider ones are scaled: from the picture's own
    minimum and maximum, or from the range of the stored bits.

    Args:
        content: the file's bytes.
        name: of the file, for messages.
        max_pixels: width × height allowed, checked before anything is decoded.
        full_range: what to do with wide values where the file names no window.

    Raises:
        UnusableSample: ``not_an_image``, ``too_many_pixels``, ``several_frames``,
            ``unsupported_dicom``, ``non_finite_pixels``, ``truncated_image`` or ``unreadable``.
        ConfigurationError: pydicom, or what decodes this compression, is not installed.
    """
    pydicom = _import_pydicom(name)
    if _DEFLATED in content:  # pydicom would inflate the file whole, however large it becomes
        raise _unsupported(name, "is deflated as a whole")
    try:
        # pydicom's warnings quote the header; what overflows is judged by its result
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            header = pydicom.dcmread(io.BytesIO(content), specific_tags=_ELEMENTS)
            _check_header(header, name, max_pixels)
            _check_compression(pydicom, header, name)
            stored = pydicom.pixels.pixel_array(header, index=0)
            return _picture(pydicom, header, stored, name, full_range)
    except (UnusableSample, ConfigurationError, MemoryError):
        raise
    except Exception as error:  # pydicom's messages may quote the header: only the kind is told
        raise _verdict(error, name) from None


def _import_pydicom(name: str) -> types.ModuleType:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise ConfigurationError(
            f"'{name}' is a DICOM file, which needs pydicom: pip install 'nakt_dist[dicom]', or "
            "move such files out of the dataset"
        ) from None
    # a value that breaks the standard is read as it is, without a warning or log that quotes it
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return pydicom


def _check_header(header: Any, name: str, max_pixels: int) -> None:
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns or "PixelData" not in header:
        raise UnusableSample(
            "not_an_image", f"'{name}' is a DICOM file without a picture; move it elsewhere"
        )
    if rows * columns > max_pixels:
        raise UnusableSample(
            "too_many_pixels",
            f"'{name}' is {columns}×{rows}; expected at most {max_pixels} pixels",
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnusableSample(
            "several_frames", f"'{name}' holds {frames} frames; expected one picture a file"
        )
    photometric = header.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2", *_COLOURS):
        raise _unsupported(name, f"has the colours {photometric!r}")
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    if samples != (3 if photometric in _COLOURS else 1) or bits not in (8, 16, 32):
        raise _unsupported(name, f"has {samples} values of {bits} bits a pixel as {photometric}")
    if samples == 3 and bits != 8:
        raise _unsupported(name, f"has colours of {bits} bits")


def _check_compression(pydicom: types.ModuleType, header: Any, name: str) -> None:
    """Refuses what cannot be decoded, and a picture of another size than the header says."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _UNCOMPRESSED:
        _trim_padding(header, name)
        return
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not syntax.startswith(_JPEG_FAMILY):
        raise _unsupported(name, f"is compressed as {syntax.name}")
    if not decoder.is_available:
        raise ConfigurationError(
            f"'{name}' is compressed as {syntax.name}, which needs a decoder that is not "
            "installed: pip install 'nakt_dist[dicom]', or move such files out of the dataset"
        )
    frame = pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1)
    announced, expected = _announced_size(frame), (header.Rows, header.Columns)
    if announced != expected:
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {expected[1]}×{expected[0]} pixels and its compressed "
            f"picture {'nothing' if announced is None else f'{announced[1]}×{announced[0]}'}",
        )


def _trim_padding(header: Any, name: str) -> None:
    """Refuses more pixel data than the header announces; pydicom itself refuses less.

    Padding is none: older applications write more than the byte that makes the length even, and
    readers are to accept it (PS3.5, 8.1.1).
    """
    # YBR_FULL_422 stores each colour difference once for two pixels
    half = header.PhotometricInterpretation == "YBR_FULL_422"
    values = header.Rows * header.Columns * (2 if half else header.get("SamplesPerPixel", 1))
    expected, found = -(-values * header.BitsAllocated // 8), len(header.PixelData)
    if any(header.PixelData[expected:]):
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {header.Columns}×{header.Rows} pixels, which are "
            f"{expected} bytes, and its pixel data has {found} bytes",
        )
    header.PixelData = header.PixelData[: expected + expected % 2]


def _announced_size(frame: bytes) -> tuple[int, int] | None:
    """Returns (rows, columns) from the header of a JPEG, JPEG-LS or JPEG 2000 picture."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the size segment comes first
        right, bottom, left, top = (int.from_bytes(frame[at : at + 4]) for at in (8, 12, 16, 20))
        return bottom - top, right - left
    position = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4])
        if marker in _JPEG_SIZE_MARKERS:
            rows, columns = frame[position + 5 : position + 7], frame[position + 7 : position + 9]
            return int.from_bytes(rows), int.from_bytes(columns)
        position += 1 if marker == 0xFF else 2 + length
    return None


def _picture(
    pydicom: types.ModuleType, header: Any, stored: np.ndarray, name: str, full_range: bool
) -> DicomPicture:
    photometric, bits = header.PhotometricInterpretation, int(header.BitsStored)
    if photometric in _COLOURS:
        return DicomPicture(stored, photometric, bits, "kept", None)
    _check_tables(header, name)
    values, known = _rescaled(pydicom, header, stored)
    if not np.isfinite(values).all():
        raise UnusableSample("non_finite_pixels", f"'{name}' rescales to NaN or infinite values")
    shown = _of_interest(header, values)
    if shown is None:
        low, high = known if full_range else (values.min().item(), values.max().item())
        scaling = "full_range" if full_range else "min_max"
        if not full_range and known == (0, 255):
            scaling, low, high = "kept", 0, 255
        span = high - low
        unit = (values - low) / span if span else np.zeros(values.shape)
        shown = unit, scaling, [low, high]
    unit, scaling, value_range = shown
    if not (np.isfinite(unit).all() and np.isfinite(value_range or 0).all()):
        raise UnusableSample("non_finite_pixels", f"'{name}' has values too large to be scaled")
    grey = np.floor(unit.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return DicomPicture(grey, photometric, bits, scaling, value_range)


def _check_tables(header: Any, name: str) -> None:
    """Refuses a look-up table that does not say how large its entries can be."""
    for sequence in ("ModalityLUTSequence", "VOILUTSequence"):
        tables = header.get(sequence)
        bits = int(tables[0].LUTDescriptor[2]) if tables else 16
        if not 1 <= bits <= 16:
            raise UnusableSample(
                "unsupported_dicom",
                f"'{name}' has a look-up table with entries of {bits} bits; expected 1 to 16",
            )


def _rescaled(
    pydicom: types.ModuleType, header: Any, stored: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns the modality's values as float64, and the range that they could take."""
    if header.get("ModalityLUTSequence"):
        values, top = _looked_up(header, header.ModalityLUTSequence[0], stored)
        return values, (0, top)
    bits = int(header.BitsStored)
    signed = header.PixelRepresentation == 1
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    values = pydicom.pixels.apply_rescale(stored, header).astype(np.float64)
    low, high = sorted(pydicom.pixels.apply_rescale(limits, header).tolist())
    return values, (low, high)


def _of_interest(
    header: Any, values: np.ndarray
) -> tuple[np.ndarray, str, list[float] | None] | None:
    """Applies the file's first table or window of interest; None where it has neither.

    A window whose width the standard forbids, or that is not of finite numbers, counts as none:
    it only says how the picture is shown, and its values are sound without it.
    """
    if header.get("VOILUTSequence"):
        shown, top = _looked_up(header, header.VOILUTSequence[0], values)
        return shown / top, "lut", None
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width)), "window", None
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    low, high = centre - width / 2, centre + width / 2
    if low == high:
        return (values > low).astype(np.float64), "window", [low, high]
    return (values - low) / (high - low), "window", [low, high]


def _looked_up(header: Any, table: Any, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the entries of a look-up table as float64, and the largest that it could have."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    if header.PixelRepresentation == 1 and first >= 2**15:
        first -= 2**16  # the number is signed as the pixels are, whatever it was written as
    data = table.LUTData
    if isinstance(data, bytes):
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        data = np.frombuffer(data, "<u2" if little else ">u2")
    entry = np.asarray(data, dtype=np.float64)[: entries or 2**16]
    index = np.clip(np.floor(values) - first, 0, len(entry) - 1).astype(np.int64)
    return entry[index], 2.0**bits - 1


def _first(value: Any) -> float | None:
    """Returns a number, the first where an element holds several; None without a finite one."""
    if value is None or value == "":
        return None
    values = [value] if isinstance(value, int | float) else list(value)
    return float(values[0]) if values and np.isfinite(float(values[0])) else None


def _unsupported(name: str, what: str) -> UnusableSample:
    return UnusableSample(
        "unsupported_dicom",
        f"'{name}' {what}; expected one grey or RGB picture, uncompressed or in a JPEG format",
    )


def _verdict(error: Exception, name: str) -> UnusableSample:
    if isinstance(error, EOFError) or "length" in str(error) or "bytes" in str(error):
        return UnusableSample("truncated_image", f"'{name}' ends too early")
    return UnusableSample("unreadable", f"'{name}' cannot be decoded ({type(error).__name__})")
