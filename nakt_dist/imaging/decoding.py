"""Opens one image file that nobody vouches for: bounded, whole, and by its content alone."""

import contextlib
import errno
import io
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from nakt_dist.errors import UnusableSample, valid_unicode
from nakt_dist.imaging.dicom_recognition import is_dicom
from nakt_dist.imaging.jpeg_2000 import (
    CODESTREAM_MAGIC,
    JP2_MAGIC,
    announced_by_codestream,
    codestream_of,
)

# Classes instead of Image.open: its limit on pixels is one number for the whole process,
# and ours belongs to each call (threads share the process).
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    (re.compile(re.escape(JP2_MAGIC)), Jpeg2KImagePlugin.Jpeg2KImageFile),
    (re.compile(re.escape(CODESTREAM_MAGIC)), Jpeg2KImagePlugin.Jpeg2KImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
)
_ENDS_EARLY = re.compile(r"truncat|incomplete|end of (data|file)|requires a buffer", re.IGNORECASE)
WHOLE_NUMBER_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
WIDE_MODES = (*WHOLE_NUMBER_MODES, "F")
_PASSING_FAULTS = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.EAGAIN, errno.EINTR, errno.EHOSTDOWN, errno.ENETUNREACH,
}  # fmt: skip
"""Errors of the machine rather than of the file."""
_MAX_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed
_HEADER_BYTES = 2**20
_TIFF_KIND_OF_PAGE = 254
_TIFF_BITS = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_TILE = (322, 323)
_TIFF_NUMBERS = 339
_UNSIGNED, _SIGNED = 1, 2  # kinds of numbers
_EXIF_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class DecodedImage:
    """The first picture of a file, decoded and turned upright.

    Attributes:
        pixels: the picture in the mode the file has; nothing is left to load.
        format: ``"PNG"``, ``"JPEG"``, ``"JPEG2000"``, ``"TIFF"``, ``"BMP"``, ``"GIF"`` or
            ``"WEBP"``.
        orientation: EXIF orientation that was undone, 1 to 8.
        white_is_zero: the largest value means black and has not been inverted (wide TIFF).
        narrowed: the file has more than 8 bits in several channels, and these are the high bytes.
        size: width and height of the picture in the file, upright.
        reduction: how many of its rows and columns became one while it was decoded.
        holds_more: the file has further pictures, such as the pages of a stack.
    """

    pixels: Image.Image
    format: str
    orientation: int
    white_is_zero: bool
    narrowed: bool
    size: tuple[int, int]
    reduction: int = 1
    holds_more: bool = False


Reduce = Callable[[tuple[int, int]], int]
"""By how much a JPEG of this height and width may be reduced while it is decoded: 1, 2, 4 or 8."""


def decode_file(path: Path, max_pixels: int) -> DecodedImage:
    """Reads an image file once and decodes its first picture.

    Safe in threads and after a fork: nothing of the process is changed or locked.

    Args:
        path: PNG, JPEG, JPEG 2000, TIFF, BMP, GIF or WebP; the suffix does not matter.
        max_pixels: width × height allowed, checked before anything is decoded. The file may
            have 8 bytes for each of these pixels, and a mebibyte more.

    Raises:
        UnusableSample: ``unreadable``, ``empty_file``, ``too_many_bytes``, ``not_an_image``,
            ``too_many_pixels`` or ``truncated_image``.
    """
    return decode(read_content(path, max_pixels), valid_unicode(path.name), max_pixels)


def read_content(path: Path, max_pixels: int) -> bytes:
    """Reads an image file of whatever format.

    Raises:
        UnusableSample: ``unreadable``, ``empty_file`` or ``too_many_bytes``.
    """
    name, max_bytes = valid_unicode(path.name), most_bytes(max_pixels)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would be to wait for ever
            raise UnusableSample("unreadable", f"'{name}' is not a regular file")
        if status.st_size > max_bytes:
            raise UnusableSample(
                "too_many_bytes", f"'{name}' has {status.st_size} bytes, allowed: {max_bytes}"
            )
        with path.open("rb") as file:
            content = file.read(status.st_size)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in _PASSING_FAULTS:
            raise  # the file may be sound: to set it aside for good would lose it
        detail = getattr(error, "strerror", None) or error
        raise UnusableSample("unreadable", f"'{name}' cannot be read: {detail}") from error
    if not content:
        raise UnusableSample("empty_file", f"'{name}' has no bytes; expected an image")
    return content


def most_bytes(max_pixels: int) -> int:
    """Returns how many bytes a file may have whose picture may have so many pixels."""
    return _MAX_BYTES_PER_PIXEL * max_pixels + _HEADER_BYTES


def decode(
    content: bytes, name: str, max_pixels: int, reduce: Reduce | None = None
) -> DecodedImage:
    """Decodes the first picture of a file's bytes, as ``decode_file`` says.

    Args:
        reduce: asked of a JPEG that lies upright in its file; without it, none is reduced.

    Raises:
        UnusableSample: ``not_an_image``, ``too_many_pixels``, ``truncated_image`` or
            ``unreadable``.
    """
    reader = next((reader for magic, reader in _READERS if magic.match(content)), None)
    if reader is None and is_dicom(content):
        raise UnusableSample(
            "not_an_image",
            f"'{name}' is a DICOM file; expected an image that is none, as a mask is",
        )
    if reader is None:
        raise UnusableSample(
            "not_an_image",
            f"'{name}' begins with {content[:8]!r}; expected PNG, JPEG, JPEG 2000, TIFF, BMP, GIF, "
            "WebP or DICOM",
        )
    try:
        image = reader(io.BytesIO(content))
        width, height = image.size
        if width * height > max_pixels:
            raise UnusableSample(
                "too_many_pixels",
                f"'{name}' is {width}×{height}; expected at most {max_pixels} pixels",
            )
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiles(image, name, max_pixels)
        if image.format == "JPEG2000":
            _check_codestream(image, content, name)
        more = _holds_more(image, content)
        decoded = replace(_load(image, content, reduce), holds_more=more)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_signs(image, name)
        return decoded
    except (UnusableSample, MemoryError):
        raise
    except Exception as error:  # what a decoder raises on hostile bytes is anybody's guess
        raise _verdict(error, name) from error


def convert_mode(pixels: Image.Image, mode: str, name: str) -> Image.Image:
    """Converts a decoded picture to another of Pillow's modes.

    Raises:
        UnusableSample: ``unreadable``, where Pillow knows no way.
    """
    try:
        return pixels.convert(mode)
    except (ValueError, ImportError) as error:
        raise UnusableSample(
            "unreadable",
            f"'{name}' has the colour mode {pixels.mode}, which cannot be turned into {mode}; "
            "save it as a grey or RGB image",
        ) from error


def turn_upright(pixels: Image.Image, orientation: int) -> Image.Image:
    """Undoes an EXIF orientation, 1 to 8."""
    return pixels if orientation == 1 else pixels.transpose(_TURNS[orientation])


def _check_tiles(image: TiffImagePlugin.TiffImageFile, name: str, max_pixels: int) -> None:
    """Refuses tiles larger than a picture may be: each is decoded whole, however small that is."""
    width, height = (int(image.tag_v2.get(tag, 1)) for tag in _TIFF_TILE)
    if width * height > max_pixels:
        raise UnusableSample(
            "too_many_pixels",
            f"'{name}' has tiles of {width}×{height}; expected at most {max_pixels} pixels",
        )


def _check_codestream(image: ImageFile.ImageFile, content: bytes, name: str) -> None:
    """Refuses a JPEG 2000 picture of another size than its boxes say, which are all Pillow reads.

    Its decoder makes room for every component that the picture announces.
    """
    if not features.check("jpg_2000"):
        raise UnusableSample(
            "unreadable",
            f"'{name}' is JPEG 2000, which the Pillow installed here cannot decode; save it as "
            "PNG, or install a Pillow that was built with OpenJPEG",
        )
    announced = announced_by_codestream(codestream_of(content))
    width, height = image.size
    if announced is None or announced[:2] != (height, width) or announced.components > 4:
        found = "no size"
        if announced is not None:
            found = f"{announced.columns}×{announced.rows} of {announced.components} components"
        raise UnusableSample(
            "unreadable",
            f"'{name}': its header says {width}×{height} and its picture {found}; expected the "
            "same size and at most 4 components",
        )


def _holds_more(image: ImageFile.ImageFile, content: bytes) -> bool:
    """Says whether a file has further pictures; a smaller copy in a TIFF is none."""
    if not isinstance(image, GifImagePlugin.GifImageFile | TiffImagePlugin.TiffImageFile):
        return getattr(image, "is_animated", False)
    with contextlib.suppress(Exception):  # what follows the first picture may be damaged
        again = type(image)(io.BytesIO(content))  # to look ahead would disturb the one to be loaded
        if not again.is_animated or isinstance(again, GifImagePlugin.GifImageFile):
            return again.is_animated
        again.seek(1)  # of a TIFF, which reads its tags alone
        return not again.tag_v2.get(_TIFF_KIND_OF_PAGE, 0) & 1
    return False


def _check_signs(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    """Refuses numbers whose sign Pillow mistakes, so that dark and bright change places."""
    bits, kind = image.tag_v2.get(_TIFF_BITS, (1,)), image.tag_v2.get(_TIFF_NUMBERS, (_UNSIGNED,))
    if len(bits) != 1:
        return
    what = ""
    if (bits[0], kind[0]) == (8, _SIGNED) and np.asarray(image).max() > 127:
        what = "numbers of 8 bits with a sign, some of them negative"
    elif (bits[0], kind[0]) == (32, _UNSIGNED) and np.asarray(image).min() < 0:
        what = "numbers of 32 bits without a sign, some of them above 2147483647"
    if what:
        raise UnusableSample(
            "unreadable",
            f"'{name}' holds {what}, which Pillow reads otherwise; save it as grey of 8 or 16 bits "
            "or as floating-point numbers",
        )


def _is_narrowed(image: ImageFile.ImageFile, content: bytes) -> bool:
    """Says whether channels have more than 8 bits, of which Pillow keeps the high byte alone."""
    deep = False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = max(image.tag_v2.get(_TIFF_BITS, (1,))) > 8
    elif image.format == "PNG":
        deep = ";16" in str(image.tile[0][3])
    elif image.format == "JPEG2000":
        announced = announced_by_codestream(codestream_of(content))
        deep = announced is not None and announced.precision > 8
    return deep and image.mode not in WIDE_MODES


def _load(image: ImageFile.ImageFile, content: bytes, reduce: Reduce | None) -> DecodedImage:
    narrowed = _is_narrowed(image, content)  # loading forgets it
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns a TIFF upright while loading it, and forgets the tag
        orientation = image.tag_v2.get(_EXIF_ORIENTATION)
        white_is_zero = image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
        image.load()
        return DecodedImage(image, "TIFF", _known(orientation), white_is_zero, narrowed, image.size)
    published, reduction = image.size, 1
    if reduce is not None and image.format == "JPEG" and _exif_orientation(image) == 1:
        width, height = published
        reduction = reduce((height, width))
        image.draft(None, (max(width // reduction, 1), max(height // reduction, 1)))
    # first of all, because reading the EXIF of a damaged PNG would swallow the damage
    image.load()
    orientation = _exif_orientation(image)
    pixels = turn_upright(image, orientation)
    size = published if reduction > 1 else pixels.size
    return DecodedImage(pixels, str(image.format), orientation, False, narrowed, size, reduction)


def _exif_orientation(image: ImageFile.ImageFile) -> int:
    try:
        return _known(image.getexif().get(_EXIF_ORIENTATION))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _known(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _verdict(error: Exception, name: str) -> UnusableSample:
    # addresses in memory would make two runs write different reasons
    message = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    if isinstance(error, EOFError) or _ENDS_EARLY.search(message):
        return UnusableSample("truncated_image", f"'{name}' ends too early: {message}")
    if isinstance(error, Image.DecompressionBombError):
        return UnusableSample("too_many_pixels", f"'{name}': {message}")
    return UnusableSample("unreadable", f"'{name}' cannot be decoded: {message}")
