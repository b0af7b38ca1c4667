import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.decoding import _decoder_of, _decoders, decode_into


def encoded(pixels, kind="PNG", mode=None, **settings):
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind, **settings)
    return stream.getvalue()


def random_pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_a_grey_png_gives_its_pixels_as_one_channel():
    pixels = random_pixels(5, 7)
    found = decode_pixels(encoded(pixels))
    assert (found.dtype, found.shape) == (np.uint8, (1, 5, 7))
    assert np.array_equal(found[0], pixels)


def test_a_colour_png_gives_its_channels_first():
    pixels = random_pixels(5, 7, 3)
    found = decode_pixels(encoded(pixels))
    assert found.shape == (3, 5, 7)
    assert np.array_equal(found.transpose(1, 2, 0), pixels)
    assert found.flags["C_CONTIGUOUS"]


def test_a_jpeg_gives_what_pillow_decodes():
    data = encoded(random_pixels(16, 16), "JPEG", quality=90)
    assert np.array_equal(decode_pixels(data)[0], np.asarray(Image.open(io.BytesIO(data))))


def test_sixteen_bits_are_reduced_to_the_upper_eight():
    pixels = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert decode_pixels(encoded(pixels)).tolist() == [[[0, 0, 1, 255]]]


def test_transparency_is_dropped_and_palettes_become_colour():
    pixels = random_pixels(4, 4, 4)
    assert np.array_equal(decode_pixels(encoded(pixels)), pixels[..., :3].transpose(2, 0, 1))
    assert decode_pixels(encoded(random_pixels(4, 4, 3), mode="P")).shape == (3, 4, 4)


def test_a_one_bit_mask_becomes_0_and_255():
    found = decode_pixels(encoded(np.array([[True, False]])))
    assert found.tolist() == [[[255, 0]]]


def bomb(side=30_000):
    """A PNG that announces side × side pixels and holds none."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encoded(random_pixels(16, 16))[:60],
        encoded(random_pixels(64, 64), "JPEG")[:400],
        encoded(random_pixels(4, 4), "GIF"),
        encoded(random_pixels(4, 4), "TIFF"),
    ],
    ids=["empty", "text", "cut_png", "cut_jpeg", "gif", "tiff"],
)
def test_what_does_not_decode_is_told_as_an_unusable_sample(data):
    with pytest.raises(UnusableSample) as caught:
        decode_pixels(data)
    assert caught.value.reason == "undecodable"


def test_an_image_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(UnusableSample, match="decompression bomb"):
        decode_pixels(bomb())


def test_the_expected_size_is_compared_before_decoding():
    data = encoded(random_pixels(5, 7))
    assert decode_pixels(data, (5, 7)).shape == (1, 5, 7)
    for wrong in (data, bomb(side=9_000)):  # the second holds no pixel to decode
        with pytest.raises(UnusableSample, match="expected 7×5") as caught:
            decode_pixels(wrong, (7, 5))
        assert caught.value.reason == "wrong_size"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_without_an_expected_size_a_hundred_million_pixels_are_the_most():
    with pytest.raises(UnusableSample, match="10001×10001 pixels, expected at most") as caught:
        decode_pixels(bomb(side=10_001))
    assert caught.value.reason == "wrong_size"
    with pytest.raises(UnusableSample, match="does not decode"):
        decode_pixels(bomb(side=9_000))


KINDS = {
    "grey_jpeg": ((33, 21), "JPEG", {}),
    "progressive_jpeg": ((33, 21), "JPEG", {"progressive": True}),
    "colour_jpeg": ((33, 21, 3), "JPEG", {"subsampling": 0}),
    "subsampled_jpeg": ((33, 21, 3), "JPEG", {"subsampling": 2, "progressive": True}),
    "jpeg_in_red_green_blue": ((33, 21, 3), "JPEG", {"keep_rgb": True}),
    "grey_png": ((33, 21), "PNG", {}),
    "colour_png": ((33, 21, 3), "PNG", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_threads_decode_the_pixels_that_pillow_decodes(kind):
    shape, form, settings = KINDS[kind]
    data = encoded(random_pixels(*shape), form, **settings)
    expected = decode_pixels(data)
    assert _decoder_of(data, expected.shape) in _decoders(), "Pillow would have done it"
    found = np.zeros_like(expected)
    decode_into(data, found)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "data",
    [
        encoded(random_pixels(16, 16), mode="1"),
        encoded(random_pixels(16, 16).astype(np.uint16) * 256),
        encoded(random_pixels(16, 16, 3), "JPEG", mode="CMYK"),
    ],
    ids=["one_bit", "sixteen_bits", "cmyk"],
)
def test_other_kinds_are_left_to_pillow(data):
    expected = decode_pixels(data)
    assert _decoder_of(data, expected.shape) is None
    found = np.zeros_like(expected)
    decode_into(data, found)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_what_is_cut_short_is_an_unusable_sample_in_threads_too(form):
    data = encoded(random_pixels(64, 64), form)
    for size in (1, 10, 16, 24, 25, 30, len(data) // 2, len(data) - 30):
        with pytest.raises(UnusableSample) as caught:
            decode_into(data[:size], np.zeros((1, 64, 64), np.uint8))
        assert caught.value.reason == "undecodable"


def test_the_size_and_channels_in_the_header_are_compared_before_decoding():
    for wrong in (encoded(random_pixels(5, 7)), bomb(side=9_000)):
        with pytest.raises(UnusableSample, match="expected 7×5"):
            decode_into(wrong, np.zeros((1, 7, 5), np.uint8))
    with pytest.raises(UnusableSample, match="has 1 channels, expected 3"):
        decode_into(encoded(random_pixels(5, 7)), np.zeros((3, 5, 7), np.uint8))


@pytest.mark.parametrize(
    "unusual", [b"\xff\xff\xfe\x00\x02", b"\xff\x01"], ids=["fill", "no_length"]
)
def test_no_second_header_hides_how_large_a_jpeg_is(unusual):
    data = b"\xff\xd8" + unusual + encoded(np.zeros((300, 200), np.uint8), "JPEG")[2:]
    place = 4 + int.from_bytes(data[4:6], "big")  # of the next segment, to one who takes a length
    small = b"\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"
    assert len(data) < place
    data = data.ljust(place, b"\0") + small
    assert _decoder_of(data, (1, 8, 8)) is None
    with pytest.raises(UnusableSample, match=r"has 300×200 pixels|does not decode"):
        decode_into(data, np.zeros((1, 8, 8), np.uint8))


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_no_bytes_break_the_reading_of_a_header(data, start):
    with pytest.raises(UnusableSample):
        decode_into(start + data, np.zeros((1, 4, 4), np.uint8))
