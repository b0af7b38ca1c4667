"""The test files that pydicom ships: read as pydicom itself reads them, to one level."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.dicom_recognition import is_dicom
from nakt_dist.imaging.images import read_image

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pylibjpeg")

from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"
REFUSED = {
    "JPEG-lossy.dcm": "unreadable",  # its compressed picture breaks JPEG's rules
    "JPEG2000-embedded-sequence-delimiter.dcm": "unreadable",  # ends in the middle
    "MR_truncated.dcm": "truncated_image",
    "badVR.dcm": "unreadable",  # 1A frames
    "meta_missing_tsyntax.dcm": "not_an_image",  # no rows and columns
    "nested_priv_SQ.dcm": "not_an_image",
}
"""Those with pixel data that nobody reads, pydicom included, and the reasons."""


def header_of(path: Path) -> "pydicom.Dataset | None":
    """Returns the header of a file with one frame of pixel data, else None."""
    try:
        ds = pydicom.dcmread(path, force=True)
        if "PixelData" not in ds or str(ds.get("NumberOfFrames") or 1) not in ("1", "1A"):
            return None
    except Exception:
        return None
    if not ds.file_meta.get("TransferSyntaxUID"):
        implicit, little = ds.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return ds


def pictures(folder: Path) -> list[Path]:
    with warnings.catch_warnings(action="ignore"):
        return [p for p in sorted(folder.rglob("*")) if p.is_file() and header_of(p)]


def shown(ds: "pydicom.Dataset") -> np.ndarray:
    """Returns grey values as pydicom shows them, float64 from 0 to 255."""
    stored = ds.pixel_array
    values = apply_modality_lut(stored, ds).astype(float)
    low, high = values.min(), values.max()
    if "VOILUTSequence" in ds:
        values = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(float)
        table = np.asarray(ds.VOILUTSequence[0].LUTData)
        low, high = 0, 2 ** max(8, int(table.max()).bit_length()) - 1
    elif ds.get("WindowWidth") is not None and float(np.ravel(ds.WindowWidth)[0]) >= 1:
        values = apply_voi_lut(values, ds)
        slope, intercept = ds.get("RescaleSlope", 1), ds.get("RescaleIntercept", 0)
        signed = ds.PixelRepresentation
        low = -(2 ** (ds.BitsStored - 1)) * signed * slope + intercept
        high = (2 ** (ds.BitsStored - signed) - 1) * slope + intercept
    elif ds.BitsStored in (1, 8):
        low, high = 0, 2**ds.BitsStored - 1
    padding = np.zeros(stored.shape, bool)
    if ds.get("PixelPaddingValue") is not None:
        padding = stored == ds.PixelPaddingValue
        if "WindowWidth" not in ds:
            low, high = values[~padding].min(), values[~padding].max()
    scaled = ((values - low) / (high - low or 1) * 255).clip(0, 255)
    scaled = 255 - scaled if ds.PhotometricInterpretation == "MONOCHROME1" else scaled
    return np.where(padding, 0, scaled)


def as_pydicom_reads(path: Path) -> np.ndarray:
    """Returns the picture by pydicom's own functions, float64 from 0 to 255."""
    ds = header_of(path)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(ds.pixel_array, ds)
        return colours / np.iinfo(colours.dtype).max * 255.0
    if ds.SamplesPerPixel == 3:
        return pydicom.pixels.pixel_array(ds) / (2.0**ds.BitsStored - 1) * 255
    return shown(ds)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", pictures(CORPUS), ids=lambda path: path.name)
def test_a_file_of_the_corpus_is_read_as_pydicom_reads_it(path: Path) -> None:
    assert is_dicom(path.read_bytes())
    if path.name in REFUSED:
        with pytest.raises(UnusableSample) as caught:
            read_image(path, "rgb", 2_000_000, "min_max")
        assert caught.value.reason == REFUSED[path.name]
        return
    expected = as_pydicom_reads(path)
    pixels, info = read_image(path, "rgb", 2_000_000, "min_max")
    grey = pixels if expected.ndim == 3 else pixels[..., 0]
    assert np.abs(grey - expected).max() <= 1
    assert info["format"] == "DICOM"


def test_the_corpus_is_there() -> None:
    names = {path.name for path in pictures(CORPUS)}
    assert len(names) > 80
    assert names >= REFUSED.keys()
