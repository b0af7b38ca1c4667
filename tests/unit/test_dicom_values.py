"""Stored values of DICOM files: where they lie in their words, and which are padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from nakt_dist.imaging.dicom import read_dicom  # noqa: E402
from tests.unit.dicom_files import (  # noqa: E402
    RAMP,
    bytes_of,
    dataset_of,
    problem_of,
    read,
    run_lengths,
    table_of,
)
from tests.unit.image_files import encoded  # noqa: E402

INDEX = np.arange(64, dtype=np.uint16).reshape(8, 8)
ODD_ROWS = np.arange(8)[:, None] % 2 == np.ones((1, 8))


def padded(values: np.ndarray, number: int) -> np.ndarray:
    return np.where(ODD_ROWS, np.array(number, values.dtype), values)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.floor((values.astype(float) - low).clip(0, high - low) / (high - low) * 255 + 0.5)


def put(ds: Dataset, name: str, number: int, kind: str) -> None:
    setattr(ds, name, number)
    ds[name].VR = kind


# ---------------------------------------------------------------- padding


@pytest.mark.parametrize("number", [0, 65535])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_counts_for_neither_minimum_nor_maximum(
    tmp_path: Path, number: int, photometric: str
) -> None:
    values = 1000 + 30 * INDEX
    ds = dataset_of(padded(values, number), 16, photometric)
    put(ds, "PixelPaddingValue", number, "US")
    pixels, info = read(tmp_path, ds)
    low, high = values[~ODD_ROWS].min(), values[~ODD_ROWS].max()
    expected = scaled(values, low, high)
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_array_equal(pixels, np.where(ODD_ROWS, 0, expected))
    assert (info["scaling"], info["range"]) == ("min_max", [low, high])


@pytest.mark.parametrize("kind", ["US", "SS"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_padding_value_has_the_sign_of_the_pixels(
    tmp_path: Path, kind: str, syntax: str
) -> None:
    values = 5 * INDEX.astype(np.int16) - 200
    ds = dataset_of(padded(values, -2000), 16, RescaleSlope=2, RescaleIntercept=10)
    put(ds, "PixelPaddingValue", 2**16 - 2000 if kind == "US" else -2000, kind)
    pixels, info = read(tmp_path, ds, syntax=syntax)
    real = values[~ODD_ROWS]
    expected = scaled(values, real.min(), real.max())
    np.testing.assert_array_equal(pixels, np.where(ODD_ROWS, 0, expected))
    assert info["range"] == [2 * real.min() + 10, 2 * real.max() + 10]


@pytest.mark.parametrize("ends", [(3000, 4095), (4095, 3000)])
def test_a_range_of_padding_is_meant_from_end_to_end(tmp_path: Path, ends: tuple) -> None:
    values = 30 * INDEX
    stored = np.where(ODD_ROWS, 3000 + INDEX, values).astype(np.uint16)
    ds = dataset_of(stored)
    put(ds, "PixelPaddingValue", ends[0], "US")
    put(ds, "PixelPaddingRangeLimit", ends[1], "US")
    pixels, info = read(tmp_path, ds)
    real = values[~ODD_ROWS]
    expected = scaled(values, real.min(), real.max())
    np.testing.assert_array_equal(pixels, np.where(ODD_ROWS, 0, expected))
    assert info["range"] == [real.min(), real.max()]


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 1000, "WindowWidth": 900},
        {"WindowCenter": 1000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [table_of(list(range(4095, -1, -1)), 0, 12)]},
    ],
    ids=["window", "sigmoid", "table"],
)
def test_padding_is_black_in_a_window_or_table_too(
    tmp_path: Path, elements: dict[str, Any]
) -> None:
    values = 30 * INDEX
    ds = dataset_of(padded(values, 4095), **elements)
    put(ds, "PixelPaddingValue", 4095, "US")
    whole, _ = read(tmp_path, dataset_of(values, **elements))
    np.testing.assert_array_equal(read(tmp_path, ds)[0], np.where(ODD_ROWS, 0, whole))


def test_padding_is_left_out_behind_the_table_of_the_modality(tmp_path: Path) -> None:
    values = 30 * INDEX
    table = table_of([2 * number for number in range(4096)], 0, 13)
    ds = dataset_of(padded(values, 4095), ModalityLUTSequence=[table])
    put(ds, "PixelPaddingValue", 4095, "US")
    pixels, info = read(tmp_path, ds)
    real = values[~ODD_ROWS]
    expected = scaled(values, real.min(), real.max())
    np.testing.assert_array_equal(pixels, np.where(ODD_ROWS, 0, expected))
    assert info["range"] == [2 * real.min(), 2 * real.max()]


def test_padding_of_eight_bits_is_black_and_the_rest_is_kept(tmp_path: Path) -> None:
    values = INDEX.astype(np.uint8) + 100
    ds = dataset_of(padded(values, 255), 8)
    put(ds, "PixelPaddingValue", 255, "US")
    pixels, info = read(tmp_path, ds)
    np.testing.assert_array_equal(pixels, np.where(ODD_ROWS, 0, values))
    assert info["scaling"] == "kept"


def test_padding_in_the_whole_word_of_a_smaller_value_is_found(tmp_path: Path) -> None:
    values = 30 * INDEX
    stored = np.where(ODD_ROWS, 0xFFFF, values).astype(np.uint16)
    stored[0, 0] = 4095  # a real one, and the same twelve bits
    ds = dataset_of(stored)
    put(ds, "PixelPaddingValue", 0xFFFF, "US")
    pixels, info = read(tmp_path, ds)
    assert pixels[0, 0] == 255
    assert (pixels[ODD_ROWS] == 0).all()
    assert info["range"] == [30, 4095]


def test_a_picture_of_nothing_but_padding_is_black(tmp_path: Path) -> None:
    ds = dataset_of(np.full((8, 8), 700, np.uint16), photometric="MONOCHROME1")
    put(ds, "PixelPaddingValue", 700, "US")
    assert (read(tmp_path, ds)[0] == 0).all()


# ---------------------------------------------------------------- where values lie


@pytest.mark.parametrize(
    ("bits", "high"), [(10, 11), (10, 15), (12, 15), (8, 15), (6, 8), (12, 11)]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("overlay", [False, True])
def test_values_are_taken_from_the_bits_that_the_header_says(
    tmp_path: Path, bits: int, high: int, syntax: str, overlay: bool
) -> None:
    values = INDEX * 2 ** (bits - 6)
    stored = (values << (high + 1 - bits)).astype(np.uint16)
    if overlay:  # in all other bits
        other = 0xFFFF ^ (2**bits - 1 << (high + 1 - bits))
        stored |= np.where(ODD_ROWS, other, 0).astype(np.uint16)
    ds = dataset_of(stored, bits, HighBit=high)
    if syntax == RLELossless:
        pytest.importorskip("pylibjpeg")
        ds.PixelData = encapsulate([run_lengths(stored)])
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = stored.byteswap().tobytes()
    plain, _ = read(tmp_path, dataset_of(values, bits), "grey", 10_000, "full_range")
    pixels, info = read(tmp_path, ds, "grey", 10_000, "full_range", syntax=syntax)
    np.testing.assert_array_equal(pixels, plain)
    assert info["bits_stored"] == bits
    assert info["other_bits"] == (overlay and bits < 16)


@pytest.mark.parametrize(
    ("dtype", "bits", "number", "other"),
    [
        (np.uint16, 12, 4095, False),
        (np.uint16, 12, 4096, True),
        (np.uint8, 7, 128, True),
        (np.uint16, 16, 65535, False),
        (np.int16, 12, -2048, False),
        (np.int16, 12, 2047, False),
        (np.int16, 12, 2048, True),
        (np.int16, 12, -2049, True),
    ],
)
def test_bits_beside_the_values_are_told(
    tmp_path: Path, dtype: type, bits: int, number: int, other: bool
) -> None:
    values = INDEX.astype(dtype)
    values[3, 3] = number
    assert read(tmp_path, dataset_of(values, bits))[1]["other_bits"] is other


def test_padding_in_other_bits_is_none_beside_the_values(tmp_path: Path) -> None:
    ds = dataset_of(padded(30 * INDEX, 0xFFFF))
    put(ds, "PixelPaddingValue", 0xFFFF, "US")
    assert read(tmp_path, ds)[1]["other_bits"] is False


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_signed_values_get_their_sign_wherever_they_lie(data: st.DataObject) -> None:
    bits = data.draw(st.integers(2, 16))
    high = data.draw(st.integers(bits - 1, 15))
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = np.array(data.draw(st.lists(st.integers(least, most), min_size=4, max_size=4)))
    values[:2] = least, most
    other = data.draw(st.integers(0, 2**16 - 1)) & ~(2**bits - 1 << (high + 1 - bits))
    words = ((values & (2**bits - 1)) << (high + 1 - bits)) | other
    stored = words.astype(np.uint16).view(np.int16).reshape(2, 2)
    content = bytes_of(dataset_of(stored, bits, HighBit=high))
    picture = read_dicom(content, "film.dcm", 10_000, full_range=False)
    expected = scaled(values.reshape(2, 2), least, most)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.range == [least, most]


def test_values_at_the_lower_end_that_are_said_to_lie_higher_are_not_read(tmp_path: Path) -> None:
    problem = problem_of(bytes_of(dataset_of(RAMP + 1, 12, HighBit=15)))
    assert problem.reason == "unsupported_dicom"
    assert "bits 4 to 15" in problem.detail
    assert "HighBit" in problem.detail


def test_a_header_without_a_high_bit_means_the_usual_one(tmp_path: Path) -> None:
    ds = dataset_of(RAMP)
    del ds.HighBit
    np.testing.assert_array_equal(read(tmp_path, ds)[0], read(tmp_path, dataset_of(RAMP))[0])


@pytest.mark.parametrize(("bits", "shift"), [(16, 0), (12, 4)])
def test_a_jpeg_picture_holds_values_of_its_own_precision(
    tmp_path: Path, bits: int, shift: int
) -> None:
    """Pillow writes 16 bits; a header of fewer that end at the last bit means the upper ones."""
    values = INDEX * (1023 if shift == 0 else 65)
    picture = encoded((values << shift).astype(np.uint16), "JPEG2000", no_jp2=True)
    ds = dataset_of(values, bits, HighBit=15, PixelData=encapsulate([picture]))
    pixels, info = read(tmp_path, ds, syntax=JPEG2000Lossless)
    np.testing.assert_array_equal(pixels, scaled(values, 0, values.max()))
    assert info["range"] == [0, values.max()]


def test_a_jpeg_picture_of_fewer_bits_than_its_values_reach_is_not_read() -> None:
    picture = encoded(INDEX.astype(np.uint8), "JPEG2000", no_jp2=True)
    ds = dataset_of(INDEX, 6, HighBit=9, PixelData=encapsulate([picture]))
    problem = problem_of(bytes_of(ds, JPEG2000Lossless))
    assert problem.reason == "unsupported_dicom"
    assert "8 bits" in problem.detail
