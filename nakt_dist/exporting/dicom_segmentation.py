"""A predicted mask as DICOM SEG, in the study of the image it was predicted for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nakt_dist import __version__
from nakt_dist.errors import ConfigurationError, UnusableSample

if TYPE_CHECKING:
    from pydicom import Dataset

_MAKER = "nakt_dist"
# SNOMED CT: what is segmented is a lesion, where nobody says more.
_CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
_TYPE = ("52988006", "SCT", "Lesion")
_SERIES_NUMBER = 900


def dicom_segmentation(
    source: "Dataset", mask: np.ndarray, names: Sequence[str], weights_sha256: str
) -> "Dataset":
    """Makes a segmentation object of one image; the same mask gives the same identifiers.

    It belongs to the image's study and patient, whose attributes it repeats: it stays where the
    image may stay.

    Args:
        source: the image as pydicom read it; a single frame.
        mask: bool (K, rows, columns), at the image's own rows and columns, a plane for each
            segment.
        names: of the K segments, such as ``("lesion",)``; the background is none.
        weights_sha256: of the network, which is noted as the algorithm's.

    Returns:
        To be written by ``save_as``.

    Raises:
        ConfigurationError: highdicom is not installed, or mask and names do not fit each other.
        UnusableSample: the image has several frames, other rows and columns, or lacks what a
            segmentation must refer to.
    """
    highdicom = require_highdicom()
    _check(source, mask, names)
    described = [
        _segment(highdicom, number, name, weights_sha256) for number, name in enumerate(names, 1)
    ]
    try:
        return highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=np.moveaxis(mask.astype(np.uint8), 0, -1)[None],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=_identifier(source.SeriesInstanceUID, weights_sha256),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=_identifier(source.SOPInstanceUID, weights_sha256, mask.tobytes()),
            instance_number=1,
            manufacturer=_MAKER,
            manufacturer_model_name=_MAKER,
            software_versions=__version__,
            device_serial_number=weights_sha256[:16],
            omit_empty_frames=False,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnusableSample(
            "no_dicom_segmentation",
            f"highdicom cannot refer to this image: {str(error)[:200]}; write PNG instead",
        ) from error


def require_highdicom() -> Any:
    """Imports highdicom.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ConfigurationError(
            f"DICOM SEG needs highdicom, which is not installed ({error}). Install it: "
            "pip install 'nakt_dist[segmentations]'"
        ) from None
    return highdicom


def _check(source: "Dataset", mask: np.ndarray, names: Sequence[str]) -> None:
    if mask.dtype != bool or mask.ndim != 3 or len(mask) != len(names) or not names:
        raise ConfigurationError(
            f"a mask is {mask.dtype} of shape {mask.shape} with {len(names)} names; expected bool "
            "(segments, rows, columns) with a name for each segment"
        )
    found = (source.get("Rows"), source.get("Columns"))
    if int(source.get("NumberOfFrames") or 1) != 1 or found != mask.shape[1:]:
        raise UnusableSample(
            "no_dicom_segmentation",
            f"the image has {source.get('NumberOfFrames') or 1} frames of {found[0]} × {found[1]} "
            f"pixels, and the mask one of {mask.shape[1]} × {mask.shape[2]}; expected one frame "
            "of the same size",
        )


def _segment(highdicom: Any, number: int, name: str, weights_sha256: str) -> Any:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_MAKER,
        version=f"{__version__}, weights {weights_sha256[:16]}",
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=highdicom.sr.CodedConcept(*_CATEGORY),
        segmented_property_type=highdicom.sr.CodedConcept(*_TYPE),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )


def _identifier(*sources: str | bytes) -> str:
    """Returns a UID that the same sources give again, and tells nothing of them."""
    from pydicom.uid import generate_uid

    texts = [each.hex() if isinstance(each, bytes) else str(each) for each in sources]
    return str(generate_uid(entropy_srcs=texts))
