"""Reads the masks of an image: one uint8 array whatever the files look like."""

from pathlib import Path

import numpy as np

from nakt_dist.errors import UnusableSample
from nakt_dist.sources.decoding import (
    WHOLE_NUMBER_MODES,
    WIDE_MODES,
    DecodedImage,
    convert_mode,
    decode_file,
)
from nakt_dist.sources.files import printable
from nakt_dist.sources.record import SourceRecord

_GREY_MODES = ("1", "L", *WIDE_MODES)
_INDEX_MODES = ("1", "L", "P", *WHOLE_NUMBER_MODES)


def read_mask(record: SourceRecord, size: tuple[int, int], max_pixels: int) -> np.ndarray:
    """Reads the masks of a record.

    Binary masks: of a colour mask the brightest of red, green and blue counts, transparency
    does not. A mask with no value above 1 has its target where it is not 0 (0.5 or more in
    a floating-point mask); otherwise the target begins at 128 (32768 in a 16-bit mask that
    goes beyond 255). Several masks are united.

    Class masks: a grey or palette image whose values are the class indices.

    Args:
        record: a record with masks and no problem.
        size: height and width of its image in pixels; each mask must have the same.
        max_pixels: width × height allowed, checked before decoding.

    Returns:
        uint8, height × width: 0 and 255 for the kind ``"binary"``, class indices (255 is
        void) for the kind ``"classes"``.

    Raises:
        UnusableSample: the reasons of ``decode_file`` with ``mask_`` before them, and
            ``mask_size_differs``, ``mask_values_unclear`` (the brightest value lies between
            2 and 127, so that neither 0/1 nor 0/255 can be meant),
            ``mask_non_finite_pixels``, ``mask_not_class_indices`` or
            ``mask_several_class_files``.
        ValueError: the record has no masks.
    """
    if record.mask_kind == "none" or not record.masks:
        raise ValueError(f"the record '{record.name}' has no masks to read")
    if record.mask_kind == "classes":
        if len(record.masks) > 1:
            raise UnusableSample(
                "mask_several_class_files",
                f"expected one mask of class indices, found {len(record.masks)}",
            )
        return _read_indices(record.masks[0], size, max_pixels)
    target = np.zeros(size, dtype=bool)
    for path in record.masks:
        if record.mask_classes:
            target |= np.isin(_read_indices(path, size, max_pixels), record.mask_classes)
        else:
            target |= _read_target(path, size, max_pixels)
    return target.astype(np.uint8) * np.uint8(255)


def _read_target(path: Path, size: tuple[int, int], max_pixels: int) -> np.ndarray:
    """Returns where a binary mask has its target, bool of shape ``size``."""
    decoded = _decode(path, size, max_pixels)
    pixels, name = decoded.pixels, printable(path.name)
    if pixels.mode in _GREY_MODES:
        values = np.asarray(pixels)
    else:
        values = np.asarray(convert_mode(pixels, "RGB", name)).max(axis=2)
    if not np.isfinite(values).all():
        raise UnusableSample("mask_non_finite_pixels", f"'{name}' holds NaN or infinite values")
    brightest = values.max()
    if decoded.narrowed and brightest < 128:  # 1 of 65535 has become 0
        raise UnusableSample(
            "mask_sixteen_bit_colour",
            f"'{name}' has more than 8 bits a channel in the colour mode {pixels.mode}, and no "
            "value above the middle; expected 0/255. Save the mask as 8-bit grey",
        )
    if brightest <= 1:
        return values >= (0.5 if pixels.mode == "F" else 1)
    if brightest < 128:
        raise UnusableSample(
            "mask_values_unclear",
            f"the brightest value of '{name}' is {brightest}; expected 0/1 or 0/255. "
            "Save the mask with one of these pairs",
        )
    return values >= (128 if brightest <= 255 else 32768)


def _read_indices(path: Path, size: tuple[int, int], max_pixels: int) -> np.ndarray:
    """Returns the class indices of a mask, uint8 of shape ``size``."""
    pixels = _decode(path, size, max_pixels).pixels
    values = np.asarray(pixels)
    if pixels.mode not in _INDEX_MODES or values.max() > 255 or values.min() < 0:
        raise UnusableSample(
            "mask_not_class_indices",
            f"'{printable(path.name)}' has the mode {pixels.mode}; expected a grey or palette "
            "image whose values are class indices from 0 to 255. Convert its colours to indices",
        )
    return values.astype(np.uint8)


def _decode(path: Path, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    try:
        decoded = decode_file(path, max_pixels)
    except UnusableSample as error:
        raise UnusableSample(f"mask_{error.reason}", error.detail) from error
    pixels = decoded.pixels
    if (pixels.height, pixels.width) != tuple(size):
        raise UnusableSample(
            "mask_size_differs",
            f"'{printable(path.name)}' is {pixels.width}×{pixels.height}, "
            f"its image {size[1]}×{size[0]}",
        )
    return decoded
