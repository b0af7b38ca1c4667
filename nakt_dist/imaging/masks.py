"""Reads the masks of an image: one uint8 array whatever the files look like."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from nakt_dist.errors import UnusableSample, valid_unicode
from nakt_dist.imaging.decoding import WHOLE_NUMBER_MODES, DecodedImage, decode_file, turn_upright
from nakt_dist.imaging.mask_levels import mask_levels
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.mask_survey import summarise

_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""

VOID = 255
"""Index, in a class mask, of pixels that are of no class."""

_INDEX_MODES = ("1", "L", "P", *WHOLE_NUMBER_MODES)


class MaskedRecord(Protocol):
    """What is to be known of an image's masks, as ``nakt_dist.sources.SourceRecord`` says it."""

    @property
    def name(self) -> str:
        """Name of the image, for messages."""

    @property
    def masks(self) -> Sequence[Path]:
        """The mask files."""

    @property
    def mask_kind(self) -> Literal["none", "binary", "classes"]:
        """What reading them gives."""

    @property
    def mask_classes(self) -> Sequence[int]:
        """Class indices that are the target; empty unless a binary mask is made of classes."""


def read_mask(
    record: MaskedRecord,
    size: tuple[int, int],
    max_pixels: int,
    rule: MaskRule,
    turn: int = 1,
    classes: int | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Reads the masks of a record.

    Binary masks: the dataset's rule says what is target. Several masks are united.

    Class masks: a grey or palette image whose values are the class indices, or where the rule
    names classes, one that holds their values.

    Args:
        record: a record with masks and no problem.
        size: height and width of its image in pixels; each mask must have the same.
        max_pixels: width × height allowed, checked before decoding.
        rule: of the dataset, from ``judge``; used where values tell the target.
        turn: EXIF orientation of the image, 1 to 8, which was undone.
        classes: how many indices of classes have a name; None where nobody says.

    Returns:
        uint8, height × width: 0 and 255 for the kind ``"binary"``, class indices (255 is
        void) for the kind ``"classes"``. And counts: pixels that are ``void`` or hold ``other``
        values than those named, both packed as background; masks that EXIF ``turned_apart``:
        otherwise than their image, and no shape shows whether they lie on it; and, where there
        are any, files that ``holds_more`` pictures than the first, which alone is read.

    Raises:
        UnusableSample: the reasons of ``decode_file`` with ``mask_`` before them, those of
            ``mask_levels``, and ``mask_size_differs``, ``mask_values_unclear`` (the rule does
            not cover the values), ``mask_not_class_indices`` or ``mask_several_class_files``.
        ValueError: the record has no masks.
    """
    if record.mask_kind == "none" or not record.masks:
        raise ValueError(f"the record '{record.name}' has no masks to read")
    if record.mask_kind == "classes" and len(record.masks) > 1:
        raise UnusableSample(
            "mask_several_class_files",
            f"expected one mask of class indices, found {len(record.masks)}",
        )
    counts = {"void": 0, "other": 0, "turned_apart": 0}
    target = np.zeros(size, dtype=bool)
    for path in record.masks:
        decoded = _decode(path, size, max_pixels, turn, rule.turn_masks)
        counts["turned_apart"] += _may_lie_otherwise(decoded.orientation, turn, size)
        name = valid_unicode(path.name)
        if decoded.holds_more:
            counts["holds_more"] = counts.get("holds_more", 0) + 1
        if record.mask_kind == "classes" and not rule.classes:
            return _indices(decoded, name, classes), counts
        if record.mask_classes:
            target |= np.isin(_indices(decoded, name, classes), record.mask_classes)
            continue
        levels = mask_levels(decoded, name, rule.needs_colours)
        summary = summarise(decoded, levels, name)
        if record.mask_kind == "classes":
            indices, more = rule.find_classes(levels, summary, VOID)
            return indices, counts | more
        found, more = rule.find_target(levels, summary)
        target |= found
        for what, count in more.items():
            counts[what] += count
    return target.astype(np.uint8) * np.uint8(255), counts


def _may_lie_otherwise(own: int, turn: int, size: tuple[int, int]) -> bool:
    """Says whether a mask that fits its image by size may still be turned otherwise."""
    if own == turn:
        return False
    # One of the two swaps rows and columns: only drawn on the turned image does it fit.
    proven = size[0] != size[1] and (own in _TRANSPOSED) != (turn in _TRANSPOSED)
    return not proven


def _indices(decoded: DecodedImage, name: str, classes: int | None) -> np.ndarray:
    """Returns the class indices of a mask, uint8 (height, width)."""
    pixels = decoded.pixels
    values = np.asarray(pixels)
    if pixels.mode not in _INDEX_MODES or values.max() > 255 or values.min() < 0:
        raise UnusableSample(
            "mask_not_class_indices",
            f"'{name}' has the mode {pixels.mode}; expected a grey or palette "
            "image whose values are class indices from 0 to 255. Convert its colours to indices",
        )
    if classes is not None:
        nameless = np.unique(values[(values >= classes) & (values != VOID)]).tolist()
        if nameless:
            raise UnusableSample(
                "mask_not_class_indices",
                f"'{name}' holds {', '.join(map(str, nameless[:5]))}; expected class indices from "
                f"0 to {classes - 1}, or {VOID} for void. A palette that became grey holds the "
                "brightness of its colours: take the masks as published",
            )
    return values.astype(np.uint8)


def _decode(
    path: Path, size: tuple[int, int], max_pixels: int, turn: int, turn_masks: bool
) -> DecodedImage:
    """Decodes a mask that fits its image, turned as the image where that is asked for."""
    try:
        decoded = decode_file(path, max_pixels)
    except UnusableSample as error:
        raise UnusableSample(f"mask_{error.reason}", error.detail) from error
    own = decoded.orientation
    if turn_masks and decoded.orientation == 1:
        decoded = replace(decoded, pixels=turn_upright(decoded.pixels, turn), orientation=turn)
    pixels = decoded.pixels
    found = (pixels.height, pixels.width)
    if found == tuple(size):
        return decoded
    detail = (
        f"'{valid_unicode(path.name)}' is {pixels.width}×{pixels.height}, "
        f"its image {size[1]}×{size[0]}"
    )
    if found == tuple(size)[::-1] and (turn in _TRANSPOSED or decoded.orientation in _TRANSPOSED):
        detail += (
            f": EXIF turns the image (orientation {turn}) otherwise than the mask (orientation "
            f"{own}). Masks drawn on images as stored need mask_values.orientation image, masks "
            "drawn on turned images need own"
        )
    raise UnusableSample("mask_size_differs", detail)
