"""Look-up tables and palettes of DICOM files: what they hold counts, not what they say."""

import struct
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.imaging.images import read_image
from tests.unit.image_files import gradient

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.unit.dicom_files import (  # noqa: E402
    RAMP,
    bytes_of,
    dataset_of,
    problem_of,
    read,
    table_of,
)

INDEX = np.arange(64).reshape(8, 8)
LEVELS = np.floor(INDEX * 255 / 63 + 0.5)


def packed(entries: list[int], first: int, bits: int) -> Dataset:
    """Returns a table whose entries lie two in a word, as they are and without padding."""
    table = table_of([0] * len(entries), first, bits)
    table.LUTData = bytes(entries)
    return table


@pytest.mark.parametrize("stated", [8, 10, 11, 16])
@pytest.mark.parametrize(("first", "count"), [(0, 4096), (736, 2065)])
def test_a_table_of_twelve_bits_is_one_whatever_its_descriptor_says(
    tmp_path: Path, stated: int, first: int, count: int
) -> None:
    entries = [round(4095 * number / (count - 1)) for number in range(count)]
    ds = dataset_of(RAMP, VOILUTSequence=[table_of(entries, first, stated)])
    pixels, info = read(tmp_path, ds)
    looked_up = np.array(entries)[np.clip(RAMP.astype(int) - first, 0, count - 1)]
    np.testing.assert_array_equal(pixels, np.floor(looked_up / 4095 * 255 + 0.5))
    assert pixels.max() > 250
    assert info["scaling"] == "lut"


def test_a_table_that_says_fewer_bits_than_the_words_is_believed(tmp_path: Path) -> None:
    ds = dataset_of(RAMP, VOILUTSequence=[table_of(list(range(1000)), 0, 12)])
    assert read(tmp_path, ds)[0].max() == round(999 / 4095 * 255)


def test_a_table_of_few_levels_has_eight_bits_at_least(tmp_path: Path) -> None:
    ds = dataset_of(
        RAMP, VOILUTSequence=[table_of([number // 64 for number in range(4096)], 0, 16)]
    )
    np.testing.assert_array_equal(read(tmp_path, ds)[0], INDEX)


@pytest.mark.parametrize("stated", [8, 16])
@pytest.mark.parametrize("count", [63, 64])
def test_entries_of_eight_bits_that_lie_two_in_a_word(
    tmp_path: Path, stated: int, count: int
) -> None:
    entries = LEVELS.astype(int).ravel().tolist()[:count]
    expected = LEVELS if count == 64 else np.minimum(LEVELS, entries[-1])
    ds = dataset_of(INDEX.astype(np.uint16), VOILUTSequence=[packed(entries, 0, stated)])
    np.testing.assert_array_equal(read(tmp_path, ds)[0], expected)


def test_the_first_of_two_entries_is_the_lower_byte_in_any_order(tmp_path: Path) -> None:
    entries = LEVELS.astype(np.uint8)
    stored = INDEX.astype(np.uint16).byteswap()
    ds = dataset_of(stored, VOILUTSequence=[packed(entries.tobytes(), 0, 8)])
    ds.VOILUTSequence[0].LUTData = entries.view(np.uint16).byteswap().tobytes()
    pixels, _ = read(tmp_path, ds, syntax=ExplicitVRBigEndian)
    np.testing.assert_array_equal(pixels, LEVELS)


def test_a_table_of_odd_length_whose_entries_are_called_numbers(tmp_path: Path) -> None:
    entries = LEVELS.astype(int).ravel().tolist()[:63]
    ds = dataset_of(INDEX.astype(np.uint16), VOILUTSequence=[packed(entries, 0, 8)])
    content = bytes_of(ds)
    written = content.index(bytes([0x28, 0x00, 0x06, 0x30])) + 4
    short = b"US" + struct.pack("<H", 64)
    patched = content[:written] + short + content[written + 8 :]
    sequence = patched.index(bytes([0x28, 0x00, 0x10, 0x30]))
    for at in (sequence + 8, sequence + 16):  # the sequence and its item are four bytes shorter
        length = struct.unpack_from("<I", patched, at)[0]
        if length != 0xFFFFFFFF:
            patched = patched[:at] + struct.pack("<I", length - 4) + patched[at + 4 :]
    path = tmp_path / "film.dcm"
    path.write_bytes(patched)
    pixels, _ = read_image(path, "grey", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, np.minimum(LEVELS, entries[-1]))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("packs", [False, True])
def test_the_table_of_the_modality_is_judged_alike(
    tmp_path: Path, syntax: str, packs: bool
) -> None:
    entries = list(range(256)) if packs else list(range(4096))
    table = packed(entries, 0, 16) if packs else table_of(entries, 0, 16)
    stored = INDEX.astype(np.uint16) * (4 if packs else 64)
    ds = dataset_of(stored, ModalityLUTSequence=[table])
    pixels, info = read(tmp_path, ds, "grey", 10_000, "full_range", syntax=syntax)
    top = 255 if packs else 4095
    np.testing.assert_array_equal(pixels, np.floor(stored / top * 255 + 0.5))
    assert info["range"] == [0, top]


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("length", [0, 40, 100, 126])
def test_a_table_of_another_length_than_it_says_is_not_read(sequence: str, length: int) -> None:
    table = table_of([0] * 64, 0, 16)
    table.LUTData = bytes(length)
    problem = problem_of(bytes_of(dataset_of(RAMP, **{sequence: [table]})))
    assert problem.reason == "unsupported_dicom"
    assert f"64 entries in {length} bytes" in problem.detail


@pytest.mark.parametrize("kind", ["US", "SS"])
def test_the_first_value_of_a_table_is_signed_as_the_values_are(tmp_path: Path, kind: str) -> None:
    table = table_of(list(range(4096)), 0, 12)
    table["LUTDescriptor"].VR = kind
    table.LUTDescriptor = [4096, 2**16 - 1024 if kind == "US" else -1024, 12]
    ds = dataset_of(RAMP, VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read(tmp_path, ds)[0], np.floor(RAMP / 4095 * 255 + 0.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_below_the_first_of_the_modality_get_its_first_entry(
    tmp_path: Path, dtype: type
) -> None:
    stored = np.array([[0, 49, 50, 149, 255]], dtype)
    table = table_of(list(range(0, 200, 2)), 50, 16)
    ds = dataset_of(stored, 8 * stored.itemsize, ModalityLUTSequence=[table])
    pixels, _ = read(tmp_path, ds, "grey", 10_000, "full_range")
    np.testing.assert_array_equal(pixels, [[0, 0, 0, 198, 198]])
    np.testing.assert_array_equal(pixels, pydicom.pixels.apply_modality_lut(stored, ds))


# ---------------------------------------------------------------- palettes


def with_palette(bits: int, data: list[bytes], count: int = 256, **elements: object) -> Dataset:
    ds = dataset_of(gradient(20, 30), 8, "PALETTE COLOR", **elements)
    for colour, entries in zip(("Red", "Green", "Blue"), data, strict=True):
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        setattr(ds, descriptor, [count, 0, bits])
        ds[descriptor].VR = "US"
        setattr(ds, f"{colour}PaletteColorLookupTableData", entries)
    return ds


COLOURS = [np.arange(256), 255 - np.arange(256), np.arange(256) // 2]


@pytest.mark.parametrize(
    ("bits", "data"),
    [
        (16, [(colour * 257).astype("<u2").tobytes() for colour in COLOURS]),
        (16, [(colour * 256).astype("<u2").tobytes() for colour in COLOURS]),
        (16, [colour.astype("<u2").tobytes() for colour in COLOURS]),
        (8, [colour.astype("<u2").tobytes() for colour in COLOURS]),
        (8, [colour.astype(np.uint8).tobytes() for colour in COLOURS]),
        (16, [colour.astype(np.uint8).tobytes() for colour in COLOURS]),
    ],
    ids=["16", "16_high_bytes", "16_of_8", "8_in_words", "8_packed", "16_packed"],
)
def test_a_picture_with_a_palette_has_its_colours(
    tmp_path: Path, bits: int, data: list[bytes]
) -> None:
    pixels, info = read(tmp_path, with_palette(bits, data), "rgb", 10_000, "min_max")
    expected = np.stack([colour[gradient(20, 30)] for colour in COLOURS], axis=-1)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert (info["mode"], info["scaling"]) == ("PALETTE COLOR", "lut")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_below_the_first_of_a_palette_get_its_first_entry(
    tmp_path: Path, dtype: type
) -> None:
    entries = [np.arange(start, start + 56) for start in (10, 90, 170)]
    ds = with_palette(16, [(colour * 257).astype("<u2").tobytes() for colour in entries], 56)
    stored = np.array([[0, 199, 200, 255, 254, 100]], dtype)
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [56, 200, 16])
    ds.Rows, ds.Columns, ds.PixelData = *stored.shape, stored.tobytes()
    ds.BitsAllocated = ds.BitsStored = 8 * stored.itemsize
    ds.HighBit = ds.BitsStored - 1
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "min_max")
    expected = np.stack([colour[[0, 0, 0, 55, 54, 0]] for colour in entries], axis=-1)
    np.testing.assert_array_equal(pixels[0], expected)
    assert (pydicom.pixels.apply_color_lut(stored, ds)[0] // 257 == expected).all()


def segments(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}H", *words)


def test_a_segmented_palette_is_put_together(tmp_path: Path) -> None:
    # a run of one, a line to 65535 in 127 steps, and both once more
    red = segments(0, 1, 0, 1, 127, 65535, 2, 2, 0, 0)
    level = segments(0, 1, 32896, 1, 255, 32896)
    ds = dataset_of(gradient(20, 30), 8, "PALETTE COLOR")
    for colour, entries in (("Red", red), ("Green", level), ("Blue", level)):
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        setattr(ds, descriptor, [256, 0, 16])
        ds[descriptor].VR = "US"
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", entries)
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "min_max")
    expected = np.round(np.arange(128) / 127 * 255)[gradient(20, 30) % 128]
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    assert (pixels[..., 1:] == 128).all()


@pytest.mark.parametrize(
    "data",
    [
        segments(0, 1, 7),
        segments(1, 255, 7),
        segments(3, 255, 7),
        segments(2, 65535, 0, 0),
        segments(0, 1, 7, 2, 65535, 6, 0),
        segments(0, 65535, 1),
        segments(0, 0, *[2, 65535, 0, 0] * 20_000),
        segments(0, 1, 7, 0, 0, *[2, 65535, 6, 0] * 20_000),
        b"",
        b"\0",
    ],
)
def test_a_segmented_palette_that_is_none_ends(data: bytes) -> None:
    ds = dataset_of(gradient(20, 30), 8, "PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        setattr(ds, descriptor, [256, 0, 16])
        ds[descriptor].VR = "US"
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", data)
    problem = problem_of(bytes_of(ds))
    assert problem.reason == "unsupported_dicom"
    assert "256" in problem.detail
