"""Writes the files of a phantom dataset: the same bytes for the same content."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_JPEG_QUALITY = 92

Row = Sequence[Any]
"""The cells of a table's row; None is an empty one."""


def save_png(image: Image.Image | np.ndarray, path: Path) -> None:
    """Writes an image, or an array that Pillow takes for one."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, format="PNG", compress_level=1)


def save_jpeg(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 (height, width) or (height, width, 3), and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="JPEG", quality=_JPEG_QUALITY)


def as_csv(rows: Iterable[Row]) -> str:
    """Returns a table as text; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_lines(names: Iterable[str]) -> str:
    """Returns a list of names as text, one a line."""
    return "".join(f"{name}\n" for name in names)
