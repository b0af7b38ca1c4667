"""Masks as DICOM SEG, read back by highdicom and pydicom."""

import io

import numpy as np
import pydicom
import pytest

from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.exporting.dicom_segmentation import dicom_segmentation
from tests.unit.dicom_files import PATIENT, RAMP, bytes_of, dataset_of

SHA256 = "ab" * 32
MASK = np.stack([RAMP > 2000, RAMP < 100])
NAMES = ("benign", "malignant")


def source(**elements):
    """A film as it is read from a file, with what every image of a study says."""
    ds = dataset_of(
        RAMP, SeriesInstanceUID="1.2.3.1", StudyInstanceUID="1.2.3.2", StudyID="7", Modality="US",
        StudyTime="101112", PatientSex="F", AccessionNumber="A1", ReferringPhysicianName="",
        InstanceNumber=1, SeriesNumber=1, **elements,
    )  # fmt: skip
    return pydicom.dcmread(io.BytesIO(bytes_of(ds)))


def test_a_mask_comes_back_with_its_segments():
    highdicom = pytest.importorskip("highdicom")
    made = dicom_segmentation(source(), MASK, NAMES, SHA256)
    stream = io.BytesIO()
    made.save_as(stream)
    read = highdicom.seg.segread(io.BytesIO(stream.getvalue()))
    assert (read.StudyInstanceUID, read.PatientName) == ("1.2.3.2", PATIENT)
    assert read.SeriesInstanceUID != "1.2.3.1"
    segments = [read.get_segment_description(number) for number in (1, 2)]
    assert [each.segment_label for each in segments] == list(NAMES)
    assert SHA256[:16] in segments[0].algorithm_identification.version
    planes = read.get_pixels_by_source_instance([source().SOPInstanceUID])
    assert np.array_equal(np.moveaxis(planes[0], -1, 0).astype(bool), MASK)
    again = dicom_segmentation(source(), MASK, NAMES, SHA256)
    assert again.SOPInstanceUID == made.SOPInstanceUID
    other = dicom_segmentation(source(), ~MASK, NAMES, SHA256)
    assert other.SOPInstanceUID != made.SOPInstanceUID
    assert other.SeriesInstanceUID == made.SeriesInstanceUID


def test_an_empty_mask_is_kept():
    pytest.importorskip("highdicom")
    made = dicom_segmentation(source(), np.zeros((1, 8, 8), bool), ("lesion",), SHA256)
    assert made.NumberOfFrames == 1 and not made.pixel_array.any()


def test_what_does_not_fit_is_refused(monkeypatch):
    pytest.importorskip("highdicom")
    for mask, names in ((MASK, ("one",)), (MASK.astype(float), NAMES), (MASK[0], NAMES)):
        with pytest.raises(ConfigurationError, match="expected bool"):
            dicom_segmentation(source(), mask, names, SHA256)
    with pytest.raises(UnusableSample, match="expected one frame of the same size"):
        dicom_segmentation(source(), MASK[:, :4], NAMES, SHA256)
    with pytest.raises(UnusableSample, match="3 frames"):
        dicom_segmentation(source(NumberOfFrames=3), MASK, NAMES, SHA256)
    lacking = source()
    del lacking.StudyInstanceUID
    with pytest.raises(UnusableSample, match="cannot refer to this image"):
        dicom_segmentation(lacking, MASK, NAMES, SHA256)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(ConfigurationError, match=r"nakt_dist\[segmentations\]"):
        dicom_segmentation(source(), MASK, NAMES, SHA256)
