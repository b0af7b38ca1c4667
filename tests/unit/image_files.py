"""Image files for tests, the hostile ones included."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# the magic first bytes and Pillow's name of each accepted format
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """Returns a uint8 picture whose four corners differ."""
    rows, columns = np.mgrid[0:height, 0:width]
    return ((rows * 3 + columns) % 256).astype(np.uint8)


def encoded(array: np.ndarray | Image.Image, file_format: str, **settings: object) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


def save(path: Path, array: np.ndarray | Image.Image, **settings: object) -> Path:
    """Saves a picture in the format its suffix names."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **settings)
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def bomb_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """Returns a whole, valid 1-bit PNG of this size: small to store, large to decode."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    compressor = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
