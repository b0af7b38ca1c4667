"""DICOM files that are set aside, each with its reason."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.dicom import read_dicom
from tests.unit.image_files import encoded, gradient

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from tests.unit.dicom_files import (  # noqa: E402
    BARE,
    PATIENT,
    RAMP,
    bytes_of,
    dataset_of,
    problem_of,
    table_of,
)


def test_a_picture_that_is_too_large_is_not_decoded() -> None:
    content = bytes_of(dataset_of(RAMP))
    assert problem_of(content, max_pixels=63).reason == "too_many_pixels"
    announced = dataset_of(RAMP, Rows=60_000, Columns=60_000)
    assert problem_of(bytes_of(announced), 100_000_000).reason == "too_many_pixels"


@pytest.mark.parametrize(
    ("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")]
)
def test_a_compressed_picture_larger_than_announced_is_not_decoded(syntax: str, kind: str) -> None:
    picture = encoded(np.zeros((300, 400), np.uint8), kind, **BARE[kind])
    ds = dataset_of(gradient(20, 30), 8, PixelData=encapsulate([picture]))
    problem = problem_of(bytes_of(ds, syntax))
    assert problem.reason == "unreadable"
    assert "30×20" in problem.detail
    assert "400×300" in problem.detail


@pytest.mark.parametrize(
    ("ds", "syntax"),
    [
        (dataset_of(RAMP, Rows=4), ExplicitVRLittleEndian),
        (dataset_of(RAMP, Columns=7), ImplicitVRLittleEndian),
        (dataset_of(RAMP, Rows=7, Columns=9), ExplicitVRBigEndian),
        (dataset_of(RAMP, BitsAllocated=8, BitsStored=8, HighBit=7), ExplicitVRLittleEndian),
        (dataset_of(np.ones((4, 5, 3), np.uint8), 8, "RGB", Columns=4), ExplicitVRLittleEndian),
        (
            dataset_of(np.ones((4, 6, 2), np.uint8), 8, "YBR_FULL_422", Rows=3, SamplesPerPixel=3),
            ExplicitVRLittleEndian,
        ),
    ],
    ids=["rows", "columns", "two_bytes", "bits", "colours", "half_colours"],
)
def test_more_pixel_data_than_announced_is_not_read_in_part(ds: Dataset, syntax: str) -> None:
    problem = problem_of(bytes_of(ds, syntax))
    assert problem.reason == "unreadable"
    assert f"{len(ds.PixelData)} bytes" in problem.detail


@pytest.mark.parametrize(
    "ds",
    [
        dataset_of(gradient(5, 7), 8),
        dataset_of(np.zeros((4, 5, 3), np.uint8), 8, "RGB"),
        dataset_of(np.zeros((4, 6, 2), np.uint8), 8, "YBR_FULL_422", SamplesPerPixel=3),
        dataset_of(RAMP.astype(np.uint32)),
    ],
    ids=["odd_length", "colours", "half_colours", "four_bytes"],
)
@pytest.mark.parametrize("padding", [0, 2, 512])
def test_pixel_data_of_the_announced_length_is_read_whatever_pads_it(
    padding: int, ds: Dataset
) -> None:
    ds = copy.deepcopy(ds)
    ds.PixelData += bytes(padding)
    picture = read_dicom(bytes_of(ds), "film.dcm", 10_000, full_range=False)
    assert picture.pixels.shape[:2] == (ds.Rows, ds.Columns)


def test_several_frames_are_one_sample_too_many() -> None:
    frames = np.concatenate([RAMP, RAMP])
    ds = dataset_of(frames, Rows=8, NumberOfFrames=2)
    assert problem_of(bytes_of(ds)).reason == "several_frames"


@pytest.mark.parametrize(
    ("ds", "syntax"),
    [
        (dataset_of(gradient(8, 8), 8, "PALETTE COLOR"), ExplicitVRLittleEndian),
        (dataset_of(RAMP, SamplesPerPixel=3, PlanarConfiguration=0), ExplicitVRLittleEndian),
        (dataset_of(RAMP, FloatPixelData=b"\0" * 256), ExplicitVRLittleEndian),
        (dataset_of(RAMP, BitsStored=17), ExplicitVRLittleEndian),
        (dataset_of(RAMP, BitsStored=0), ExplicitVRLittleEndian),
        (dataset_of(RAMP, HighBit=10), ExplicitVRLittleEndian),
        (dataset_of(RAMP, HighBit=16), ExplicitVRLittleEndian),
        (dataset_of(RAMP, BitsStored=None), ExplicitVRLittleEndian),
        (dataset_of(RAMP, PixelRepresentation=None), ExplicitVRLittleEndian),
        (dataset_of(RAMP, PixelData=encapsulate([b"\0" * 64])), MPEG2MPML),
    ],
    ids=[
        "no_palette", "samples", "floating_point", "too_deep", "no_bits", "below_the_word",
        "beyond_the_word", "depth_unsaid", "sign_unsaid", "video",
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said(ds: Dataset, syntax: str) -> None:
    assert problem_of(bytes_of(ds, syntax)).reason == "unsupported_dicom"


def test_a_file_without_a_picture_is_no_image() -> None:
    ds = dataset_of(RAMP)
    content = bytes_of(ds)
    without = content[: content.index(b"\xe0\x7f\x10\x00")]
    assert problem_of(without).reason == "not_an_image"


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("bits", [0, 17, 65535])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_table_whose_entries_have_no_known_range_is_not_supported(
    sequence: str, bits: int, full_range: bool
) -> None:
    content = bytes_of(dataset_of(RAMP, **{sequence: [table_of(list(range(4096)), 0, bits)]}))
    with pytest.raises(UnusableSample, match=f"entries of {bits} bits") as caught:
        read_dicom(content, "film.dcm", 10_000, full_range)
    assert caught.value.reason == "unsupported_dicom"


@pytest.mark.filterwarnings("error:::nakt_dist")
@pytest.mark.parametrize(
    ("elements", "full_range"),
    [
        ({"RescaleSlope": "1E306", "RescaleIntercept": "0"}, False),
        ({"RescaleSlope": "5E304", "RescaleIntercept": "-1.7E308"}, False),
        ({"RescaleSlope": "4.4E304", "RescaleIntercept": "0"}, True),
        ({"WindowCenter": "-1.5E308", "WindowWidth": "1.5E308"}, False),
    ],
)
def test_values_beyond_what_numbers_hold_are_set_aside_and_never_reach_the_range(
    elements: dict[str, str], full_range: bool
) -> None:
    signed = dataset_of(RAMP.astype(np.int16) - 2048, **elements)
    for ds in (signed, dataset_of(RAMP, **elements)):
        content = bytes_of(ds)
        try:
            picture = read_dicom(content, "film.dcm", 10_000, full_range)
        except UnusableSample as problem:
            assert problem.reason == "non_finite_pixels"
        else:
            json.dumps(picture.range, allow_nan=False)


@pytest.mark.filterwarnings("error:::nakt_dist")
def test_a_steep_sigmoid_is_a_threshold() -> None:
    ds = dataset_of(RAMP, WindowCenter=1000, WindowWidth=1e-6, VOILUTFunction="SIGMOID")
    picture = read_dicom(bytes_of(ds), "film.dcm", 10_000, full_range=False)
    np.testing.assert_array_equal(picture.pixels, 255 * (RAMP > 1000))


def test_a_file_that_ends_early_is_truncated() -> None:
    assert problem_of(bytes_of(dataset_of(RAMP))[:-40]).reason == "truncated_image"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_of_any_kind_is_set_aside(data: st.DataObject) -> None:
    content = bytearray(bytes_of(dataset_of(RAMP, WindowCenter=1000, WindowWidth=500)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = read_dicom(bytes(content), "film.dcm", 10_000, full_range=False)
    except UnusableSample as problem:
        assert PATIENT not in problem.detail
        assert "4711" not in problem.detail
    else:
        assert picture.pixels.dtype == np.uint8
