"""Pixels of untrusted files, made uniform: the one module to import for them.

``read_image`` is here; ``read_mask``, ``resize_image``, ``resize_mask``, ``encode_image`` and
``encode_mask_png`` come from the modules beside it.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from nakt_dist.errors import UnusableSample, valid_unicode
from nakt_dist.imaging.decoding import (
    WIDE_MODES,
    DecodedImage,
    Reduce,
    convert_mode,
    decode,
    read_content,
)
from nakt_dist.imaging.dicom import DicomPicture, Rendering, read_dicom
from nakt_dist.imaging.dicom_recognition import is_dicom
from nakt_dist.imaging.masks import read_mask
from nakt_dist.imaging.packed import encode_image, encode_mask_png
from nakt_dist.imaging.resizing import reduction_for, resize_image, resize_mask

Colour = Literal["grey", "rgb"]
SixteenBit = Literal["min_max", "full_range"]

_PILLOW_MODE = {"grey": "L", "rgb": "RGB"}
_SIXTEEN_BIT_MAX = 65535


def read_image(
    path: Path,
    colour: Colour,
    max_pixels: int,
    sixteen_bit: SixteenBit,
    rendering: Rendering = "as_shown",
    content: bytes | None = None,
    reduce: Reduce | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads the first picture of a PNG, JPEG, JPEG 2000, TIFF, BMP, GIF, WebP or DICOM file.

    EXIF orientation is undone. What is transparent is shown over black. Grey is ITU-R 601
    luma. Images of more than 8 bits a pixel in one channel are scaled:

    - ``"min_max"``: the image's own minimum becomes 0 and its maximum 255, rounded; a
      constant image becomes 0. Whole numbers that all lie in 0..255 are taken for 8-bit
      values in a wide file and are kept.
    - ``"full_range"``: value / 257, rounded, so that 65535 becomes 255. Floating-point
      images, and whole numbers outside 0..65535, have no known full range and get
      ``"min_max"``.

    Images of more than 8 bits a channel in colour or with transparency are refused. A DICOM
    file may say itself how its values are shown; see ``nakt_dist.imaging.dicom.read_dicom``.

    Args:
        path: the file; its content decides the format, not its suffix.
        max_pixels: width × height allowed, checked before decoding.
        rendering: of grey DICOM pictures: ``"as_shown"``, or ``"mimic_jpg"`` as the images of
            MIMIC-CXR-JPG were made.
        content: the bytes of the file, where they have been read already.
        reduce: by how much a JPEG may be reduced while it is decoded; see ``decode``.

    Returns:
        uint8 of shape height × width (grey) or height × width × 3 (rgb), and what the file
        was: ``format``, ``mode`` (Pillow's, or DICOM's photometric interpretation), ``width``
        and ``height`` in pixels (upright), ``orientation`` (EXIF, 1 to 8), ``scaling``
        (``"none"``, ``"kept"``, ``"min_max"``, ``"full_range"``, or of a DICOM file
        ``"window"``, ``"lut"`` or ``"mimic_jpg"``), ``range`` (the two values that became 0
        and 255, or None), and of a DICOM file ``bits_stored`` and ``other_bits`` (whether
        words hold anything beside their values) and, where the file says so, ``burned_in``, True:
        text is part of the picture. Nothing else of a DICOM header is read. Of a
        reduced JPEG ``reduction``, by which the array has fewer rows and columns, rounded up;
        of a file with further pictures ``holds_more``, True.

    Raises:
        UnusableSample: ``empty_file``, ``not_an_image``, ``truncated_image``,
            ``too_many_pixels``, ``too_many_bytes``, ``sixteen_bit_colour``,
            ``non_finite_pixels`` or ``unreadable``; of a DICOM file also ``several_frames``
            or ``unsupported_dicom``.
        ConfigurationError: a DICOM file, and what reads it is not installed.
    """
    name = valid_unicode(path.name)
    content = read_content(path, max_pixels) if content is None else content
    if is_dicom(content):
        picture = read_dicom(content, name, max_pixels, sixteen_bit == "full_range", rendering)
        return _of_dicom(picture, colour)
    decoded = decode(content, name, max_pixels, reduce)
    pixels = decoded.pixels
    scaling, value_range = "none", None
    if decoded.narrowed and sixteen_bit == "min_max":
        raise UnusableSample(
            "sixteen_bit_colour",
            f"'{name}' has more than 8 bits a channel in the colour mode {pixels.mode}; expected "
            "them in one grey channel alone. Save it as 16-bit grey or as 8-bit colour, or set "
            "image.sixteen_bit to full_range",
        )
    if pixels.mode in WIDE_MODES:
        values = _wide_values(decoded, name)
        grey, scaling, value_range = _scale_to_eight_bits(values, sixteen_bit)
        array = grey if colour == "grey" else np.repeat(grey[..., None], 3, axis=2)
    else:
        shown = _opaque(pixels, name)
        wanted = _PILLOW_MODE[colour]  # to convert to the mode that is there would be to copy
        array = np.array(shown if shown.mode == wanted else shown.convert(wanted))
        if decoded.narrowed:  # high bytes are what full_range asks for
            scaling, value_range = "full_range", [0, _SIXTEEN_BIT_MAX]
    rare = {"reduction": decoded.reduction} if decoded.reduction > 1 else {}
    rare |= {"holds_more": True} if decoded.holds_more else {}
    return array, rare | {
        "format": decoded.format,
        "mode": pixels.mode,
        "width": decoded.size[0],
        "height": decoded.size[1],
        "orientation": decoded.orientation,
        "scaling": scaling,
        "range": value_range,
    }


def _of_dicom(picture: DicomPicture, colour: Colour) -> tuple[np.ndarray, dict[str, Any]]:
    array = picture.pixels
    if array.ndim != (2 if colour == "grey" else 3):
        array = np.array(Image.fromarray(array).convert(_PILLOW_MODE[colour]))
    return array, ({"burned_in": True} if picture.burned_in else {}) | {
        "format": "DICOM",
        "mode": picture.photometric,
        "width": array.shape[1],
        "height": array.shape[0],
        "orientation": 1,
        "scaling": picture.scaling,
        "range": picture.range,
        "bits_stored": picture.bits_stored,
        "other_bits": picture.other_bits,
    }


def _opaque(pixels: Image.Image, name: str) -> Image.Image:
    """Returns an image of 8 bits a channel without transparency, over black where it had any."""
    if pixels.has_transparency_data:
        black = Image.new("RGBA", pixels.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, convert_mode(pixels, "RGBA", name)).convert("RGB")
    return pixels if pixels.mode in ("1", "L", "RGB") else convert_mode(pixels, "RGB", name)


def _wide_values(decoded: DecodedImage, name: str) -> np.ndarray:
    """Returns int64 or float64 values in which larger is brighter."""
    values = np.asarray(decoded.pixels)
    if decoded.pixels.mode == "F":
        if not np.isfinite(values).all():
            raise UnusableSample("non_finite_pixels", f"'{name}' holds NaN or infinite values")
        values = values.astype(np.float64)
    else:
        values = values.astype(np.int64)
    if not decoded.white_is_zero:
        return values
    sixteen_bits = decoded.pixels.mode != "F" and values.min() >= 0
    return (_SIXTEEN_BIT_MAX if sixteen_bits else values.max()) - values


def _scale_to_eight_bits(
    values: np.ndarray, sixteen_bit: SixteenBit
) -> tuple[np.ndarray, str, list[float]]:
    """Returns uint8 values, the rule that was used and the values that became 0 and 255."""
    low, high = values.min().item(), values.max().item()
    whole = values.dtype == np.int64
    if sixteen_bit == "full_range" and whole and low >= 0 and high <= _SIXTEEN_BIT_MAX:
        return ((values + 128) // 257).astype(np.uint8), "full_range", [0, _SIXTEEN_BIT_MAX]
    if whole and low >= 0 and high <= 255:
        return values.astype(np.uint8), "kept", [0, 255]
    span = high - low
    if span == 0:
        return np.zeros(values.shape, np.uint8), "min_max", [low, high]
    scaled = np.floor((values - low) * (255.0 / span) + 0.5)
    return scaled.clip(0, 255).astype(np.uint8), "min_max", [low, high]


__all__ = [
    "Colour", "Rendering", "SixteenBit", "encode_image", "encode_mask_png",
    "read_content", "read_image", "read_mask", "reduction_for", "resize_image", "resize_mask",
]  # fmt: skip
