"""Brings an image and its mask to one size, the same way for both."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Fit = Literal["stretch", "pad", "centre_crop"]


@dataclass(frozen=True)
class Placement:
    """Which part of the source goes where; lengths in pixels.

    Attributes:
        box: left, top, right and bottom of the part of the source; may lie between pixels.
        height: height of that part in the result.
        width: width of that part in the result.
        top: rows of padding above it.
        left: columns of padding before it.
    """

    box: tuple[float, float, float, float]
    height: int
    width: int
    top: int = 0
    left: int = 0


def reduction_for(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> int:
    """Says by how much a picture can be reduced first and is still no smaller than it will be.

    Args:
        shape: height and width of the picture in pixels.
        size: height and width of the result in pixels.
        fit: as for ``resize_image``.

    Returns:
        1, 2, 4 or 8: of the sides, as JPEG decoders can do it.
    """
    placement = plan_placement(shape, size, fit)
    left, top, right, bottom = placement.box
    shrinks = min((bottom - top) / placement.height, (right - left) / placement.width)
    return next((factor for factor in (8, 4, 2) if factor <= shrinks), 1)


def resize_image(
    array: np.ndarray,
    size: tuple[int, int],
    fit: Fit,
    shape: tuple[int, int] | None = None,
    reduction: int = 1,
) -> np.ndarray:
    """Resizes an image with the bilinear filter, antialiased where it shrinks.

    Args:
        array: uint8, height × width or height × width × 3.
        size: height and width of the result in pixels.
        fit: ``"stretch"`` to exactly ``size``; ``"pad"`` keeps the aspect and centres the
            image on black; ``"centre_crop"`` scales the shorter side to ``size`` and takes
            the centre.
        shape: height and width of the picture before it was reduced; None where it was not.
        reduction: by how much it was reduced, its last row and column then being incomplete.

    Returns:
        uint8, ``size`` or ``size`` × 3, perhaps read-only or ``array`` itself.

    Raises:
        ValueError: ``fit`` is unknown.
    """
    return _resize(array, size, fit, Image.Resampling.BILINEAR, shape, reduction)


def resize_mask(
    array: np.ndarray, size: tuple[int, int], fit: Fit, kind: Literal["binary", "classes"]
) -> np.ndarray:
    """Resizes a mask so that it stays on its image.

    A binary mask keeps the pixels of which at least half is target: it passes the same
    filter as the image and is cut at the middle (measured against the exact area, this
    errs on fewer pixels than Pillow's box filter). Class indices are never mixed: each
    pixel takes the index nearest to its centre.

    Args:
        array: uint8, height × width; 0 and 255, or class indices.
        size: height and width of the result in pixels.
        fit: as for ``resize_image``; padding is 0.
        kind: ``"binary"`` or ``"classes"``.

    Returns:
        uint8 of shape ``size``: 0 and 255, or class indices; perhaps read-only or ``array`` itself.

    Raises:
        ValueError: ``fit`` or ``kind`` is unknown.
    """
    if kind == "classes":
        return _resize(array, size, fit, Image.Resampling.NEAREST)
    if kind != "binary":
        raise ValueError(f"kind is {kind!r}; expected 'binary' or 'classes'")
    coverage = _resize(array, size, fit, Image.Resampling.BILINEAR)
    return np.where(coverage >= 128, np.uint8(255), np.uint8(0))


def restore(
    plane: np.ndarray, shape: tuple[int, int], fit: Fit, outside: float = 0.0
) -> np.ndarray:
    """Brings what a network says of a resized image back to the image's own size, bilinearly.

    Padding is cut off. Of an image that was cropped only what the network saw is filled.

    Args:
        plane: float32, of the size to which the image was brought.
        shape: height and width of the image in pixels.
        fit: by which it was brought there, as for ``resize_image``.
        outside: value of the pixels that were cropped away.

    Returns:
        float32 of ``shape``.

    Raises:
        ValueError: ``fit`` is unknown.
    """
    placement = plan_placement(shape, plane.shape, fit)
    left, top, right, bottom = placement.box
    # the pixels of the image whose centres lie in the box
    first_row, last_row = math.ceil(top - 0.5), math.ceil(bottom - 0.5)
    first_column, last_column = math.ceil(left - 0.5), math.ceil(right - 0.5)
    result = np.full(shape, outside, np.float32)
    if last_row <= first_row or last_column <= first_column:
        return result
    down, across = placement.height / (bottom - top), placement.width / (right - left)
    box = (
        max((first_column - left) * across, 0), max((first_row - top) * down, 0),
        min((last_column - left) * across, placement.width),
        min((last_row - top) * down, placement.height),
    )  # fmt: skip
    rows = slice(placement.top, placement.top + placement.height)
    columns = slice(placement.left, placement.left + placement.width)
    inner = Image.fromarray(np.ascontiguousarray(plane[rows, columns], np.float32))
    size = (last_column - first_column, last_row - first_row)
    shown = inner.resize(size, Image.Resampling.BILINEAR, box=box)
    result[first_row:last_row, first_column:last_column] = np.asarray(shown)
    return result


def plan_placement(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> Placement:
    """Says which part of a source of ``shape`` goes where in a result of ``size``.

    Args:
        shape: height and width of the source in pixels.
        size: height and width of the result in pixels.
        fit: as for ``resize_image``.

    Raises:
        ValueError: ``fit`` is unknown.
    """
    (source_height, source_width), (height, width) = shape, size
    whole = (0.0, 0.0, float(source_width), float(source_height))
    if fit == "stretch":
        return Placement(whole, height, width)
    if fit == "pad":
        scale = min(height / source_height, width / source_width)
        inner_height = min(height, max(1, round(source_height * scale)))
        inner_width = min(width, max(1, round(source_width * scale)))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        return Placement(whole, inner_height, inner_width, top, left)
    if fit == "centre_crop":
        # cropping before scaling: a long strip would become a huge image the other way round
        box_height = min(source_height, source_width * height / width)
        box_width = min(source_width, source_height * width / height)
        upper, near = (source_height - box_height) / 2, (source_width - box_width) / 2
        return Placement((near, upper, near + box_width, upper + box_height), height, width)
    raise ValueError(f"fit is {fit!r}; expected 'stretch', 'pad' or 'centre_crop'")


def _resize(
    array: np.ndarray,
    size: tuple[int, int],
    fit: Fit,
    resampling: Image.Resampling,
    shape: tuple[int, int] | None = None,
    reduction: int = 1,
) -> np.ndarray:
    placement = plan_placement(shape or array.shape[:2], size, fit)
    left, top, right, bottom = (edge / reduction for edge in placement.box)
    box = (left, top, right, bottom)
    if box == (0, 0, *array.shape[1::-1]) and array.shape[:2] == tuple(size):
        return array
    inner = np.asarray(
        Image.fromarray(array).resize((placement.width, placement.height), resampling, box=box)
    )
    if inner.shape[:2] == tuple(size):
        return inner
    result = np.zeros((*size, *array.shape[2:]), dtype=np.uint8)
    rows = slice(placement.top, placement.top + placement.height)
    columns = slice(placement.left, placement.left + placement.width)
    result[rows, columns] = inner
    return result
