"""Reads the picture of a DICOM file, and of its header only what the picture needs.

Needs pydicom, the extra ``dicom``; it is imported when the first DICOM file is met. Elements
that could name a patient are never parsed, so they reach neither samples nor messages.
"""

import logging
import types
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.imaging.dicom_frames import check_frame
from nakt_dist.imaging.dicom_header import GREY, PALETTE, read_header, stored_values, value_limits
from nakt_dist.imaging.dicom_tables import coloured, read_table

Rendering = Literal["as_shown", "mimic_jpg"]


@dataclass(frozen=True)
class DicomPicture:
    """The picture as a viewer would show it first, or rendered as was asked for.

    Attributes:
        pixels: uint8, height × width (grey) or height × width × 3 (RGB); larger is brighter.
        photometric: ``PhotometricInterpretation`` of the file; MONOCHROME1 has been inverted.
        scaling: how stored values became 8 bits: ``"window"`` or ``"lut"`` as the file asks
            for, else ``"kept"``, ``"min_max"`` or ``"full_range"``; or ``"mimic_jpg"``.
        range: the two values, after rescaling, that became 0 and 255 before any inversion and
            equalisation; None for a look-up table, a palette, a sigmoid window and colours of
            8 bits.
        other_bits: whether words hold anything beside their values, such as overlays; left out.
        burned_in: the file says that text which may name the patient is part of the picture.
    """

    pixels: np.ndarray
    photometric: str
    bits_stored: int
    scaling: str
    range: list[float] | None
    other_bits: bool = False
    burned_in: bool = False


def read_dicom(
    content: bytes, name: str, max_pixels: int, full_range: bool, rendering: Rendering = "as_shown"
) -> DicomPicture:
    """Decodes the one picture of a DICOM file.

    Grey values pass the modality's look-up table or rescaling (PS3.3 C.11.1), then the file's
    first look-up table or window of interest (PS3.3 C.11.2), and are inverted for MONOCHROME1.
    Without either, values of 8 bits are kept and wider ones are scaled: from the picture's own
    minimum and maximum, or from the range of the stored bits. Pixels that ``PixelPaddingValue``
    and its range name count for neither minimum nor maximum and become black.

    The rendering ``mimic_jpg`` is that of MIMIC-CXR-JPG: stored values from their minimum to
    their maximum, padding included, cut to whole levels, inverted for MONOCHROME1, and their
    histogram equalised. It is for grey pictures; those in colour are read as they are shown.

    Args:
        max_pixels: width × height allowed, checked before anything is decoded.
        full_range: what to do with wide values where the file names no window.

    Raises:
        UnusableSample: ``not_an_image``, ``too_many_pixels``, ``too_many_bytes``,
            ``several_frames``, ``unsupported_dicom``, ``non_finite_pixels``,
            ``truncated_image`` or ``unreadable``.
        ConfigurationError: pydicom, or what decodes this compression, is not installed.
    """
    pydicom = import_pydicom(name)
    try:
        # pydicom's warnings quote the header; what overflows is judged by its result
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            header = read_header(pydicom, content, name, max_pixels)
            announced = check_frame(pydicom, header, name)
            stored, padding, other_bits = stored_values(pydicom, header, announced, name)
            if header.PhotometricInterpretation not in GREY:
                picture = _colour_picture(header, stored, name)
            elif rendering == "mimic_jpg":
                picture = _as_mimic_jpg(header, stored)
            else:
                picture = _grey_picture(pydicom, header, stored, padding, name, full_range)
            burned_in = str(header.get("BurnedInAnnotation")).upper() == "YES"
            return replace(picture, other_bits=other_bits, burned_in=burned_in)
    except (UnusableSample, ConfigurationError, MemoryError):
        raise
    except Exception as error:  # pydicom's messages may quote the header: only the kind is told
        raise _verdict(error, name) from None


def equalise(grey: np.ndarray) -> np.ndarray:
    """Spreads the levels of a picture as OpenCV's ``equalizeHist`` does it.

    The darkest level becomes 0; any other becomes 255 × the share of the pixels up to it,
    those of the darkest level counted nowhere. A constant picture stays as it is.

    Args:
        grey: uint8, height × width.

    Returns:
        uint8 of the same shape.
    """
    counts = np.bincount(grey.reshape(-1), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    others = grey.size - counts[darkest]
    if others == 0:
        return grey
    counts[: darkest + 1] = 0
    # single precision and rounding to even, so that not one level differs from OpenCV's
    scale = np.float32(255) / np.float32(others)
    levels = np.rint(np.cumsum(counts).astype(np.float32) * scale)
    return levels.clip(0, 255).astype(np.uint8)[grey]


def import_pydicom(name: str) -> types.ModuleType:
    """Imports pydicom, told to repeat nothing of what it reads.

    Args:
        name: of the file that needs it, for the message.

    Raises:
        ConfigurationError: it is not installed.
    """
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


def _colour_picture(header: Any, stored: np.ndarray, name: str) -> DicomPicture:
    photometric, bits = header.PhotometricInterpretation, int(header.BitsStored)
    if photometric == PALETTE:
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        colours = coloured(header, stored, little, name)
        return DicomPicture(colours, photometric, bits, "lut", None)
    if bits == 8:
        return DicomPicture(stored.astype(np.uint8), photometric, bits, "kept", None)
    low, high = value_limits(header)
    unit = (stored.astype(np.float64) - low) / (high - low)
    pixels = np.floor(unit.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return DicomPicture(pixels, photometric, bits, "full_range", [low, high])


def _as_mimic_jpg(header: Any, stored: np.ndarray) -> DicomPicture:
    low, high = stored.min().item(), stored.max().item()
    unit = (stored.astype(np.float64) - low) / (high - low or 1)
    grey = (unit * 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    bits = int(header.BitsStored)
    return DicomPicture(
        equalise(grey), header.PhotometricInterpretation, bits, "mimic_jpg", [low, high]
    )


def _grey_picture(
    pydicom: types.ModuleType,
    header: Any,
    stored: np.ndarray,
    padding: np.ndarray | None,
    name: str,
    full_range: bool,
) -> DicomPicture:
    photometric, bits = header.PhotometricInterpretation, int(header.BitsStored)
    values, known = _rescaled(pydicom, header, stored, name)
    if not np.isfinite(values).all():
        raise UnusableSample("non_finite_pixels", f"'{name}' rescales to NaN or infinite values")
    shown = _of_interest(header, values, known[0] < 0, name)
    if shown is None:
        shown = _scaled(values, padding, known, full_range or bits == 1)
    unit, scaling, value_range = shown
    if not (np.isfinite(unit).all() and np.isfinite(value_range or 0).all()):
        raise UnusableSample("non_finite_pixels", f"'{name}' has values too large to be scaled")
    grey = np.floor(unit.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey[padding] = 0
    return DicomPicture(grey, photometric, bits, scaling, value_range)


def _scaled(
    values: np.ndarray, padding: np.ndarray | None, known: tuple[float, float], full_range: bool
) -> tuple[np.ndarray, str, list[float]]:
    """Returns the values from 0 to 1, the rule that was used, and the values that became these."""
    real = values if padding is None else values[~padding]
    if full_range:
        scaling, (low, high) = "full_range", known
    elif known == (0, 255):
        scaling, low, high = "kept", 0, 255
    elif real.size == 0:  # nothing but padding
        scaling, low, high = "min_max", values.flat[0].item(), values.flat[0].item()
    else:
        scaling, low, high = "min_max", real.min().item(), real.max().item()
    span = high - low
    unit = (values - low) / span if span else np.zeros(values.shape)
    return unit, scaling, [low, high]


def _rescaled(
    pydicom: types.ModuleType, header: Any, stored: np.ndarray, name: str
) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns the modality's values as float64, and the range that they could take."""
    if header.get("ModalityLUTSequence"):
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        signed = header.PixelRepresentation == 1
        table = read_table(header.ModalityLUTSequence[0], signed, little, name)
        return table(stored), (0, table.top)
    limits = np.array(value_limits(header))
    values = pydicom.pixels.apply_rescale(stored, header).astype(np.float64)
    low, high = sorted(pydicom.pixels.apply_rescale(limits, header).tolist())
    return values, (low, high)


def _of_interest(
    header: Any, values: np.ndarray, signed: bool, name: str
) -> tuple[np.ndarray, str, list[float] | None] | None:
    """Applies the file's first table or window of interest; None where it has neither.

    A window whose width the standard forbids, or that is not of finite numbers, counts as none:
    it only says how the picture is shown, and its values are sound without it.
    """
    if header.get("VOILUTSequence"):
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        table = read_table(header.VOILUTSequence[0], signed, little, name)
        return table(values) / table.top, "lut", None
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


def _first(value: Any) -> float | None:
    """Returns a number, the first where an element holds several; None without a finite one."""
    if value is None or value == "":
        return None
    values = [value] if isinstance(value, int | float) else list(value)
    return float(values[0]) if values and np.isfinite(float(values[0])) else None


def _verdict(error: Exception, name: str) -> UnusableSample:
    if isinstance(error, EOFError) or "length" in str(error) or "bytes" in str(error):
        return UnusableSample("truncated_image", f"'{name}' ends too early")
    return UnusableSample("unreadable", f"'{name}' cannot be decoded ({type(error).__name__})")
