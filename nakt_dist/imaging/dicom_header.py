"""The header of a DICOM file: what the picture needs of it, and whether anybody can read that."""

import io
import types
from typing import Any

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.dicom_frames import inflated
from nakt_dist.imaging.dicom_recognition import data_set_start
from nakt_dist.imaging.dicom_values import high_bit

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
    "PixelData",
]  # fmt: skip
_NEEDED = ("PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_header(pydicom: types.ModuleType, content: bytes, name: str, max_pixels: int) -> Any:
    """Returns the elements that the picture needs, and how the file is written.

    Args:
        max_pixels: width × height allowed.

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
            "too_many_pixels",
            f"'{name}' is {columns}×{rows}; expected at most {max_pixels} pixels",
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
