"""The header of a DICOM file as far as its picture needs it, and the values that are stored."""

import io
import types
from typing import Any

import numpy as np

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.dicom_frames import inflated
from nakt_dist.imaging.dicom_recognition import data_set_start
from nakt_dist.imaging.jpeg_2000 import AnnouncedPicture

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_ELEMENTS = [
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "FloatPixelData", "DoubleFloatPixelData",
    "BurnedInAnnotation", "PixelData",
]  # fmt: skip
_NEEDED = ("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_header(pydicom: types.ModuleType, content: bytes, name: str, max_pixels: int) -> Any:
    """Returns the elements that the picture needs, and how the file is written.

    Returns:
        A data set of pydicom's, of one picture whose transfer syntax is known.

    Raises:
        UnusableSample: ``not_an_image``, ``too_many_pixels``, ``too_many_bytes``,
            ``several_frames``, ``truncated_image`` or ``unsupported_dicom``.
    """
    header = _parse(pydicom, content, name, max_pixels)
    _check_header(header, name, max_pixels)
    return header


def _parse(pydicom: types.ModuleType, content: bytes, name: str, max_pixels: int) -> Any:
    start = data_set_start(content)
    if start is None:
        raise UnusableSample(
            "not_an_image", f"'{name}' does not go on as a DICOM file after its mark"
        )
    if content[128:132] != b"DICM":  # pydicom knows files without the mark from their beginning
        content, start = content[start:], 0
    content = inflated(content, start, name, max_pixels)
    header = pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=_ELEMENTS)
    if header.file_meta.get("TransferSyntaxUID"):
        return header
    if "PixelData" in header and header["PixelData"].is_undefined_length:
        raise _unsupported(name, "is compressed and does not say how (TransferSyntaxUID)")
    implicit, little = header.original_encoding
    header.file_meta.TransferSyntaxUID = (
        pydicom.uid.ImplicitVRLittleEndian
        if implicit
        else pydicom.uid.ExplicitVRLittleEndian
        if little
        else pydicom.uid.ExplicitVRBigEndian
    )
    return header


def _check_header(header: Any, name: str, max_pixels: int) -> None:
    rows, columns = header.get("Rows"), header.get("Columns")
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise _unsupported(name, "holds floating-point pixels")
    if not rows or not columns or "PixelData" not in header:
        raise UnusableSample(
            "not_an_image", f"'{name}' is a DICOM file without a picture; move it elsewhere"
        )
    if rows * columns > max_pixels:
        raise UnusableSample(
            "too_many_pixels", f"'{name}' is {columns}×{rows}; expected at most {max_pixels} pixels"
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnusableSample(
            "several_frames", f"'{name}' holds {frames} frames; expected one picture a file"
        )
    for element in _NEEDED:
        if header.get(element) in (None, ""):
            raise _unsupported(name, f"does not say its {element}")
    _check_pixel_form(header, name)


def _check_pixel_form(header: Any, name: str) -> None:
    """Refuses colours, depths and places of values that mean nothing, or that nobody decodes."""
    photometric = header.PhotometricInterpretation
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    if photometric not in (*GREY, PALETTE, *_COLOURS):
        raise _unsupported(name, f"has the colours {photometric!r}")
    depths = {"RGB": (8, 16, 32), PALETTE: (8, 16)}.get(photometric, (8,))
    if photometric in GREY:
        depths = (1, 8, 16, 32)
    if samples != (3 if photometric in _COLOURS else 1) or bits not in depths:
        raise _unsupported(name, f"has {samples} values of {bits} bits a pixel as {photometric}")
    stored, high = int(header.BitsStored), high_bit(header)
    if not 1 <= stored <= high + 1 <= bits:
        raise _unsupported(
            name, f"says that values of {stored} bits end at bit {high} of words of {bits} bits"
        )


def _unsupported(name: str, what: str) -> UnusableSample:
    return UnusableSample(
        "unsupported_dicom",
        f"'{name}' {what}; expected one picture in grey, RGB or palette colours",
    )


def stored_values(
    pydicom: types.ModuleType, header: Any, announced: AnnouncedPicture | None, name: str
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Decodes the picture, and takes its values from the bits that the header says.

    A value ends at ``HighBit`` and has ``BitsStored`` bits (PS3.5, 8.1.1); what other bits of
    its word hold, such as overlays, is no part of it. Pictures of a JPEG format hold values
    of their own precision, which need no more than that where it is ``BitsStored``.

    Args:
        header: with a frame that ``check_frame`` has passed.
        announced: what that returned.

    Returns:
        Whole numbers, height × width (grey) or height × width × 3 (RGB); where grey ones are
        padding, bool of the same shape, None where none is; and whether other bits of words
        that are no padding hold anything but the sign of their values.

    Raises:
        UnusableSample: ``unsupported_dicom``: the values do not lie where the header says.
    """
    bits, high = int(header.BitsStored), high_bit(header)
    if announced is not None and (high == bits - 1 or announced.precision <= bits):
        values = pydicom.pixels.pixel_array(header, index=0)
        return values, _padding(header, values, values), False
    if announced is not None and announced.precision <= high:
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}' has values of {bits} bits up to bit {high}, and a compressed picture of "
            f"{announced.precision} bits; expected {bits}, or more than {high}",
        )
    cells = pydicom.pixels.pixel_array(header, index=0, correct_unused_bits=False)
    if cells.dtype.itemsize * 8 < header.BitsAllocated:
        raise UnusableSample("unreadable", f"'{name}' decodes to fewer bits than its header says")
    cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    _check_place(cells, bits, high, name)
    values = _between(cells, bits, high)
    padding = _padding(header, values, cells)
    different = cells != np.left_shift(values, high + 1 - bits)
    if padding is not None:
        different &= ~padding
    return values, padding, bool(different.any())


def high_bit(header: Any) -> int:
    """Returns the highest bit of a value in its word; of a header that does not say, the usual."""
    stated = header.get("HighBit")
    return int(header.BitsStored) - 1 if stated is None else int(stated)


def value_limits(header: Any) -> tuple[int, int]:
    """Returns the smallest and the largest value of the stored bits."""
    bits = int(header.BitsStored)
    if header.PixelRepresentation == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _between(cells: np.ndarray, bits: int, high: int) -> np.ndarray:
    """Returns the values of ``bits`` bits that end at the bit ``high``, with their sign."""
    width = cells.dtype.itemsize * 8
    if bits == width:
        return cells
    # up to the word's end and back: what stood above is lost, and the sign is drawn down
    return np.right_shift(np.left_shift(cells, width - 1 - high), width - bits)


def _check_place(cells: np.ndarray, bits: int, high: int, name: str) -> None:
    """Refuses values at the word's lower end where the header places them higher."""
    shift = high + 1 - bits
    words = cells.view(f"u{cells.dtype.itemsize}")
    if shift and not (words >> bits).any() and (words & (2**shift - 1)).any():
        raise UnusableSample(
            "unsupported_dicom",
            f"'{name}': its header places the values in the bits {shift} to {high}, and its pixel "
            f"data uses the bits 0 to {bits - 1}; write HighBit as it is",
        )


def _padding(header: Any, values: np.ndarray, cells: np.ndarray) -> np.ndarray | None:
    """Returns which values ``PixelPaddingValue``, or the range up to its limit, names.

    A padding value that the stored bits cannot hold is looked for in the whole words.
    """
    first = header.get("PixelPaddingValue")
    if not isinstance(first, int) or values.ndim != 2:
        return None
    limit = header.get("PixelPaddingRangeLimit")
    ends = (first, limit if isinstance(limit, int) else first)
    low, high = sorted(_as_pixel(number, header) for number in ends)
    least, most = value_limits(header)
    where = values if least <= low and high <= most else cells
    padding = (where >= low) & (where <= high)
    return padding if padding.any() else None


def _as_pixel(number: int, header: Any) -> int:
    """Returns a number with the sign of the pixels, whatever it was written as."""
    if header.PixelRepresentation != 1:
        return number % 2**16
    width = min(16, int(header.BitsAllocated))
    number %= 2**width
    return number - 2**width if number >= 2 ** (width - 1) else number
