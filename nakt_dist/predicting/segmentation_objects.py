"""Masks of DICOM files as DICOM SEG, each in the study of its image."""

import io
import warnings
from pathlib import Path

import numpy as np

from nakt_dist.errors import UnusableSample
from nakt_dist.exporting.dicom_segmentation import dicom_segmentation
from nakt_dist.imaging.decoding import read_content
from nakt_dist.imaging.dicom import import_pydicom
from nakt_dist.imaging.dicom_recognition import is_dicom
from nakt_dist.predicting.naming import ListedImage
from nakt_dist.runtime.files import write_bytes

WRITTEN = "written"


def write_segmentation(
    listed: ListedImage,
    mask: np.ndarray,
    classes: tuple[str, ...],
    weights_sha256: str,
    max_pixels: int,
    path: Path,
    staging: Path,
) -> str | None:
    """Writes a mask as a segmentation object, which repeats what the image says of its patient.

    Args:
        mask: uint8, the class of each pixel of the image.
        classes: their names, the background first.
        max_pixels: of the image's file, see ``read_content``.

    Returns:
        ``WRITTEN``, or why none can be; None for images that are not DICOM.

    Raises:
        ConfigurationError: highdicom is not installed.
    """
    content = read_content(listed.path, max_pixels)
    if not is_dicom(content):
        return None
    planes = mask == np.arange(1, len(classes))[:, None, None]
    pydicom = import_pydicom(listed.path.name)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote the header
            source = pydicom.dcmread(io.BytesIO(content), force=True)
            dicom_segmentation(source, planes, classes[1:], weights_sha256).save_as(buffer)
    except UnusableSample as error:
        return error.reason
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue(), staging)
    return WRITTEN
