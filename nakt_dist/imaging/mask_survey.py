"""What one mask file holds, counted: all that is needed to judge the masks of a dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from nakt_dist.errors import UnusableSample, valid_unicode
from nakt_dist.imaging.decoding import DecodedImage, decode_file
from nakt_dist.imaging.mask_levels import (
    LOSSY_FORMATS,
    MOST_FLAT,
    Carrier,
    LevelKind,
    MaskLevels,
    flat_pixels,
    mask_levels,
)

MOST_LISTED = 12
_MOST_TOLD = 6
_LOSSY_NOISE = 12
_BLOCK = 8  # pixels; of JPEG
_NEAR_BLOCKS = 2  # colours are coded at half the resolution
_MOST_FAR = 0.05
_DARK_NOISE = 64  # of an empty mask in a JPEG
_FULL_SCALES = (255, 1023, 4095, 16383, 32767, 65535)
_MOST_MIDDLE = 0.1


class _Ends(TypedDict, total=False):
    middle: int
    bright: int
    odd: int
    flat: int
    far: int


class MaskSummary(_Ends, total=False):
    """Counts of one mask file; JSON can hold it.

    With ``problem`` (reason and detail) there is nothing else but the name. ``values`` are
    pairs of value and pixels, None where there are more than ``MOST_LISTED``. Of numbers, the
    lowest and the highest quarter of the range from 0 to ``high`` are its dark and bright end;
    ``middle`` and ``bright`` count pixels, ``odd`` those that differ from the commonest value
    of each end, and ``flat`` those of the odd ones that lie in a square of one value; ``far``
    counts pixels that are neither dark nor bright, nor noise, and far from all that is bright.
    """

    name: str
    problem: list[str]
    one_bit: bool
    lossy: bool
    white_is_zero: bool
    kind: LevelKind
    carrier: Carrier
    alpha: int
    values: list[list[float]] | None
    distinct: int
    low: float
    high: float
    pixels: int


class Meaning(NamedTuple):
    """How one mask can be read.

    Attributes:
        form: ``"constant"`` (one value), ``"pair"`` (0 and one other value), ``"soft"`` (noise
            or blurred edges around 0 and full scale), ``"dark"`` (JPEG noise around 0) or
            ``"unclear"``.
        value: of the target; of a constant mask its only one; 0 where unclear.
    """

    form: Literal["constant", "pair", "soft", "dark", "unclear"]
    value: float


def survey_mask(path: Path, max_pixels: int, as_colours: bool = False) -> MaskSummary:
    """Decodes one mask and counts what it holds; never raises for what a file holds.

    Args:
        path: of the file, which need not be sound.
        max_pixels: width × height allowed, as for ``decode_file``.

    Returns:
        The summary, or the problem that reading the mask would meet.
    """
    name = valid_unicode(path.name)
    try:
        decoded = decode_file(path, max_pixels)
    except UnusableSample as error:
        return {"name": name, "problem": [f"mask_{error.reason}", error.detail]}
    try:
        return summarise(decoded, mask_levels(decoded, name, as_colours), name)
    except UnusableSample as error:
        return {"name": name, "problem": [error.reason, error.detail]}


def summarise(decoded: DecodedImage, levels: MaskLevels, name: str) -> MaskSummary:
    """Counts the values of a decoded mask."""
    values, counts = _distinct(levels.values)
    lossy = decoded.format in LOSSY_FORMATS
    return {
        "name": name,
        "one_bit": decoded.pixels.mode == "1",
        "lossy": lossy,
        "white_is_zero": decoded.white_is_zero,
        "kind": levels.kind,
        "carrier": levels.carrier,
        "alpha": levels.alpha,
        "values": (
            [list(pair) for pair in zip(values.tolist(), counts.tolist(), strict=True)]
            if len(values) <= MOST_LISTED
            else None
        ),
        "distinct": len(values),
        "low": values[0].item(),
        "high": values[-1].item(),
        "pixels": levels.values.size,
        **_ends(levels, values, counts, lossy),
    }


def meaning(summary: MaskSummary) -> Meaning:
    """Says how a mask can be read by its own values.

    Args:
        summary: of a mask without problem.
    """
    low, high = summary["low"], summary["high"]
    dark = summary["lossy"] and low >= 0 and 0 < high < _DARK_NOISE
    if summary["distinct"] == 1 and not dark:
        value = 255 if summary["one_bit"] and high else high
        return Meaning("constant", value)
    if summary["kind"] == "colours":
        return Meaning("unclear", 0)
    if dark:
        return Meaning("dark", 0)
    full_scale = _full_scale(summary)
    if summary["distinct"] == 2 and 0 in (low, high):
        if summary["one_bit"] or (summary["lossy"] and full_scale == 255):
            return Meaning("pair", 255)
        return Meaning("pair", low or high)
    if full_scale and _has_two_ends(summary):
        return Meaning("soft", full_scale)
    return Meaning("unclear", 0)


def tell_values(summary: MaskSummary) -> str:
    """Writes which values a mask holds, such as ``"0, 1 and 255"``."""
    if summary["values"] is None or summary["distinct"] > _MOST_TOLD:
        if summary["kind"] == "colours":
            return f"{summary['distinct']} colours"
        return f"{summary['distinct']} values from {summary['low']:g} to {summary['high']:g}"
    write = write_value(summary["kind"])
    told = [write(value) for value, _ in summary["values"]]
    listed = f"{', '.join(told[:-1])} and {told[-1]}" if told[1:] else told[0]
    return f"palette indices {listed}" if summary["kind"] == "palette" else listed


def write_value(kind: LevelKind) -> Callable[[float], str]:
    """Returns what writes a value of a kind as settings spell it: ``255`` or ``#ff0000``."""
    if kind == "colours":
        return lambda value: f"#{int(value):06x}"
    return "{:.10g}".format


def _has_two_ends(summary: MaskSummary) -> bool:
    if summary["distinct"] <= 3 and not summary["lossy"]:
        return False  # a value or two beside 0 are classes or a border, not a blur
    few_between = summary["middle"] <= min(_MOST_MIDDLE * summary["pixels"], summary["bright"])
    blurred = summary["flat"] <= MOST_FLAT * summary["odd"]
    near = summary["far"] <= _MOST_FAR * summary["odd"]
    return summary["low"] >= 0 and few_between and blurred and near


def _full_scale(summary: MaskSummary) -> float:
    """Returns the full scale that the highest value comes near, or 0."""
    high = summary["high"]
    if summary["kind"] == "palette":
        return 0
    if 0.9 <= high <= 1:
        return 1
    if 192 <= high <= 255:
        return 255
    return next((scale for scale in _FULL_SCALES[1:] if 0.9 * scale <= high <= scale), 0)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values, ascending, and how many pixels have each."""
    if values.dtype in (np.uint8, np.uint16):  # counting is faster than sorting
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        return found, counts[found]
    return np.unique(values, return_counts=True)


def _ends(levels: MaskLevels, values: np.ndarray, counts: np.ndarray, lossy: bool) -> _Ends:
    if levels.kind != "numbers" or len(values) == 1:
        return {"middle": 0, "bright": 0, "odd": 0, "flat": 0, "far": 0}
    high = float(values[-1])
    dark, bright = values < 0.25 * high, values > 0.75 * high
    regular = np.zeros(len(values), dtype=bool)
    for end in (dark, bright):
        if end.any():
            common = values[np.where(end, counts, 0).argmax()]
            noise = _LOSSY_NOISE if lossy else 0
            regular |= np.abs(values.astype(np.float64) - common) <= noise
    odd = ~regular
    flat = far = 0
    if odd.any() and len(values) > 2:
        is_odd = ~np.isin(levels.values, values[regular])
        flat = int((flat_pixels(levels.values) & is_odd).sum())
        far = _count_far(levels.values, high)
    return {
        "middle": int(counts[~dark & ~bright].sum()),
        "bright": int(counts[bright].sum()),
        "odd": int(counts[odd].sum()),
        "flat": flat,
        "far": far,
    }


def _count_far(values: np.ndarray, high: float) -> int:
    """Counts pixels above the noise that no bright pixel explains, block by block.

    Blur and what JPEG does lie at the edge of the target; a picture lies everywhere.
    """
    noisy = _per_block((values > high * _LOSSY_NOISE / 255) & (values <= 0.75 * high))
    bright = _per_block(values > 0.75 * high) > 0
    near = np.zeros_like(bright)
    for down in range(-_NEAR_BLOCKS, _NEAR_BLOCKS + 1):
        for right in range(-_NEAR_BLOCKS, _NEAR_BLOCKS + 1):
            near |= _shifted(bright, down, right)
    return int(noisy[~near].sum())


def _per_block(found: np.ndarray) -> np.ndarray:
    """Returns how many pixels of each block of 8 × 8 are found."""
    rows, columns = (np.arange(0, length, _BLOCK) for length in found.shape)
    return np.add.reduceat(np.add.reduceat(found.astype(np.int32), rows, 0), columns, 1)


def _shifted(found: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = found.shape
    padded = np.pad(found, _NEAR_BLOCKS)
    top, left = _NEAR_BLOCKS - down, _NEAR_BLOCKS - right
    return padded[top : top + height, left : left + width]
