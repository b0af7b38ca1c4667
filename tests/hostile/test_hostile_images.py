"""A published folder full of hostile images: each is converted right or set aside with a reason."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.images import read_image
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.masks import read_mask
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.shards.manifest import REJECTED_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.verify import verify_folder
from nakt_dist.sources.listing import SourceRecord
from nakt_dist.stages import pack

pytestmark = pytest.mark.faults

SIDE, MOST_PIXELS = 16, 100_000
GREY = np.tile(np.arange(SIDE, dtype=np.uint8) * 16, (SIDE, 1))
COLOUR = np.stack([GREY, GREY[::-1].T, 255 - GREY], axis=2)
LUMA = np.asarray(Image.fromarray(COLOUR).convert("L"))
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
HUGE = zlib.compress(bytes(50_000_000), 9)


def encoded(image: np.ndarray | Image.Image, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, kind, **settings)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(
    *extra: bytes, width: int = SIDE, height: int = SIDE, content: bytes | None = None
) -> bytes:
    """Returns a grey PNG of zeros, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes((width + 1) * height)) if content is None else content
    end = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + end


def tiff(width: int, height: int, tile: int, content: bytes) -> bytes:
    """Returns a grey TIFF of one deflated tile, which may be larger than the picture."""
    short, long = 3, 4
    tags = [
        (256, long, width),
        (257, long, height),
        (258, short, 8),
        (259, short, 8),
        (262, short, 1),
        (277, short, 1),
        (322, long, tile),
        (323, long, tile),
        (324, long, 8 + 2 + 12 * 10 + 4),
        (325, long, len(content)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def deep_png(kind: int, channels: int, grey: np.ndarray | None = None) -> bytes:
    """Returns a PNG of 16 bits in several channels; by default its high bytes are almost black."""
    grey = GREY.astype(np.uint16) * 16 if grey is None else grey
    values = np.repeat(grey[..., None].astype(">u2"), channels, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + end


def deep_tiff() -> bytes:
    """Returns a TIFF of 16 bits a colour: one of 8 bits and twice the width, said otherwise."""
    bits, width = struct.Struct("<HHH"), struct.Struct("<HHII")
    data = encoded(np.repeat(COLOUR, 2, axis=1), "TIFF")
    data = data.replace(bits.pack(8, 8, 8), bits.pack(16, 16, 16), 1)
    return data.replace(width.pack(256, 4, 1, 2 * SIDE), width.pack(256, 4, 1, SIDE), 1)


def jpeg_of_size(width: int, height: int) -> bytes:
    """Returns a JPEG whose header announces another size than it has."""
    data = encoded(GREY, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gif_of_size(width: int, height: int) -> bytes:
    data = encoded(GREY, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def frames(kind: str) -> bytes:
    others = [Image.fromarray(np.zeros_like(GREY)), Image.fromarray(255 - GREY)]
    return encoded(GREY, kind, save_all=True, append_images=others)


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(Image.fromarray(GREY).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def transparent() -> np.ndarray:
    return np.dstack([COLOUR, np.full_like(GREY, 255)])


CONVERTED = {
    "jpeg_named.png": (encoded(GREY, "JPEG", quality=100), GREY),
    "png_named.jpg": (encoded(GREY, "PNG"), GREY),
    "gif_named.tif": (encoded(GREY, "GIF"), GREY),
    "palette.png": (encoded(Image.fromarray(GREY).convert("P"), "PNG"), GREY),
    "palette_transparent.gif": (encoded(GREY, "GIF", transparency=0), GREY),
    "cmyk.jpg": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=100), LUMA),
    "cmyk.tif": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"), LUMA),
    "sixteen_bits.png": (encoded(GREY.astype(np.uint16) * 17, "PNG"), GREY * (255 / 240)),
    "sixteen_bits.tif": (encoded(GREY.astype(np.uint16) * 17, "TIFF"), GREY * (255 / 240)),
    "one_bit.png": (encoded(GREY > 127, "PNG"), 255 * (GREY > 127)),
    "one_bit.tif": (encoded(GREY > 127, "TIFF"), 255 * (GREY > 127)),
    "grey_alpha.png": (encoded(Image.fromarray(GREY).convert("LA"), "PNG"), GREY),
    "colour_alpha.png": (encoded(transparent(), "PNG"), LUMA),
    "colour_alpha.webp": (encoded(transparent(), "WEBP", lossless=True), LUMA),
    "first_of_three.gif": (frames("GIF"), GREY),
    "first_of_three.png": (frames("PNG"), GREY),
    "first_of_three.tif": (frames("TIFF"), GREY),
    "first_of_three.webp": (
        encoded(
            GREY, "WEBP", lossless=True, save_all=True, append_images=[Image.new("L", (16, 16))]
        ),
        GREY,
    ),
    "turned_by_exif.png": (turned(), GREY),
    "more_after_the_pixels.png": (png(content=HUGE), np.zeros_like(GREY)),
    "more_after_the_end.jpg": (encoded(GREY, "JPEG", quality=100) + b"PK\x03\x04", GREY),
    "tiles.tif": (tiff(SIDE, SIDE, SIDE, zlib.compress(GREY.tobytes())), GREY),
}
"""By file name the bytes, and the grey picture that they are."""

SET_ASIDE = {
    "empty.png": (b"", "empty_file"),
    "text.png": (b"GIF89 is not a picture", "not_an_image"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "not_an_image"),
    "program.png": (b"\x7fELF" + bytes(100), "not_an_image"),
    "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "postscript.tif": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    "cut.png": (encoded(NOISE, "PNG")[:200], "truncated_image"),
    "cut.jpg": (encoded(COLOUR, "JPEG")[:-60], "truncated_image"),
    "cut.gif": (encoded(GREY, "GIF")[:-20], None),
    "huge.png": (png(width=60_000, height=60_000, content=b""), "too_many_pixels"),
    "huge.jpg": (jpeg_of_size(65_500, 65_500), "too_many_pixels"),
    "huge.gif": (gif_of_size(65_535, 65_535), "too_many_pixels"),
    "huge.tif": (tiff(60_000, 60_000, 16, b""), "too_many_pixels"),
    "huge_tiles.tif": (tiff(SIDE, SIDE, 4096, zlib.compress(bytes(4096**2))), "too_many_pixels"),
    "endless_tiles.tif": (tiff(SIDE, SIDE, 2**31, b"x"), "too_many_pixels"),
    "no_width.png": (png(width=0, content=b""), None),
    "text_bomb.png": (png(chunk(b"zTXt", b"a\0\0" + HUGE)), "unreadable"),
    "international_text_bomb.png": (png(chunk(b"iTXt", b"a\0\1\0\0\0" + HUGE)), "unreadable"),
    "profile_bomb.png": (png(chunk(b"iCCP", b"a\0\0" + HUGE)), "unreadable"),
    "wrong_checksum.png": (png()[:-20] + b"\0\0\0\0" + png()[-16:], None),
    "deep_grey_alpha.png": (deep_png(4, 2), "sixteen_bit_colour"),
    "deep_colour.png": (deep_png(2, 3), "sixteen_bit_colour"),
    "deep_colour_alpha.png": (deep_png(6, 4), "sixteen_bit_colour"),
    "deep_colour.tif": (deep_tiff(), "sixteen_bit_colour"),
    "not_a_number.tif": (encoded(np.full((4, 4), np.nan, np.float32), "TIFF"), "non_finite_pixels"),
}
"""By file name the bytes, and the reason; None where decoders of other versions differ."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """All of them, and an honest image, packed in one go."""
    folder = tmp_path_factory.mktemp("hostile_images")
    source = folder / "published"
    source.mkdir()
    for name, (content, _) in {**CONVERTED, **SET_ASIDE}.items():
        (source / name).write_bytes(content)
    Image.fromarray(GREY).save(source / "honest.png")
    os.mkfifo(source / "pipe.png")
    (source / "outside.png").symlink_to("/etc/passwd")
    pack.run(
        PackConfig(
            layout="image_folder",
            source=str(source),
            output=str(folder / "packed"),
            image=ImageConfig(height=SIDE, width=SIDE, encoding="png", max_pixels=MOST_PIXELS),
            masks=False,
            splits=SplitConfig(fractions={"train": 1.0}),
            workers=1,
        )
    )
    return folder / "packed"


@pytest.fixture(scope="module")
def images(packed) -> dict[str, np.ndarray]:
    """The packed pictures by the names of their sources."""
    dataset = IndexedShards(packed)
    sources = dataset.index["source"].to_pylist()
    return {name: decode_pixels(dataset.image_bytes(n))[0] for n, name in enumerate(sources)}


@pytest.fixture(scope="module")
def rejected(packed) -> dict[str, dict[str, str]]:
    rows = pq.read_table(packed / REJECTED_NAME).to_pylist()
    return {row["source"]: row for row in rows}


@pytest.mark.parametrize("name", CONVERTED)
def test_an_unusual_image_is_packed_as_the_picture_it_is(images, name):
    expected = np.asarray(CONVERTED[name][1], dtype=float)
    assert images[name].shape == expected.shape
    assert np.abs(images[name] - expected).max() <= 3  # what JPEG and CMYK lose


@pytest.mark.parametrize("name", SET_ASIDE)
def test_a_hostile_image_is_set_aside_with_its_reason(images, rejected, name):
    assert name not in images
    reason = SET_ASIDE[name][1]
    assert reason in (None, rejected[name]["reason"])
    assert name in rejected[name]["detail"]


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_deep_colour_counts_where_its_high_bytes_say_all(tmp_path, kind, channels):
    path, target = tmp_path / "a.png", GREY > 128
    mask = SourceRecord("a", path, masks=(path,), mask_kind="binary")
    path.write_bytes(deep_png(kind, channels, 65535 * target))
    rule = MaskRule(targets=(255,))
    assert (read_mask(mask, GREY.shape, GREY.size, rule)[0] == 255 * target).all()
    path.write_bytes(deep_png(kind, channels, 1 * target))
    with pytest.raises(UnusableSample) as caught:
        read_mask(mask, GREY.shape, GREY.size, rule)
    assert caught.value.reason == "mask_sixteen_bit_colour"
    path.write_bytes(deep_png(kind, channels, GREY.astype(np.uint16) * 257))
    pixels, facts = read_image(path, "rgb", GREY.size, "full_range")
    assert facts["range"] == [0, 65535]
    if kind == 2:  # without transparency
        assert (pixels == GREY[..., None]).all()


def test_pipes_and_links_out_of_the_folder_are_set_aside_unopened(rejected):
    assert rejected["pipe.png"]["reason"] == "not_a_file"
    assert rejected["outside.png"]["reason"] == "link_outside_root"


def test_the_packing_goes_on_and_its_sums_hold(packed, images, rejected):
    assert np.array_equal(images["honest.png"], GREY)
    assert len(images) == len(CONVERTED) + 1
    assert len(rejected) == len(SET_ASIDE) + 2
    counts = ShardManifest.read(packed).counts
    assert (counts["packed"], counts["rejected"]) == (len(images), len(rejected))
    assert list(verify_folder(packed)) == []
