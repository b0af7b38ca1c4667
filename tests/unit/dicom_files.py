"""DICOM files that tests write: chest films with a patient in their header."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.dicom import read_dicom
from nakt_dist.imaging.images import read_image

RAMP = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
PATIENT = "Doe^Jane"
BARE = {"JPEG": {}, "JPEG2000": {"no_jp2": True}}
"""What makes Pillow write a picture as DICOM holds it, without a container."""


def dataset_of(
    values: np.ndarray, bits: int = 12, photometric: str = "MONOCHROME2", **elements: Any
) -> Dataset:
    """Returns a chest film of the given stored values, with a patient in its header."""
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = PATIENT, "MRN-4711", "19500102"
    ds.InstitutionName, ds.StudyDate = "General Hospital", "20200304"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    ds.Rows, ds.Columns = values.shape[:2]
    ds.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    if values.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = values.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    ds.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def bytes_of(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2")
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    # the kind of numbers is said for the elements that the standard leaves open
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        ds["PixelData"].is_undefined_length = syntax != DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def save(path: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    path.write_bytes(bytes_of(ds, syntax))
    return path


def read(tmp_path: Path, ds: Dataset, *arguments: Any, **settings: Any) -> tuple[np.ndarray, dict]:
    colour, max_pixels, sixteen_bit = arguments or ("grey", 10_000, "min_max")
    path = save(tmp_path / "film.dcm", ds, **settings)
    return read_image(path, colour, max_pixels, sixteen_bit)


def problem_of(content: bytes, max_pixels: int = 10_000) -> UnusableSample:
    with pytest.raises(UnusableSample) as caught:
        read_dicom(content, "film.dcm", max_pixels, full_range=False)
    return caught.value


def table_of(entries: list[int], first: int, bits: int) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [len(entries) % 2**16, first, bits]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = struct.pack(f"<{len(entries)}H", *entries)
    table["LUTData"].VR = "OW"
    return table


def run_lengths(values: np.ndarray) -> bytes:
    """Returns whole numbers as a frame of RLE Lossless: a segment a byte, highest first."""
    width = values.dtype.itemsize
    planes = values.astype(f">u{width}").view(np.uint8).reshape(-1, width).T
    segments = []
    for plane in planes:
        runs = [plane[at : at + 128].tobytes() for at in range(0, plane.size, 128)]
        data = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(data + b"\0" * (len(data) % 2))
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    header = struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments)))
    return header + b"".join(segments)
