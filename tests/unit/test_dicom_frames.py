"""DICOM files whose picture, or whole content, is compressed, and those in big-endian order."""

import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.imaging.images import read_image
from tests.unit.image_files import encoded, gradient

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pylibjpeg")

from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import convert_color_space  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.unit.dicom_files import (  # noqa: E402
    RAMP,
    bytes_of,
    dataset_of,
    problem_of,
    read,
    run_lengths,
)

COLOURS = np.stack([gradient(21, 31), 255 - gradient(21, 31), gradient(21, 31) // 3], axis=2)


def in_boxes(codestream: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """Returns a JP2 file with the given boxes before the picture."""
    boxes = [(b"jP  ", b"\r\n\x87\n"), *before, (b"jp2c", codestream)]
    return b"".join(struct.pack(">I", len(data) + 8) + kind + data for kind, data in boxes)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("values", [gradient(40, 64), RAMP * 16, COLOURS], ids=["8", "16", "rgb"])
def test_a_jpeg_2000_picture_in_jp2_boxes_is_read(tmp_path: Path, values: np.ndarray) -> None:
    photometric = "MONOCHROME2" if values.ndim == 2 else "RGB"
    bits = values.dtype.itemsize * 8
    boxed = encoded(values, "JPEG2000", no_jp2=False)
    assert boxed[4:8] == b"jP  "
    ds = dataset_of(values, bits, photometric, PixelData=encapsulate([boxed]))
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "full_range", syntax=JPEG2000Lossless)
    expected = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    assert np.abs(pixels - expected / (2.0**bits - 1) * 255).max() <= 0.5


@pytest.mark.parametrize("length", [0, 1])
def test_boxes_may_reach_to_the_end_or_have_a_long_length(tmp_path: Path, length: int) -> None:
    values = gradient(40, 64)
    codestream = encoded(values, "JPEG2000", no_jp2=True)
    boxed = in_boxes(codestream, (b"ftyp", b"jp2 \0\0\0\0jp2 "))
    at = boxed.index(b"jp2c") - 4
    long = struct.pack(">Q", len(codestream) + 16) if length == 1 else b""
    boxed = boxed[:at] + struct.pack(">I", length) + b"jp2c" + long + codestream
    ds = dataset_of(values, 8, PixelData=encapsulate([boxed]))
    np.testing.assert_array_equal(read(tmp_path, ds, syntax=JPEG2000Lossless)[0], values)


@pytest.mark.parametrize(
    "frame",
    [
        in_boxes(b"", (b"free", b"")),
        in_boxes(encoded(np.zeros((300, 400), np.uint8), "JPEG2000", no_jp2=True)),
        in_boxes(encoded(np.zeros((20, 30, 3), np.uint8), "JPEG2000", no_jp2=True)),
        b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x02jp2c",
        b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x01jp2h" + b"\0" * 8,
        b"\xff\x4f\xff\x51",
    ],
    ids=["empty", "larger", "colours", "short_box", "endless_box", "cut"],
)
def test_boxes_with_another_picture_than_announced_are_not_decoded(frame: bytes) -> None:
    ds = dataset_of(gradient(20, 30), 8, PixelData=encapsulate([frame + b"\0" * (len(frame) % 2)]))
    problem = problem_of(bytes_of(ds, JPEG2000Lossless))
    assert problem.reason == "unreadable"
    assert "30×20" in problem.detail


@pytest.mark.parametrize(
    "values", [gradient(21, 31), RAMP, RAMP.astype(np.uint32), RAMP.astype(np.int16) - 2048]
)
def test_run_lengths_are_read(tmp_path: Path, values: np.ndarray) -> None:
    bits = 8 if values.dtype == np.uint8 else 12
    plain, info = read(tmp_path, dataset_of(values, bits))
    ds = dataset_of(values, bits, PixelData=encapsulate([run_lengths(values)]))
    pixels, told = read(tmp_path, ds, syntax=RLELossless)
    np.testing.assert_array_equal(pixels, plain)
    assert told == info


@pytest.mark.parametrize(
    ("values", "photometric"),
    [
        (np.repeat(gradient(20, 3), 40, axis=1), "MONOCHROME2"),
        (np.repeat(RAMP, 50, axis=0), "MONOCHROME2"),
        (COLOURS, "RGB"),
        (COLOURS, "YBR_FULL"),
    ],
    ids=["runs", "16", "rgb", "ybr"],
)
def test_what_pydicom_packs_into_run_lengths_is_read(
    tmp_path: Path, values: np.ndarray, photometric: str
) -> None:
    bits = values.dtype.itemsize * 8
    plain, _ = read(tmp_path, dataset_of(values, bits, photometric), "rgb", 10_000, "full_range")
    ds = dataset_of(values, bits, photometric)
    bytes_of(ds)
    ds.compress(RLELossless, generate_instance_uid=False)
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "full_range", syntax=RLELossless)
    np.testing.assert_array_equal(pixels, plain)


@pytest.mark.parametrize(
    "frame",
    [
        b"\0" * 64,
        struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 4_000_000,
        struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\0\1",
        struct.pack("<16I", 2, 2**31, 2**32 - 1, *[0] * 13),
        struct.pack("<16I", 2**32 - 1, *[64] * 15),
    ],
    ids=["nothing", "bomb", "short", "outside", "many"],
)
def test_run_lengths_that_lie_are_set_aside_unexpanded(frame: bytes) -> None:
    ds = dataset_of(RAMP, PixelData=encapsulate([frame]))
    content = bytes_of(ds, RLELossless)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert problem_of(content).reason in ("unreadable", "truncated_image")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB, of 512,000


@pytest.mark.parametrize(
    "offsets", [(0, 130), (66, 130), (64, 64), (130, 64), (64, 40), (64, 10_000)]
)
def test_run_lengths_at_impossible_places_are_set_aside(offsets: tuple[int, int]) -> None:
    packed = run_lengths(RAMP)
    frame = struct.pack("<3I", 2, *offsets) + packed[12:]
    problem = problem_of(bytes_of(dataset_of(RAMP, PixelData=encapsulate([frame])), RLELossless))
    assert problem.reason == "unreadable"
    assert "run lengths begin at the bytes" in problem.detail


def test_jpeg_ls_is_read(tmp_path: Path) -> None:
    """One row of zeros, written by hand: run mode alone, with the end of the line."""
    header = (
        b"\xff\xd8\xff\xf7\x00\x0b\x08\x00\x01\x00\x08\x01\x01\x11\x00"
        b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"
    )
    frame = header + b"\xfc\x00\xff\xd9"
    ds = dataset_of(np.zeros((1, 8), np.uint8), 8, PixelData=encapsulate([frame]))
    pixels, _ = read(tmp_path, ds, syntax=JPEGLSLossless)
    assert pixels.shape == (1, 8)
    assert pixels.max() == 0


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "RGB"])
def test_colours_become_red_green_and_blue_as_pydicom_says(
    tmp_path: Path, photometric: str
) -> None:
    values = np.repeat(COLOURS[:20, :15], 2, axis=1)  # neighbours share their colour difference
    stored = values
    if photometric == "YBR_FULL_422":
        pairs = values.reshape(20, 15, 2, 3)
        stored = np.concatenate([pairs[..., 0], pairs[..., 0, 1:]], axis=-1)
        stored[..., 1] = pairs[..., 1, 0]
        stored[..., 2:] = pairs[..., 0, 1:]
        stored = stored[..., :4]
    ds = dataset_of(values, 8, photometric, PixelData=stored.tobytes())
    expected = values if photometric == "RGB" else convert_color_space(values, "YBR_FULL", "RGB")
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_deep_colours_are_scaled_from_the_range_of_their_bits(tmp_path: Path, bits: int) -> None:
    kind = np.uint32 if bits == 32 else np.uint16
    values = (COLOURS[:4, :4] / 255 * (2.0**bits - 1)).astype(kind)
    pixels, info = read(tmp_path, dataset_of(values, bits, "RGB"), "rgb", 10_000, "min_max")
    assert np.abs(pixels.astype(int) - COLOURS[:4, :4]).max() <= 1
    assert (info["scaling"], info["range"]) == ("full_range", [0, 2**bits - 1])


def test_one_bit_a_pixel_is_black_and_white(tmp_path: Path) -> None:
    target = gradient(21, 31) > 60
    ds = dataset_of(target.astype(np.uint8), 1, BitsAllocated=1)
    data = np.packbits(target, bitorder="little").tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    np.testing.assert_array_equal(read(tmp_path, ds)[0], 255 * target)


# ---------------------------------------------------------------- whole files


def test_a_deflated_file_is_read(tmp_path: Path) -> None:
    plain, _ = read(tmp_path, dataset_of(RAMP, WindowCenter=1000, WindowWidth=500))
    ds = dataset_of(RAMP, WindowCenter=1000, WindowWidth=500)
    pixels, info = read(tmp_path, ds, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(pixels, plain)
    assert info["scaling"] == "window"


def deflated(data: bytes) -> bytes:
    """Returns a file of the deflated transfer syntax with any content."""
    content = bytes_of(dataset_of(RAMP), DeflatedExplicitVRLittleEndian)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = struct.unpack_from("<I", content, 140)[0]
    return content[: 144 + length] + compressor.compress(data) + compressor.flush()


def test_a_deflated_file_is_inflated_no_further_than_a_file_may_be_large() -> None:
    content = deflated(bytes(400_000_000))
    assert len(content) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = problem_of(content)
    assert problem.reason == "too_many_bytes"
    assert str(8 * 10_000 + 2**20) in problem.detail
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_deflated_file_in_a_deflated_file_is_not_inflated() -> None:
    inner = deflated(bytes(100_000_000))
    for data in (inner, inner[132:]):
        assert problem_of(deflated(data)).reason == "unsupported_dicom"


def test_a_deflated_file_that_ends_early_is_truncated() -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (50, 50)).astype(np.uint16)
    content = bytes_of(dataset_of(noise), DeflatedExplicitVRLittleEndian)
    assert problem_of(content[:-500]).reason == "truncated_image"
    assert problem_of(deflated(b"")[:-2] + b"\xff" * 40).reason == "unreadable"


@pytest.mark.parametrize("kind", ["OB", "OW"])
@pytest.mark.parametrize("values", [gradient(5, 7), COLOURS[:3, :3]], ids=["grey", "rgb"])
def test_an_odd_number_of_bytes_in_big_endian_order(
    tmp_path: Path, kind: str, values: np.ndarray
) -> None:
    values = 255 - values  # so that the last byte is none that pads
    ds = dataset_of(values, 8, "RGB" if values.ndim == 3 else "MONOCHROME2")
    data = values.tobytes() + b"\0"
    swapped = np.frombuffer(data, np.uint16).byteswap().tobytes()
    content = bytes_of(dataset_of(values, 8, ds.PhotometricInterpretation), ExplicitVRBigEndian)
    written = content.index(b"\x7f\xe0\x00\x10") + 4
    value = data if kind == "OB" else swapped
    path = tmp_path / "film.dcm"
    path.write_bytes(
        content[:written] + kind.encode() + b"\0\0" + struct.pack(">I", len(value)) + value
    )
    pixels, _ = read_image(path, "rgb", 10_000, "min_max")
    expected = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels, expected)


def test_a_jpeg_of_other_components_than_the_header_says_is_not_decoded() -> None:
    picture = encoded(Image.fromarray(COLOURS), "JPEG")
    assert Image.open(io.BytesIO(picture)).mode == "RGB"
    ds = dataset_of(COLOURS[..., 0], 8, PixelData=encapsulate([picture]))
    problem = problem_of(bytes_of(ds, JPEGBaseline8Bit))
    assert problem.reason == "unreadable"
    assert "3 values a pixel instead of 1" in problem.detail


def test_the_syntax_may_be_named_in_the_picture_only() -> None:
    """Pixels that spell the deflated syntax are refused rather than inflated by mistake."""
    spelled = np.frombuffer(b"1.2.840.10008.1.2.1.99" + bytes(42), np.uint8).reshape(8, 8)
    problem = problem_of(bytes_of(dataset_of(spelled, 8), ExplicitVRLittleEndian))
    assert problem.reason == "unsupported_dicom"
