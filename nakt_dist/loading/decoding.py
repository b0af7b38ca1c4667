"""From the bytes of a shard to pixels in a batch, in threads that run beside each other."""

import contextlib
import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.packed import decode_pixels

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PLAIN_GREY_OR_COLOUR = ((8, 0), (8, 2))  # bits of a channel, and PNG's kind of colour
_FRAMES = (0xC0, 0xC1, 0xC2)  # JPEG's markers of Huffman-coded frames
_BEFORE_FRAME = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # of segments with a length
_UNCHANGED = 0  # torchvision's ImageReadMode


def decode_into(data: bytes, pixels: np.ndarray) -> None:
    """Decodes a JPEG or PNG to where its pixels are wanted.

    Torchvision's decoders let other threads go on meanwhile, Pillow's do not. The usual kinds of
    image are theirs; the rest, and what they refuse, is Pillow's. The pixels are the same.

    Args:
        pixels: uint8 (C, H, W), to be filled.

    Raises:
        UnusableSample: it does not decode, or has another size or number of channels.
    """
    # A few bytes can announce an image that fills the memory: the header is read first.
    if (name := _decoder_of(data, pixels.shape)) and (decode := _decoders().get(name)):
        with contextlib.suppress(RuntimeError):  # Pillow says what is wrong with it
            found = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), _UNCHANGED)
            pixels[:] = found.numpy()
            return
    channels, height, width = pixels.shape
    decoded = decode_pixels(data, (height, width))
    if len(decoded) != channels:
        raise UnusableSample(
            "wrong_channels", f"has {len(decoded)} channels, expected {channels} as in the manifest"
        )
    pixels[:] = decoded


def _decoder_of(data: bytes, shape: tuple[int, ...]) -> str | None:
    """Names what decodes an image whose header states this shape; None where it does not."""
    if data.startswith(_PNG_START) and len(data) > 25:
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        is_plain = (data[24], data[25]) in _PLAIN_GREY_OR_COLOUR
        channels = 3 if data[25] else 1
        return "decode_png" if is_plain and (channels, height, width) == shape else None
    return "decode_jpeg" if _jpeg_shape(data) == shape else None


def _jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """Returns channels, height and width as the frame's header states them; None without one."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _FRAMES:
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            return data[place + 9], height, int.from_bytes(data[place + 7 : place + 9], "big")
        if marker not in _BEFORE_FRAME:  # where its segment ends, a decoder may see otherwise
            return None
        place += 2 + length
    return None


@functools.cache
def _decoders() -> dict[str, Callable[[torch.Tensor, int], torch.Tensor]]:
    """Loads torchvision's decoders alone: all of torchvision takes two seconds to import."""
    spec = find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        with contextlib.suppress(OSError, StopIteration, AttributeError):
            torch.ops.load_library(str(next(Path(folder).glob("image*.so"))))
            operators = torch.ops.image
            return {name: getattr(operators, name) for name in ("decode_jpeg", "decode_png")}
    return {}
