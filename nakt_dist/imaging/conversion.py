"""From a published image file to the pixels that a network sees: for ``pack`` and ``predict``."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from nakt_dist.imaging.images import (
    Colour,
    Rendering,
    SixteenBit,
    encode_image,
    read_content,
    read_image,
    reduction_for,
    resize_image,
)
from nakt_dist.imaging.resizing import Fit


class Form(Protocol):
    """How images are brought to one form, as ``nakt_dist.config.ImageConfig`` says it."""

    @property
    def height(self) -> int:
        """Rows in pixels."""

    @property
    def width(self) -> int:
        """Columns in pixels."""

    @property
    def colour(self) -> Colour:
        """Grey or RGB."""

    @property
    def fit(self) -> Fit:
        """How they are brought to the size."""

    @property
    def encoding(self) -> Literal["jpg", "png"]:
        """What they are packed as."""

    @property
    def jpeg_quality(self) -> int:
        """From 1 to 100."""

    @property
    def sixteen_bit(self) -> SixteenBit:
        """How wide values are scaled."""

    @property
    def rendering(self) -> Rendering:
        """Of DICOM files."""

    @property
    def max_pixels(self) -> int:
        """Of a file's picture."""

    @property
    def scaled_decoding(self) -> bool:
        """Whether decoders may give a fraction of a large JPEG."""


@dataclass(frozen=True)
class Converted:
    """One image, read and brought to its form.

    Attributes:
        pixels: uint8, as published and upright, perhaps reduced while it was decoded.
        info: what the file was, as ``read_image`` says.
        encoded: the image in its form, as it is packed.
    """

    content: bytes
    pixels: np.ndarray
    info: dict[str, Any]
    encoded: bytes

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the published picture, upright."""
        return self.info["height"], self.info["width"]


def convert(path: Path, form: Form) -> Converted:
    """Reads an image file and brings its picture to a form.

    Raises:
        UnusableSample: as ``read_image``.
        ConfigurationError: a DICOM file, and what reads it is not installed.
    """
    size = (form.height, form.width)
    content = read_content(path, form.max_pixels)
    reduce = functools.partial(reduction_for, size=size, fit=form.fit)
    pixels, info = read_image(
        path, form.colour, form.max_pixels, form.sixteen_bit, form.rendering,
        content, reduce if form.scaled_decoding else None,
    )  # fmt: skip
    shape, reduction = (info["height"], info["width"]), info.get("reduction", 1)
    small = resize_image(pixels, size, form.fit, shape, reduction)
    encoded = encode_image(small, form.encoding, form.jpeg_quality)
    return Converted(content, pixels, info, encoded)
