"""What the pixels of a mask file say: one number, palette index or colour for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.decoding import WIDE_MODES, DecodedImage, convert_mode

LevelKind = Literal["numbers", "palette", "colours"]
Carrier = Literal["colour", "alpha", "neither"]

LOSSY_FORMATS = ("JPEG", "WEBP")
_GREY_MODES = ("1", "L", *WIDE_MODES)
_SIXTEEN_BIT_MAX = 65535
_FEW_COLOURS = 12  # more than a drawing program leaves of a blurless mask of one hue
_SAME_HUE_FEW = 16  # rounding of blurred edges
_SAME_HUE_MANY = 48  # what JPEG does to a colour at its edge
_MOST_OFF_HUE = 0.02
_MOST_COUNTED = 2**16
_TO_CODE = np.array([65536, 256, 1], np.int32)
MOST_FLAT = 0.5
"""Share of noise and blur that may lie in squares of one value; of areas, almost all does."""


@dataclass(frozen=True)
class MaskLevels:
    """The values of a mask, before anything is decided about them.

    Attributes:
        values: (height, width); integers or floating-point numbers as stored for ``"numbers"``
            (of a picture in one hue, the brightest channel), indices for ``"palette"``,
            0xRRGGBB for ``"colours"``.
        carrier: where they stand: in the colours or in the transparency; ``"neither"`` where
            both are the same all over, and the values are those of the colours.
        alpha: the one value of a transparency that does not vary, 0 to 255.
    """

    values: np.ndarray
    kind: LevelKind
    carrier: Carrier = "colour"
    alpha: int = 255


def mask_levels(decoded: DecodedImage, name: str, as_colours: bool = False) -> MaskLevels:
    """Reduces a decoded mask to one value for each pixel.

    A MinIsWhite TIFF gives what a viewer shows. A palette whose first entry is black gives its
    indices, unless its entries are grey levels. Transparency counts where the colour is the
    same all over; otherwise the mask is shown over black.

    Args:
        as_colours: give 0xRRGGBB for every file that is not grey.

    Raises:
        UnusableSample: ``mask_non_finite_pixels``, ``mask_sixteen_bit_colour`` (more than 8 bits
            a channel of which the high ones say nothing), ``mask_values_unclear`` (the
            transparency contradicts the colours, or white is 0 in 32 bits) or ``unreadable``.
    """
    pixels = decoded.pixels
    if pixels.mode in _GREY_MODES:
        return MaskLevels(_grey_values(decoded, name), "numbers")
    lossy = decoded.format in LOSSY_FORMATS
    if pixels.has_transparency_data:
        levels = _with_transparency(pixels, name, lossy, as_colours)
    elif pixels.mode == "P" and not as_colours:
        levels = _palette_levels(pixels, lossy)
    else:
        levels = _colour_levels(np.asarray(convert_mode(pixels, "RGB", name)), lossy, as_colours)
    if decoded.narrowed and _brightest(levels) < 128:  # 1 of 65535 has become 0
        raise UnusableSample(
            "mask_sixteen_bit_colour",
            f"'{name}' has more than 8 bits a channel in the colour mode {pixels.mode}, and no "
            "value above the middle; expected 0/255. Save the mask as 8-bit grey",
        )
    return levels


def flat_pixels(values: np.ndarray) -> np.ndarray:
    """Returns which pixels lie in a 2 × 2 square of one value, bool of the same shape.

    Areas of a class do; the edges of a blurred mask and the noise of JPEG hardly ever.
    """
    flat = np.zeros(values.shape, dtype=bool)
    corner = values[:-1, :-1]
    square = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            flat[rows, columns] |= square
    return flat


def _grey_values(decoded: DecodedImage, name: str) -> np.ndarray:
    pixels = decoded.pixels
    values = np.asarray(pixels)
    if pixels.mode == "1":
        return values.astype(np.uint8)
    if not np.isfinite(values).all():
        raise UnusableSample("mask_non_finite_pixels", f"'{name}' holds NaN or infinite values")
    if not decoded.white_is_zero or pixels.mode not in WIDE_MODES:
        return values  # Pillow turns those of 8 bits itself
    if pixels.mode in ("I", "F"):
        raise UnusableSample(
            "mask_values_unclear",
            f"'{name}' is a MinIsWhite TIFF of 32 bits, which does not say what is black. "
            "Save it as 8-bit grey",
        )
    return (_SIXTEEN_BIT_MAX - values.astype(np.int64)).astype(np.uint16)


def _with_transparency(pixels: Image.Image, name: str, lossy: bool, as_colours: bool) -> MaskLevels:
    rgba = np.asarray(convert_mode(pixels, "RGBA", name))
    colours, alpha = rgba[..., :3], rgba[..., 3]
    varies = (colours != colours[0, 0]).any()
    if alpha.min() == alpha.max():
        if pixels.mode == "P" and alpha[0, 0] == 255 and not as_colours:
            return _palette_levels(pixels, lossy)
        levels = _colour_levels(colours, lossy, as_colours)
        carrier: Carrier = "colour" if varies else "neither"
        return MaskLevels(levels.values, levels.kind, carrier, int(alpha[0, 0]))
    if not varies:
        return MaskLevels(alpha, "numbers", "alpha")
    coloured, visible = colours.any(axis=2), alpha >= 128
    if (coloured & ~visible).any() and (visible & ~coloured).any():
        raise UnusableSample(
            "mask_values_unclear",
            f"'{name}' has transparent pixels that hold a colour and visible ones that are black; "
            "either may be the target. Save it without transparency",
        )
    shown = (colours.astype(np.uint16) * alpha[..., None] + 127) // 255
    levels = _colour_levels(shown.astype(np.uint8), lossy, as_colours)
    return MaskLevels(levels.values, levels.kind)


def _palette_levels(pixels: Image.Image, lossy: bool) -> MaskLevels:
    indices = np.asarray(pixels)
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(pixels.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    colours = palette[used]
    told_apart = len(np.unique(colours, axis=0)) == len(used)
    if told_apart and (colours == colours[:, :1]).all():
        return MaskLevels(palette[:, 0][indices], "numbers")
    if told_apart and palette[0].any():  # entries in any order, as programs that save space do
        return _colour_levels(palette[indices], lossy, as_colours=False)
    return MaskLevels(indices, "palette")


def _colour_levels(colours: np.ndarray, lossy: bool, as_colours: bool) -> MaskLevels:
    """Returns grey levels, the brightness of the one hue, or colours; uint8 (H, W, 3) goes in."""
    red, green, blue = (colours[..., channel] for channel in range(3))
    brightness = np.maximum(np.maximum(red, green), blue)  # far faster than along the last axis
    spread = brightness - np.minimum(np.minimum(red, green), blue)
    if spread.max() <= (8 if lossy else 0):
        return MaskLevels(brightness, "numbers")
    if not as_colours and _one_hue(colours):
        return MaskLevels(brightness, "numbers")
    return MaskLevels(colours.astype(np.int32) @ _TO_CODE, "colours")


def _one_hue(colours: np.ndarray) -> bool:
    """Says whether all colours are black or shades of one: a target and its blurred edge."""
    listed = Image.fromarray(colours).getcolors(_MOST_COUNTED)  # counting is faster than sorting
    if listed is None:
        return False  # a picture
    counts = np.array([count for count, _ in listed])
    channels = np.array([colour for _, colour in listed], np.int32)
    distinct = channels @ _TO_CODE
    bright = channels.max(axis=1)
    strongest = np.where(bright >= 0.75 * bright.max(), counts, 0).argmax()
    hue = channels[strongest].astype(np.float32) / bright[strongest]
    few = len(distinct) <= _FEW_COLOURS
    allowed = _SAME_HUE_FEW if few else _SAME_HUE_MANY
    off_colour = np.abs(channels - bright[:, None] * hue).max(axis=1) > allowed
    if few or not off_colour.any():
        return not off_colour.any()
    codes = colours.astype(np.int32) @ _TO_CODE
    off = np.isin(codes, distinct[off_colour])
    flat = (flat_pixels(codes) & off).sum()
    return off.mean() <= _MOST_OFF_HUE and flat <= MOST_FLAT * off.sum()


def _brightest(levels: MaskLevels) -> int:
    if levels.kind == "colours":
        return max(int((levels.values >> shift & 255).max()) for shift in (0, 8, 16))
    return int(levels.values.max())
