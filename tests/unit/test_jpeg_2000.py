"""JPEG 2000 outside of DICOM, and the rarer suffixes of JPEG files."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import features

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging import decoding
from nakt_dist.imaging.images import read_image
from nakt_dist.imaging.jpeg_2000 import announced_by_codestream, codestream_of
from nakt_dist.sources import scan_source
from tests.unit.image_files import encoded, gradient

needs_openjpeg = pytest.mark.skipif(
    not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG"
)
GREY = gradient(24, 30)
COLOURS = np.stack([GREY, 255 - GREY, GREY // 3], axis=2)
NOT_BOXED = {"no_jp2": True}


def problem_of(tmp_path: Path, content: bytes, max_pixels: int = 10_000) -> UnusableSample:
    path = tmp_path / "a.jp2"
    path.write_bytes(content)
    with pytest.raises(UnusableSample) as caught:
        read_image(path, "grey", max_pixels, "min_max")
    assert "'a.jp2'" in caught.value.detail
    return caught.value


@needs_openjpeg
@pytest.mark.parametrize("boxes", [{}, NOT_BOXED])
def test_a_picture_is_read_with_and_without_boxes(tmp_path: Path, boxes: dict) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(encoded(GREY, "JPEG2000", **boxes))
    pixels, info = read_image(path, "grey", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, GREY)
    assert (info["format"], info["width"], info["height"]) == ("JPEG2000", 30, 24)
    path.write_bytes(encoded(COLOURS, "JPEG2000", **boxes))
    pixels, _ = read_image(path, "rgb", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, COLOURS)


@needs_openjpeg
def test_sixteen_bits_of_grey_are_scaled_and_of_colour_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(encoded(GREY.astype(np.uint16) * 200, "JPEG2000"))
    pixels, info = read_image(path, "grey", 10_000, "min_max")
    assert info["scaling"] == "min_max"
    assert info["range"] == [int(GREY.min()) * 200, int(GREY.max()) * 200]
    assert (pixels.min(), pixels.max()) == (0, 255)
    deep = bytearray(encoded(COLOURS, "JPEG2000"))
    for number in range(3):
        at = deep.index(b"\xff\x4f\xff\x51") + 42 + 3 * number
        assert deep[at] == 7
        deep[at] = 15
    assert problem_of(tmp_path, bytes(deep)).reason == "sixteen_bit_colour"


@needs_openjpeg
def test_a_large_picture_is_not_decoded(tmp_path: Path) -> None:
    content = encoded(GREY, "JPEG2000")
    assert problem_of(tmp_path, content, max_pixels=719).reason == "too_many_pixels"
    codestream = bytearray(encoded(GREY, "JPEG2000", **NOT_BOXED))
    codestream[8:16] = struct.pack(">II", 60_000, 60_000)
    assert problem_of(tmp_path, bytes(codestream)).reason == "too_many_pixels"


@needs_openjpeg
@pytest.mark.parametrize(("at", "number"), [(8, 60_000), (12, 60_000), (8, 31), (40, 16384 << 16)])
def test_a_picture_of_another_size_than_its_boxes_say_is_not_decoded(
    tmp_path: Path, at: int, number: int
) -> None:
    content = bytearray(encoded(GREY, "JPEG2000"))
    start = content.index(b"\xff\x4f\xff\x51")
    kept = content[start + at + 2 : start + at + 4]
    content[start + at : start + at + 4] = struct.pack(">I", number)
    if at == 40:  # the number of components has two bytes
        content[start + at + 2 : start + at + 4] = kept
    problem = problem_of(tmp_path, bytes(content))
    assert problem.reason == "unreadable"
    assert at == 40 or "its header says 30×24" in problem.detail


@needs_openjpeg
def test_a_picture_that_is_cut_is_set_aside(tmp_path: Path) -> None:
    content = encoded(
        np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8), "JPEG2000"
    )
    for end in (len(content) // 2, 90, 30, 12):
        assert problem_of(tmp_path, content[:end]).reason in ("unreadable", "truncated_image")


def test_without_its_decoder_the_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(GREY, "JPEG2000")
    monkeypatch.setattr(decoding.features, "check", lambda name: False)
    problem = problem_of(tmp_path, content)
    assert problem.reason == "unreadable"
    assert "JPEG 2000" in problem.detail
    assert "OpenJPEG" in problem.detail


def test_what_a_codestream_announces() -> None:
    boxed, bare = encoded(COLOURS, "JPEG2000"), encoded(COLOURS, "JPEG2000", **NOT_BOXED)
    assert codestream_of(bare) is bare
    assert tuple(announced_by_codestream(codestream_of(boxed))) == (24, 30, 3, 8)
    assert announced_by_codestream(b"\xff\x4f\xff\x51") is None
    assert announced_by_codestream(b"\xff\xd8" + bytes(60)) is None
    assert codestream_of(boxed[:40]) == b""


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".JFIF", ".JPE", ".JP2"])
def test_the_rarer_suffixes_are_those_of_images(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(encoded(GREY, "JPEG", quality=100))
    (tmp_path / "a_mask.png").write_bytes(encoded(GREY > 100, "PNG"))
    (record,) = scan_source("image_folder", tmp_path, {}).records
    assert (record.name, len(record.masks), record.problem) == (f"a{suffix}", 1, None)
    pixels, info = read_image(record.image, "grey", 10_000, "min_max")
    assert np.abs(pixels.astype(int) - GREY).max() <= 3
    assert info["format"] == "JPEG"
